#!/usr/bin/env bash
# Build a real application image of about 0.8 GB in 7 layers (Debian + Python + a scientific stack, with deletions, so that
# whiteouts, opaque directories and hard links occur as they do in real life) and save it as a docker-archive.
#
#   make_app.sh OUT.tar          needs root, about 5 GB of disk and 5 minutes; installs docker.io and mmdebstrap from Debian
#
# The engine runs on a private socket and data folder below ${WORK:-/tmp/longshore-app}; both stay for later calls.
set -euo pipefail
out=$(realpath -m "$1"); work=${WORK:-/tmp/longshore-app}; here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$work"; cd "$work"
if ! command -v dockerd >/dev/null || ! command -v mmdebstrap >/dev/null; then
  apt-get update -q; DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends docker.io mmdebstrap iptables
fi
[ -s base.tar ] || mmdebstrap --variant=minbase bookworm base.tar
PATH=/usr/sbin:/usr/bin:/sbin:/bin  # Debian's engine, not one that was installed by hand
export DOCKER_HOST=unix://$work/docker.sock DOCKER_BUILDKIT=0
if ! docker info >/dev/null 2>&1; then
  setsid dockerd --data-root "$work/docker" --exec-root "$work/exec" -H "$DOCKER_HOST" --pidfile "$work/docker.pid" \
    --iptables=false --bridge=none >"$work/dockerd.log" 2>&1 &
  for _ in $(seq 60); do docker info >/dev/null 2>&1 && break; sleep 0.5; done
fi
docker image inspect lab/base:12 >/dev/null 2>&1 || docker import base.tar lab/base:12 >/dev/null
rm -rf ctx; mkdir -p ctx/etc/ssl/certs
cp -r /etc/apt ctx/etc/apt; cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" ctx/etc/ssl/certs/build.crt
cp -L /etc/ssl/certs/ca-certificates.crt ctx/etc/ssl/certs/
cp "$here/app.Dockerfile" ctx/Dockerfile
docker build -q --network host -t lab/app:1 ctx
docker save -o "$out" lab/app:1
ls -l "$out"

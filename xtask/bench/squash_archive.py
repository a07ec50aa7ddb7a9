#!/usr/bin/env python3
"""Squash a docker-archive with docker-squash, without an engine: its own code, fed the archive where it would ask for `docker save`.

usage: squash_archive.py IN.tar OUT.tar        (as a package: docker-squash==1.2.2)

docker-squash only works on an image of a daemon, which it asks for the history and the saved archive. Here the archive itself answers, so
that the time is that of squashing, and what the daemon would add (loading the image before, saving it during) is left out, to its favour.
"""
import json, logging, sys, tarfile
from docker_squash.squash import Squash

class Archive:
    def __init__(self, path):
        self.path = path
        with tarfile.open(path) as tar:
            self.config = json.load(tar.extractfile("manifest.json"))[0]["Config"]
            self.steps = len(json.load(tar.extractfile(self.config))["history"])

    def version(self):
        return {"Version": "none", "ApiVersion": "1.41"}

    def inspect_image(self, _):
        return {"Id": "sha256:" + self.config.rsplit("/", 1)[-1].split(".")[0]}

    def history(self, image):
        return [{"Id": image}] + [{"Id": "<missing>"}] * (self.steps - 1)

    def get_image(self, _):
        with open(self.path, "rb") as file:
            while chunk := file.read(2 << 20):
                yield chunk

if __name__ == "__main__":
    log = logging.getLogger("squash")
    log.addHandler(logging.StreamHandler())
    source, out = sys.argv[1:]
    Squash(log, "app:1", docker=Archive(source), tag="app:1", output_path=out, load_image=False).run()

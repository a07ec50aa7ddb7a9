//! `cargo xtask demo`: the main job on real archives, every command shown with what it prints. Needs Rust alone.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::fresh::Fresh;
use crate::tools::{longshore, root};

/// What it starts from: Docker 20.10 wrote the one, two images under three names, and podman 4.3 the other.
const FIXTURES: [(&str, &str); 2] = [("docker20-three-names.tar", "from-docker.tar"), ("podman4-oci-archive.tar", "from-podman.tar")];

pub(crate) fn run() -> anyhow::Result<()> {
    println!("Building longshore; the first time takes a minute or two ...");
    let binary = longshore(false)?;
    let fresh = Fresh::below(&std::env::temp_dir(), "longshore-demo")?;
    let folder = fresh.path();
    for (fixture, name) in FIXTURES {
        std::fs::copy(root().join("testkit/fixtures/from").join(fixture), folder.join(name)).with_context(|| fixture.to_owned())?;
    }
    let demo = Demo { binary: &binary, folder };
    println!("\nTwo archives to work on: from-docker.tar (Docker 20.10, `docker save`) and from-podman.tar (podman 4.3, an OCI archive).");

    demo.title("1. Look into an archive, without a daemon")?;
    demo.ok("inspect from-docker.tar")?;

    demo.title("2. Convert it to an OCI layout: layers become gzip, image IDs and names stay")?;
    demo.ok("copy from-docker.tar oci:layout")?;
    demo.ok("inspect oci:layout:pantry:2")?;

    demo.title("3. Join it with the archive of podman, into one that `docker load` takes")?;
    demo.ok("copy from-docker.tar from-podman.tar joined.tar")?;

    demo.title("4. Take one image out again, its layers as zstd; first the plan, then the work")?;
    demo.ok("copy --dry-run --compress zstd docker-archive:joined.tar:pantry:2 oci-archive:pantry.tar")?;
    demo.ok("copy --compress zstd docker-archive:joined.tar:pantry:2 oci-archive:pantry.tar")?;

    demo.title("5. Verify every size, digest and diff ID of all that was written")?;
    demo.ok("check layout joined.tar pantry.tar")?;

    demo.title("6. The same input gives the same bytes, on one thread or four")?;
    demo.ok("--threads 1 copy from-docker.tar oci-archive:one.tar")?;
    demo.ok("--threads 4 copy from-docker.tar oci-archive:four.tar")?;
    ensure!(std::fs::read(folder.join("one.tar"))? == std::fs::read(folder.join("four.tar"))?, "two runs gave different bytes");
    println!("one.tar and four.tar are equal, byte for byte.");

    demo.title("7. A damaged archive is refused in one sentence, and nothing is written")?;
    let bytes = std::fs::read(folder.join("joined.tar"))?;
    std::fs::write(folder.join("cut.tar"), &bytes[..bytes.len() / 2])?;
    demo.fails("copy cut.tar oci:never")?;
    ensure!(!folder.join("never").exists(), "a refused copy left its output");

    println!("\nEvery step did what it should, and the folder of the demo is gone again.");
    println!("To have longshore at hand: cargo install --path cli; then: longshore --help");
    Ok(())
}

struct Demo<'a> {
    binary: &'a Path,
    folder: &'a Path,
}

impl Demo<'_> {
    fn title(&self, text: &str) -> anyhow::Result<()> {
        println!("\n=== {text}");
        // What the commands print comes after this line, wherever both go.
        std::io::Write::flush(&mut std::io::stdout())?;
        Ok(())
    }

    fn run(&self, args: &str) -> anyhow::Result<i32> {
        println!("\n$ longshore {args}");
        let output = Command::new(self.binary).args(args.split_whitespace()).current_dir(self.folder).output()?;
        print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        output.status.code().ok_or_else(|| anyhow::anyhow!("a signal ended it"))
    }

    fn ok(&self, args: &str) -> anyhow::Result<()> {
        match self.run(args)? {
            0 => Ok(()),
            code => bail!("`longshore {args}` ended with exit code {code}"),
        }
    }

    fn fails(&self, args: &str) -> anyhow::Result<()> {
        match self.run(args)? {
            1 => Ok(()),
            code => bail!("`longshore {args}` should fail with exit code 1, and ended with {code}"),
        }
    }
}

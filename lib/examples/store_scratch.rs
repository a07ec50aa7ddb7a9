//! scratch
use longshore::context::Context;
use longshore::format::WriteOptions;
use longshore::location::{Location, create};
use longshore::plan::{ConvertOptions, convert};
use longshore::source::{Source, Wanted};
use longshore::stores::*;
use longshore::tree::Opening;
use std::sync::Arc;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let ctx = Context::new(2, std::env::temp_dir());
    let wanted = Wanted::All;
    let opening = Opening { pick: None, wanted: &wanted, referrers: false, missing_layers: false, keep_going: false, ctx: &ctx };
    let reference = Some(args[3].as_str()).filter(|r| !r.is_empty());
    let start = std::time::Instant::now();
    let source: longshore::Result<Arc<dyn Source>> = match args[1].as_str() {
        "docker" => open_docker_storage(&DockerStorage { root: args[2].clone().into(), containerd: None }, reference, &opening),
        "podman" => open_containers_storage(
            &ContainersStorage { graph_root: args[2].clone().into(), driver: None, image_stores: vec![] },
            reference,
            &opening,
        ),
        _ => {
            let d = Containerd { root: args[2].clone().into(), namespace: "default".into() };
            open_containerd(&d, reference, &opening)
        }
    };
    let source = match source {
        Ok(s) => s,
        Err(e) => {
            println!("ERROR {e} ({:?})", e.hint_text());
            std::process::exit(1)
        }
    };
    println!("{} opened in {:?}", source.describe(), start.elapsed());
    let cat = source.catalog();
    for r in &cat.roots {
        println!("root {r} {:?}", cat.identity(&r.node));
    }
    for w in &cat.warnings {
        println!("warning {w}");
    }
    for b in &cat.blobs {
        println!("  {:?} {:?} {}", b.known.size, b.compression, b.place);
    }
    if let Some(out) = args.get(4) {
        let to = Location::parse_destination(out).unwrap();
        let write = WriteOptions::default();
        let plan = convert(cat, &to.accepts(&write).unwrap(), &ConvertOptions::default()).unwrap();
        let r = longshore::run::run(&plan, source.as_ref(), create(&to, &write, true, &ctx).unwrap(), &ctx);
        match r {
            Ok(r) => println!("{} read", r.bytes_read),
            Err(e) => println!("ERROR {e}"),
        }
        println!("done in {:?}", start.elapsed());
    }
}

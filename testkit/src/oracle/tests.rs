use std::process::Command;

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use super::*;
use crate::images::{Image, Layer, Layout, entries};
use crate::peers;

/// Layers from text: entries are separated by spaces, layers by `|`.
fn read(text: &str) -> Vec<Vec<Member>> {
    text.split('|').map(|layer| entries(&layer.replace(' ', "\n"))).collect()
}

/// A tree as text, in the form that made it; of an inode, the first name has the content and the others link to it.
fn brief(tree: &Tree) -> String {
    let entry = |(path, node): (&Vec<u8>, &Node)| {
        let (path, first) = (shown(path), node.names.first().unwrap());
        match &node.content {
            _ if shown(first) != path => format!("{path}=>{}", shown(first)),
            Content::Directory => format!("{path}/"),
            Content::File(data) => format!("{path}={}", shown(data)),
            Content::Symlink(target) => format!("{path}->{}", shown(target)),
            other => format!("{path} {other:?}"),
        }
    };
    tree.0.iter().map(entry).collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn same(cases: &[(&str, &str)]) {
    for (layers, expected) in cases {
        let tree = Tree::of_layers(&read(layers)).unwrap_or_else(|why| panic!("{layers}: {why}"));
        assert_eq!(&brief(&tree), expected, "{layers}");
    }
}

#[track_caller]
fn refused(cases: &[(&str, &str)]) {
    for (layers, why) in cases {
        let found = Tree::of_layers(&read(layers)).expect_err(layers);
        assert!(found.contains(why), "{layers}: {found}");
    }
}

#[test]
fn whiteouts_hide_lower_layers() {
    same(&[
        ("a=1 b=2|.wh.a=", "b=2"),
        ("d/ d/x=1 d/e/ d/e/y=2|d/.wh.e=", "d/ d/x=1"),
        ("ab=1 a/ a/x=2 a-=3|.wh.a=", "a-=3 ab=1"),
        // Never there, in a directory that never was, through a link that dangles.
        ("a=1|.wh.b= no/.wh.x=", "a=1"),
        ("s->no|s/.wh.x=", "s->no"),
        // With data, as links of both kinds, as a directory.
        ("a=1 b=1 c=1 d=1|.wh.a=data .wh.b->nowhere .wh.c=>.wh.a .wh.d/", ""),
        // Only lower layers, wherever it stands; and the layer's own files again in the next one.
        ("a=1|.wh.a= a=2", "a=2"),
        ("a=1|a=2 .wh.a=", "a=2"),
        ("|a=2 .wh.a=|.wh.a=", ""),
        ("d/ d/x=1|d/y=2 .wh.d=", "d/y=2"),
        ("d/ d/x=1|.wh.d= d/y=2", "d/y=2"),
        ("d/ d/x=1|d/ d/y=2 .wh.d=", "d/ d/y=2"),
        ("d/ d/x=1|.wh.d= d/", "d/"),
        ("d/x=1|d/.wh.x=", ""),
        // The link and not what it points to, but what lies behind a link above.
        ("d/ d/x=1 s->d|.wh.s=", "d/ d/x=1"),
        ("d/ d/x=1 s->d|s/.wh.x=", "d/ s->d"),
        // What was placed through a link stays where it is.
        ("d/ s->d|s/x=1 .wh.s=", "d/ d/x=1"),
        ("d/ s->d|.wh.s= s/x=1", "d/ s/x=1"),
    ]);
    refused(&[
        (".wh.=", "a whiteout of no name"),
        ("d/.wh..=", "a whiteout of no name"),
        (".wh...=", "a whiteout of no name"),
        (".wh.a/x=1", "lies below a whiteout"),
        ("d/.wh..wh..opq/x=1", "lies below a whiteout"),
        ("f=1|f/.wh.x=", "below something else than a directory"),
    ]);
}

#[test]
fn opaque_marks_hide_what_is_below() {
    same(&[
        ("d/ d/x=1 d/e/ d/e/y=2 da=3|d/.wh..wh..opq=", "d/ da=3"),
        ("d/ d/x=1|d/ d/y=2 d/.wh..wh..opq=", "d/ d/y=2"),
        ("d/ d/x=1|d/.wh..wh..opq= d/ d/y=2", "d/ d/y=2"),
        ("d/ d/e/ d/e/x=1|d/e/y=2 d/.wh..wh..opq=", "d/ d/e/y=2"),
        ("d/ d/e/ d/e/x=1|d/e/ d/.wh..wh..opq=", "d/ d/e/"),
        ("a=1 d/ d/x=1|.wh..wh..opq= b=2", "b=2"),
        ("./ a=1|.wh..wh..opq=", "./"),
        ("a=1|no/.wh..wh..opq=", "a=1"),
        ("d/ d/x=1 s->d|s/.wh..wh..opq=", "d/ s->d"),
    ]);
}

#[test]
fn aufs_leaves_files_behind() {
    same(&[
        (".wh..wh.aufs= .wh..wh.orph/ .wh..wh.orph/x=1 d/.wh..wh.foo= a=1", "a=1"),
        ("a=1|.wh..wh.a=", "a=1"),
        (".wh..wh.plnk/ .wh..wh.plnk/1.2=old a=>.wh..wh.plnk/1.2 b=>/.wh..wh.plnk/1.2", "a=old b=>a"),
    ]);
    refused(&[
        (".wh..wh.plnk/1=old|a=>.wh..wh.plnk/1", "not there"),
        ("a=>.wh..wh.plnk/1", "not there"),
        (".wh..wh.aufs= a=>.wh..wh.aufs", "not there"),
    ]);
}

#[test]
fn the_last_entry_of_a_path_counts() {
    same(&[
        ("a=1 a=2", "a=2"),
        ("a=1 ./a=2 /a=3 .//a=4", "a=4"),
        ("d/ d/x=1 d=2", "d=2"),
        ("d/ d/x=1|d=2", "d=2"),
        ("d/ d/e/ d/e/x=1|d->e", "d->e"),
        ("a=1|a/ a/x=2", "a/ a/x=2"),
        ("a=1 a/ a/x=2", "a/ a/x=2"),
        ("d/ d/x=1|d/", "d/ d/x=1"),
        ("d/ d/x=1|d=2|d/", "d/"),
        ("d/x=1 d/", "d/ d/x=1"),
        ("./ a=1", "./ a=1"),
        ("/", "./"),
    ]);
    let mut layers = read("d/ d/x=1|d/");
    layers[0][0].about.xattrs.insert("user.a".into(), "1".into());
    layers[1][0].about = Attributes { mode: 0o700, uid: 7, ..Attributes::default() };
    let tree = Tree::of_layers(&layers).unwrap();
    assert_eq!(tree.0[&b"d"[..]].about, layers[1][0].about);
    for (name, why) in
        [("a/../b", "no name in a layer"), ("", "no name in a layer"), ("a\0", "no name in a layer"), ("./", "root is no directory")]
    {
        assert!(Tree::of_layers(&[vec![Member::file(name, "")]]).expect_err(name).contains(why));
    }
}

#[test]
fn parents_are_found_through_links() {
    same(&[
        ("usr/ usr/lib/ lib->usr/lib|lib/x=1", "lib->usr/lib usr/ usr/lib/ usr/lib/x=1"),
        ("d/ e/ e/s->../d|e/s/x=1", "d/ d/x=1 e/ e/s->../d"),
        ("d/ s->/d|s/x=1", "d/ d/x=1 s->/d"),
        ("d/ s->../../../d|s/x=1", "d/ d/x=1 s->../../../d"),
        ("d/ e/ e/s->/../d|e/s/x=1", "d/ d/x=1 e/ e/s->/../d"),
        ("d/ s->t t->d/ s/x=1", "d/ d/x=1 s->t t->d/"),
        ("s->/ s/x=1", "s->/ x=1"),
        ("d/ d/s->. d/s/s/x=1", "d/ d/s->. d/x=1"),
        // The last part is not followed.
        ("d/ s->d|s=1", "d/ s=1"),
        ("d/ d/x=1 s->d|s/", "d/ d/x=1 s/"),
        ("d/ s->d|s/ s/x=1", "d/ s/ s/x=1"),
        // As they are by then.
        ("d/ e/ s->d|s->e s/x=1", "d/ e/ e/x=1 s->e"),
        ("d/ e/ s->d|s/x=1 s->e", "d/ d/x=1 e/ s->e"),
        ("s->no s/x=1", "no/x=1 s->no"),
        ("s->no/where s/x=1|no/where/", "no/where/ no/where/x=1 s->no/where"),
    ]);
    refused(&[("s->s|s/x=1", "symbolic links"), ("s->t t->s s/x=1", "symbolic links")]);
    // 40 links, and one more.
    let chain: Vec<String> = (0..40).map(|at| format!("s{at}->s{}", at + 1)).collect();
    let chain = format!("s40/ {}", chain.join(" "));
    assert!(Tree::of_layers(&read(&format!("{chain}|s0/x=1"))).unwrap().0.contains_key(&b"s40/x"[..]));
    refused(&[(&format!("{chain} t->s0|t/x=1"), "symbolic links")]);
}

#[test]
fn missing_parents_are_implied() {
    same(&[
        ("a/b/x=1", "a/b/x=1"),
        ("a/x=1|a/", "a/ a/x=1"),
        ("a/x=1|a=2", "a=2"),
        ("a=1|a/x=2", "a/x=2"),
        ("a=1 s->a|s/x=2", "a/x=2 s->a"),
        ("d/ d/e=1|d/e/f/x=2", "d/ d/e/f/x=2"),
    ]);
    refused(&[("a=1 a/x=2", "no directory in this layer"), ("a=1 s->a s/x=2", "no directory in this layer")]);
}

#[test]
fn hard_links_share_an_inode() {
    same(&[
        ("a=1 b=>a", "a=1 b=>a"),
        ("a=1 b=>./a c=>/b", "a=1 b=>a c=>a"),
        // An inode lives as long as any name.
        ("a=1 b=>a c=>a|a=2", "a=2 b=1 c=>b"),
        ("a=1 b=>a|.wh.a=", "b=1"),
        ("a=1 b=>a a=2", "a=2 b=1"),
        ("a=1|b=>a a=2", "a=2 b=1"),
        ("a=1|b=>a .wh.a=", "b=1"),
        ("a=1|b=>a|.wh.a= c=>b", "b=1 c=>b"),
        ("a=1 b=2|b=>a", "a=1 b=>a"),
        ("d/ d/x=1 y=>d/x|d=2", "d=2 y=1"),
        ("a=1 b/ b/x=2|b=>a", "a=1 b=>a"),
        // Through links, and to one.
        ("d/ d/x=1 s->d|y=>s/x", "d/ d/x=1 s->d y=>d/x"),
        ("s->no t=>s", "s->no t=>s"),
        ("a=1 s->a t=>s", "a=1 s->a t=>s"),
        ("d/ s->d t=>s|t/x=1", "d/ d/x=1 s->d t=>s"),
    ]);
    refused(&[
        ("b=>a", "not there"),
        ("b=>a a=1", "not there"),
        ("a=1|.wh.a= b=>a", "not there"),
        ("a=1 a=>a", "not there"),
        ("d/ b=>d", "the directory"),
        ("d/x=1 b=>d", "the directory"),
        ("b=>/", "the root"),
        ("a=1 b=>../a", "no name in a layer"),
        ("b=>", "no name in a layer"),
        ("s->", "to no name"),
        ("d/ d/x=1 d=>d/x", "not there"),
    ]);
}

#[test]
fn reads_one_plain_tar() {
    let of = |text: &str| Tree::of_tar(&tar::write(&read(text)[0]));
    for text in ["./ a=1 b=>a d/ d/x=2 e/y=3 s->no", "d/ d/e/ d/e/x=1 d-=2"] {
        of(text).assert_is(&Tree::of_layers(&read(text)).unwrap());
    }
    let panics = [
        "a=1 ./a=2",
        ".wh.a=",
        "d/.wh..wh..opq=",
        "d/x=1 d/",
        "a=1 ./",
        "b=>a a=1",
        "a=>a",
        "s->d d/ s/x=1",
        "a=1 a/x=1",
        "d/ s->d d/x=1 y=>s/x",
    ];
    for text in panics {
        assert!(std::panic::catch_unwind(|| of(text)).is_err(), "{text}");
    }
    assert!(std::panic::catch_unwind(|| Tree::of_tar(&Member::file("a", "").bytes())).is_err());
}

#[test]
fn judges_a_partial_merge() {
    let check = |layers: &str, keep: usize, merged: &str| {
        let layers = read(layers);
        let all = Tree::of_layers(&layers).unwrap();
        std::panic::catch_unwind(|| check_partial(&layers[..keep], &tar::write(&read(merged)[0]), &all)).is_ok()
    };
    assert!(check("a=1 d/ d/x=1|.wh.a=|d/.wh..wh..opq= y=2", 1, ".wh.a= d/.wh..wh..opq= y=2"));
    assert!(!check("a=1|b=2|.wh.b=", 1, ".wh.b="), "a whiteout of what the merged layers had");
    assert!(!check("d/ e=1|d/.wh..wh..opq=", 1, "d/.wh..wh..opq="), "an opaque mark in an empty directory");
    assert!(!check("a=1|b=2", 1, "b=3"), "another tree");
    assert!(!check("a=1 b=>a|c=>a", 1, "c=1"), "another inode");
}

#[test]
fn kitchen_is_as_its_fixture_says() {
    let members = tar::read(&std::fs::read(crate::fixture("kitchen.tar")).unwrap());
    let data = |name: &str| members.iter().find(|member| member.text() == name).unwrap().data.as_slice();
    let manifest: serde_json::Value = serde_json::from_slice(data("manifest.json")).unwrap();
    let names = manifest[0]["Layers"].as_array().unwrap();
    let layers: Vec<_> = names.iter().map(|name| tar::read(data(name.as_str().unwrap()))).collect();
    let rows = Tree::of_layers(&layers).unwrap().rows();
    assert_eq!(rows, std::fs::read_to_string(crate::fixture("kitchen-rootfs.txt")).unwrap());
}

#[test]
fn random_layers_are_valid_and_hold_everything() {
    let mut runner = TestRunner::deterministic();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..500 {
        let layers = layers().new_tree(&mut runner).unwrap().current();
        let tree = Tree::of_layers(&layers).unwrap();
        // What is written reads back, so that a test may judge by bytes.
        layers.iter().for_each(|layer| assert_eq!(&tar::read(&tar::write(layer)), layer));
        let mut files = FileSystem::default();
        for layer in &layers {
            files.begin_layer();
            let mut seen = BTreeSet::new();
            for member in layer {
                for what in happens(&files, member, &mut seen) {
                    *counts.entry(what).or_default() += 1;
                }
                files.entry(member).unwrap();
            }
        }
        *counts.entry("nodes").or_default() += tree.0.len();
        *counts.entry("inodes of several names").or_default() += tree.0.values().filter(|node| node.names.len() > 1).count();
    }
    let rare: Vec<_> = counts.iter().filter(|(_, count)| **count < 20).collect();
    assert!(counts.len() == 20 && rare.is_empty(), "{counts:#?}");
}

/// umoci and we agree wherever umoci unpacks at all: it refuses an entry below a file of a lower layer.
#[test]
fn umoci_unpacks_the_same() {
    let (umoci, gnu_tar) = match (peers::Tool::umoci(), peers::find("tar")) {
        (Ok(umoci), Some(tar)) if rustix::process::geteuid().is_root() => (umoci, tar),
        (Ok(_), _) => return peers::skipped("oracle: umoci", "unpacking owners and devices needs root, and reading them tar"),
        (Err(why), _) => return peers::skipped("oracle: umoci", &why),
    };
    let (mut runner, mut agreed) = (TestRunner::deterministic(), 0);
    for _ in 0..150 {
        let mut layers = layers().new_tree(&mut runner).unwrap().current();
        // Not every file system has them.
        layers.iter_mut().flatten().for_each(|member| member.about.xattrs.clear());
        // umoci knows nothing of AUFS.
        if layers.iter().flatten().any(|member| member.name.starts_with(PLINK)) {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let (layout, bundle) = (folder.path().join("layout"), folder.path().join("bundle"));
        let image = layers.iter().fold(Image::new("app"), |image, layer| image.with(Layer::of_tar(tar::write(layer))));
        Layout::of(&[image]).archive().write_dir(&layout);
        let source = format!("{}:app", layout.display());
        let ran = umoci.run(&["unpack", "--image", &source, bundle.to_str().unwrap()]);
        if ran.code != Some(0) {
            assert!(ran.stderr.contains("not a directory"), "{}", ran.stderr);
            continue;
        }
        let mut archive = Command::new(&gnu_tar);
        archive.args(["--create", "--format=pax", "--numeric-owner", "--directory"]);
        let archive = archive.arg(bundle.join("rootfs")).arg(".").output().unwrap().stdout;
        let mut found = FileSystem::of_layers(&[tar::read(&archive)]).unwrap().tree();
        let mut expected = Tree::of_layers(&layers).unwrap();
        // Implied directories are directories by then.
        found.0.retain(|path, node| expected.0.contains_key(path) || node.content != Content::Directory);
        [&mut found, &mut expected].into_iter().for_each(only_what_unpacking_keeps);
        found.assert_is(&expected);
        agreed += 1;
    }
    assert!(agreed > 50, "umoci refuses all but {agreed}");
}

/// Drops what a file system or the tools on the way do not keep.
fn only_what_unpacking_keeps(tree: &mut Tree) {
    tree.0.remove(&b"."[..]);
    for node in tree.0.values_mut() {
        node.about.records.clear();
        match node.content {
            Content::Directory => node.about.mtime = (0, 0),
            Content::File(_) => {}
            Content::Symlink(_) => node.about.mode = 0,
            // GNU tar does not store their hard links.
            _ => node.names.clear(),
        }
    }
}

/// What is notable about the next entry.
fn happens(files: &FileSystem, member: &Member, seen: &mut BTreeSet<Vec<u8>>) -> Vec<&'static str> {
    let parts = clean(&member.name).unwrap();
    let Some((last, parents)) = parts.split_last() else { return vec!["root"] };
    let lies = files.resolve(parents).unwrap();
    let path = [lies.clone(), vec![last.to_vec()]].concat().join(&b'/');
    let there = files.at(&path);
    let is_mark = last.starts_with(WHITEOUT);
    let hidden = [lies.clone(), vec![last.strip_prefix(WHITEOUT).unwrap_or_default().to_vec()]].concat().join(&b'/');
    let is_directory = |inode: &Inode| inode.content == Content::Directory;
    let link = (member.kind == b'1').then(|| files.link_target(&member.link).ok()).flatten();
    let lower_target = || files.names.values().any(|name| Some(name.inode) == link && name.layer < files.layer);
    let cases = [
        ("through a link", lies.iter().map(Vec::as_slice).ne(parents.iter().copied())),
        ("missing parent", !is_mark && files.at(&lies.join(&b'/')).is_none()),
        (
            "parent was a file",
            !is_mark && (1..=lies.len()).any(|len| files.at(&lies[..len].join(&b'/')).is_some_and(|inode| !is_directory(inode))),
        ),
        ("whiteout of something", is_mark && files.at(&hidden).is_some()),
        ("whiteout of nothing", is_mark && *last != OPAQUE && files.at(&hidden).is_none()),
        ("whiteout beside its file", is_mark && seen.contains(&hidden)),
        ("opaque mark", *last == OPAQUE && files.names.keys().any(|name| is_below(name, &lies.join(&b'/')))),
        ("directory again", !is_mark && member.kind == b'5' && there.is_some_and(is_directory)),
        ("directory over file", !is_mark && member.kind == b'5' && there.is_some_and(|inode| !is_directory(inode))),
        ("file over directory", !is_mark && member.kind != b'5' && there.is_some_and(is_directory)),
        ("duplicate", !is_mark && seen.contains(&path)),
        ("hard link", link.is_some()),
        ("hard link to a lower layer", link.is_some() && lower_target()),
        ("hard link to a symbolic link", link.is_some_and(|inode| matches!(files.inodes[inode].content, Content::Symlink(_)))),
        ("AUFS", member.link.starts_with(PLINK)),
        ("long name", member.name.len() > 100),
        ("PAX header", member.bytes()[156] == b'x'),
    ];
    seen.insert(path);
    cases.into_iter().filter(|(_, holds)| *holds).map(|(what, _)| what).collect()
}

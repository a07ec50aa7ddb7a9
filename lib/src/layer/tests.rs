//! Layers made of files, read back by testkit's reader, by our parser for what that does not see, and by GNU tar.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use longshore_testkit::tar::{self, Member};
use longshore_testkit::{noise, peers};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use tempfile::TempDir;

use super::*;
use crate::context::Cancel;
use crate::error::{Error, ErrorKind};
use crate::tar::{Entries, Entry, LayerChecker, TarLimits, Time};

/// A folder on the workspace's own file system, which has what users have: that of temporary files may lack attributes.
fn folder() -> TempDir {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    fs::create_dir_all(&target).unwrap();
    tempfile::tempdir_in(target).unwrap()
}

fn put(root: &Path, name: impl AsRef<OsStr>, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = root.join(Path::new(name.as_ref()));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    path
}

fn mapping(from: impl Into<PathBuf>, to: &str) -> Mapping {
    Mapping { from: from.into(), to: to.to_owned() }
}

fn preserve() -> BuildOptions {
    BuildOptions { preserve: true, ..BuildOptions::default() }
}

fn bytes(build: &Build) -> Vec<u8> {
    let mut bytes = Vec::new();
    build.reader().read_to_end(&mut bytes).unwrap();
    assert_eq!(build.size(), bytes.len() as u64, "the size that was known before");
    assert!(bytes.ends_with(&[0; 1024]));
    bytes
}

fn built(mappings: &[Mapping]) -> Vec<u8> {
    bytes(&Build::scan(mappings, &BuildOptions::default(), &Cancel::default()).unwrap())
}

/// The members, without mode, owner and time.
fn members(mappings: &[Mapping]) -> Vec<Member> {
    plain(&built(mappings))
}

fn plain(archive: &[u8]) -> Vec<Member> {
    tar::read(archive).into_iter().map(|member| Member { about: Default::default(), ..member }).collect()
}

fn names(mappings: &[Mapping]) -> Vec<String> {
    members(mappings).iter().map(Member::text).collect()
}

/// The entries, which must be what every engine takes.
fn entries(archive: &[u8]) -> Vec<Entry> {
    let (mut reader, mut checker, mut entries) = (Entries::new(archive, TarLimits::default()), LayerChecker::default(), Vec::new());
    while let Some(entry) = reader.next_entry().unwrap() {
        assert_eq!(checker.entry(&entry), None);
        entries.push(entry);
    }
    entries
}

fn refused(mappings: &[Mapping]) -> Error {
    Build::scan(mappings, &BuildOptions::default(), &Cancel::default()).unwrap_err()
}

#[track_caller]
fn mentions(error: &Error, kind: ErrorKind, parts: &[&dyn AsRef<Path>]) {
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        let part = part.as_ref().display().to_string();
        assert!(error.to_string().contains(&part), "no {part} in: {error}");
    }
}

#[test]
fn a_tree_is_put_in_order_with_fixed_owners_and_times() {
    let dir = folder();
    let root = dir.path();
    for name in ["b/z", "b/a", "b-c", "b.d", "a/deep/er/file", "Z"] {
        put(root, name, name);
    }
    fs::set_permissions(root.join("b"), Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(root.join("Z"), Permissions::from_mode(0o4755)).unwrap();
    let options = BuildOptions { mtime: 946_684_800, ..BuildOptions::default() };
    let archive = bytes(&Build::scan(&[mapping(root, "/")], &options, &Cancel::default()).unwrap());
    let found = tar::read(&archive);
    let expected = ["Z", "a/", "a/deep/", "a/deep/er/", "a/deep/er/file", "b-c", "b.d", "b/", "b/a", "b/z"];
    assert_eq!(found.iter().map(Member::text).collect::<Vec<_>>(), expected);
    assert!(expected.is_sorted());
    assert!(found.iter().all(|member| (member.kind == b'5') == member.name.ends_with(b"/")));
    assert!(found.iter().filter(|member| member.kind == b'0').all(|member| member.data == member.name));
    for entry in entries(&archive) {
        assert_eq!((entry.uid, entry.gid, entry.mtime), (0, 0, Time::from_secs(946_684_800)));
        assert!(entry.user.is_empty() && entry.group.is_empty() && entry.pax.is_empty());
        assert!(entry.mode & !0o7777 == 0);
        match &entry.path[..] {
            b"b/" => assert_eq!(entry.mode, 0o1777),
            b"Z" => assert_eq!(entry.mode, 0o4755),
            b"b/a" => assert_eq!(entry.mode, 0o644),
            _ => {}
        }
    }
    assert_eq!(archive, bytes(&Build::scan(&[mapping(root, "")], &options, &Cancel::default()).unwrap()));
}

#[test]
fn the_order_of_the_file_system_and_of_mappings_does_not_count() {
    let (one, two) = (folder(), folder());
    let files: Vec<String> = (0..200).map(|n| format!("{}/{n}", n % 7)).collect();
    for name in &files {
        put(one.path(), name, name);
    }
    for name in files.iter().rev() {
        put(two.path(), name, name);
    }
    let expected = built(&[mapping(one.path(), "/a"), mapping(two.path(), "/b")]);
    assert_eq!(expected, built(&[mapping(two.path(), "b/"), mapping(one.path(), "a")]));
    assert_eq!(built(&[mapping(one.path(), "/x")]), built(&[mapping(two.path(), "/x")]));
}

#[test]
fn mappings_say_where_things_go() {
    let dir = folder();
    let root = dir.path();
    let file = put(root, "tree/file", "text");
    let tree = root.join("tree");
    for (from, to, expected) in [
        (&tree, "/", vec!["file"]),
        (&tree, "", vec!["file"]),
        (&tree, ".", vec!["file"]),
        (&tree, "/opt/app", vec!["opt/app/", "opt/app/file"]),
        (&tree, "opt//app/", vec!["opt/app/", "opt/app/file"]),
        (&file, "/etc/app.conf", vec!["etc/app.conf"]),
        (&file, "etc/app.conf", vec!["etc/app.conf"]),
        (&file, "/etc/", vec!["etc/file"]),
        (&file, "/", vec!["file"]),
        (&file, "", vec!["file"]),
    ] {
        assert_eq!(names(&[mapping(from, to)]), expected, "{} to {to:?}", from.display());
    }
    assert_eq!(built(&[]), [0; 1024]);
    for to in ["/..", "a/../b", "../a", "a\0b"] {
        mentions(&refused(&[mapping(&file, to)]), ErrorKind::Invalid, &[&file]);
        mentions(&refused(&[mapping(&tree, to)]), ErrorKind::Invalid, &[&tree]);
    }
    mentions(&refused(&[mapping(root.join("absent"), "/")]), ErrorKind::NotFound, &[&root.join("absent")]);
}

#[test]
fn names_are_bytes_of_any_length() {
    let dir = folder();
    let long = format!("{}/{}/{}", "d".repeat(120), "e".repeat(120), "n".repeat(200));
    for name in [&b"latin-\xe9"[..], "utf-ü-✓".as_bytes(), b"new\nline", b"\xff", long.as_bytes(), b".wh.gone"] {
        put(dir.path(), OsStr::from_bytes(name), name);
    }
    symlink("t".repeat(300), dir.path().join("far")).unwrap();
    symlink(OsStr::from_bytes(b"\xfe"), dir.path().join("odd")).unwrap();
    let found = members(&[mapping(dir.path(), "/x")]);
    let names: Vec<_> = found.iter().map(|member| member.name.clone()).collect();
    assert!(names.is_sorted() && names[0] == b"x/");
    let files: Vec<_> = found.iter().filter(|member| member.kind == b'0').collect();
    assert_eq!(files.len(), 6);
    assert!(files.iter().all(|member| member.name == [b"x/", &member.data[..]].concat()));
    let link = |name: &[u8]| found.iter().find(|member| member.name == name).unwrap().link.clone();
    assert_eq!((link(b"x/far"), link(b"x/odd")), ("t".repeat(300).into_bytes(), b"\xfe".to_vec()));
}

#[test]
fn deep_trees_need_no_stack() {
    let dir = folder();
    let deep = "d/".repeat(1_000);
    put(dir.path(), format!("{deep}file"), "x");
    let found = names(&[mapping(dir.path(), "/")]);
    assert_eq!((found.len(), found.last().unwrap()), (1_001, &format!("{deep}file")));
}

#[test]
fn hard_links_are_kept_and_the_first_name_holds_the_bytes() {
    let dir = folder();
    let root = dir.path().join("root");
    let file = put(&root, "m/file", "text");
    fs::hard_link(&file, root.join("z")).unwrap();
    fs::hard_link(&file, root.join("a")).unwrap();
    let lone = put(&root, "other-name-outside", "lone");
    fs::hard_link(&lone, dir.path().join("outside")).unwrap();
    let expected = vec![
        Member::dir("i/"),
        Member::file("i/a", "text"),
        Member::dir("i/m/"),
        Member::other(b'1', "i/m/file", "i/a"),
        Member::file("i/other-name-outside", "lone"),
        Member::other(b'1', "i/z", "i/a"),
    ];
    let archive = built(&[mapping(&root, "/i")]);
    assert_eq!(plain(&archive), expected);
    entries(&archive);
    // Over two mappings as well; one name that is mapped twice is two files.
    assert_eq!(members(&[mapping(root.join("z"), "/1"), mapping(root.join("a"), "/2")])[1], Member::other(b'1', "2", "1"));
    let single = put(&root, "single", "s");
    assert_eq!(members(&[mapping(&single, "/1"), mapping(&single, "/2")]), [Member::file("1", "s"), Member::file("2", "s")]);
}

#[test]
fn symlinks_are_never_followed() {
    let dir = folder();
    put(dir.path(), "tree/file", "text");
    let tree = dir.path().join("tree");
    for (target, name) in [("/etc/shadow", "absolute"), ("../../..", "up"), (".", "loop"), ("nowhere", "dangling")] {
        symlink(target, tree.join(name)).unwrap();
    }
    let found = members(&[mapping(&tree, "/")]);
    let expected = vec![
        Member::other(b'2', "absolute", "/etc/shadow"),
        Member::other(b'2', "dangling", "nowhere"),
        Member::file("file", "text"),
        Member::other(b'2', "loop", "."),
        Member::other(b'2', "up", "../../.."),
    ];
    assert_eq!(found, expected);
    symlink("tree", dir.path().join("link")).unwrap();
    assert_eq!(members(&[mapping(dir.path().join("link"), "/opt/app")]), [Member::other(b'2', "opt/app", "tree")]);
    assert_eq!(members(&[mapping(dir.path().join("link/"), "/")]), expected, "a slash at the end means the directory");
}

#[test]
fn attributes_are_kept() {
    let dir = folder();
    let file = put(dir.path(), "f", "text");
    if let Err(error) = setxattr(&file, c"user.note", b"a\0b", XattrFlags::empty()) {
        return peers::skipped("layer: extended attributes", &format!("the workspace's file system refuses them: {error}"));
    }
    setxattr(&file, c"user.empty", b"", XattrFlags::empty()).unwrap();
    fs::hard_link(&file, dir.path().join("g")).unwrap();
    put(dir.path(), "d/none", "");
    setxattr(dir.path().join("d"), c"user.dir", b"of a directory", XattrFlags::empty()).unwrap();
    let archive = built(&[mapping(dir.path(), "/")]);
    let found = entries(&archive);
    let xattrs = |at: usize| found[at].xattrs().into_iter().collect::<Vec<_>>();
    let note = [(&b"user.empty"[..], &b""[..]), (b"user.note", b"a\0b")];
    assert_eq!(found.iter().map(|entry| &entry.path[..]).collect::<Vec<_>>(), [&b"d/"[..], b"d/none", b"f", b"g"]);
    assert_eq!((xattrs(0), xattrs(1)), (vec![(&b"user.dir"[..], &b"of a directory"[..])], vec![]));
    assert_eq!((xattrs(2), xattrs(3)), (note.to_vec(), note.to_vec()), "on links, too");
    // Only root may set these; `cap_net_bind_service=ep`, as setcap writes it.
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    if let Err(error) = setxattr(&file, c"security.capability", capability, XattrFlags::empty()) {
        return peers::skipped("layer: capabilities", &error.to_string());
    }
    let _ = setxattr(&file, c"trusted.note", b"of this machine", XattrFlags::empty());
    let archive = built(&[mapping(&file, "/")]);
    let found = entries(&archive);
    assert_eq!(found[0].xattrs().into_iter().next(), Some((&b"security.capability"[..], &capability[..])));
    assert_eq!(found[0].xattrs().len(), 3, "what belongs to this machine is left out");
}

#[test]
fn devices_and_fifos_are_kept_and_sockets_are_left_out() {
    let dir = folder();
    let at = |name: &str| dir.path().join(name);
    rustix::fs::mkfifoat(CWD, at("pipe"), Mode::from_raw_mode(0o600)).unwrap();
    // A socket's path must stay below 108 bytes.
    let short = tempfile::tempdir().unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(short.path().join("socket")).unwrap();
    assert_eq!(names(&[mapping(short.path(), "/s")]), ["s/"]);
    mentions(&refused(&[mapping(short.path().join("socket"), "/s")]), ErrorKind::Unsupported, &[&short.path().join("socket")]);
    assert_eq!(members(&[mapping(dir.path(), "/")]), [Member::other(b'6', "pipe", "")]);
    if let Err(error) = mknodat(CWD, at("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), rustix::fs::makedev(1, 300)) {
        return peers::skipped("layer: devices", &error.to_string());
    }
    mknodat(CWD, at("disk"), FileType::BlockDevice, Mode::from_raw_mode(0o600), rustix::fs::makedev(259, 5)).unwrap();
    let archive = built(&[mapping(dir.path(), "/")]);
    let found: Vec<_> = entries(&archive).into_iter().map(|entry| (entry.path, entry.device)).collect();
    assert_eq!(found, [(b"disk".to_vec(), (259, 5)), (b"null".to_vec(), (1, 300)), (b"pipe".to_vec(), (0, 0))]);
}

#[test]
fn sparse_files_are_plain() {
    let dir = folder();
    let file = fs::File::create(dir.path().join("sparse")).unwrap();
    file.set_len(3 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", (3 << 20) - 3).unwrap();
    let found = members(&[mapping(dir.path(), "/")]);
    assert!(found[0].data.len() == 3 << 20 && found[0].data.ends_with(b"\0end"));
}

#[test]
fn preserving_keeps_owners_and_times() {
    let dir = folder();
    let path = put(dir.path(), "file", "text");
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789)).unwrap();
    if let Err(error) = std::os::unix::fs::chown(&path, Some(3_000_000), Some(7)) {
        peers::skipped("layer: owners other than ours", &error.to_string());
    }
    let meta = fs::metadata(&path).unwrap();
    let scan =
        |options: &BuildOptions| entries(&bytes(&Build::scan(&[mapping(&path, "/")], options, &Cancel::default()).unwrap())).remove(0);
    let entry = scan(&BuildOptions { mtime: 5, ..preserve() });
    assert_eq!((entry.uid, entry.gid), (meta.uid().into(), meta.gid().into()));
    assert_eq!(entry.mtime, Time { secs: 1_234_567_890, nanos: 123_456_789 });
    let entry = scan(&BuildOptions { mtime: -5, ..BuildOptions::default() });
    assert_eq!((entry.uid, entry.gid, entry.mtime), (0, 0, Time::from_secs(-5)));
    file.set_modified(SystemTime::UNIX_EPOCH - Duration::new(1, 250_000_000)).unwrap();
    assert_eq!(scan(&preserve()).mtime, Time { secs: -2, nanos: 750_000_000 });
}

#[test]
fn directories_merge_and_other_things_conflict() {
    let dir = folder();
    let root = dir.path();
    let (one, two) = (root.join("one"), root.join("two"));
    let a = put(&one, "etc/a", "a");
    put(&two, "etc/b", "b");
    let both = [mapping(&one, "/"), mapping(&two, "/")];
    assert_eq!(names(&both), ["etc/", "etc/a", "etc/b"]);
    assert_eq!(names(&[mapping(&one, "/"), mapping(&one, "/")]), ["etc/", "etc/a"]);
    assert_eq!(names(&[mapping(&one, "/"), mapping(&a, "/etc/")]), ["etc/", "etc/a"], "the same file");
    let other = put(&two, "etc/a", "c");
    mentions(&refused(&both), ErrorKind::Invalid, &[&a, &other, &"/etc/a"]);
    fs::remove_file(&other).unwrap();
    symlink("a", &other).unwrap();
    mentions(&refused(&both), ErrorKind::Invalid, &[&a, &other, &"/etc/a"]);
    fs::remove_file(&other).unwrap();
    fs::create_dir(&other).unwrap();
    mentions(&refused(&both), ErrorKind::Invalid, &[&a, &other, &"/etc/a"]);
    fs::remove_dir(&other).unwrap();
    // What one mapping puts below what another makes a file or a symlink.
    let link = root.join("link");
    symlink("one", &link).unwrap();
    for leaf in [&a, &link] {
        mentions(&refused(&[mapping(leaf, "/x"), mapping(&a, "/x/y/a")]), ErrorKind::Invalid, &[leaf, &a, &"/x"]);
    }
    assert_eq!(names(&[mapping(&link, "/x"), mapping(&a, "/xy")]), ["x", "xy"]);
    // Which of two modes a directory should have is not ours to guess.
    fs::set_permissions(two.join("etc"), Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(one.join("etc"), Permissions::from_mode(0o755)).unwrap();
    mentions(&refused(&both), ErrorKind::Invalid, &[&one.join("etc"), &two.join("etc")]);
    // Of two times it is the later one.
    fs::set_permissions(two.join("etc"), Permissions::from_mode(0o755)).unwrap();
    let later = fs::metadata(one.join("etc")).unwrap().mtime().max(fs::metadata(two.join("etc")).unwrap().mtime());
    let merged = Build::scan(&both, &preserve(), &Cancel::default()).unwrap();
    assert_eq!(entries(&bytes(&merged))[0].mtime.secs, later);
}

#[test]
fn a_file_that_changes_is_an_error_that_names_it() {
    let dir = folder();
    let path = put(dir.path(), "a/file", noise(100_000, 1));
    put(dir.path(), "b", "after");
    let restore = fs::metadata(&path).unwrap().modified().unwrap();
    let change = |change: &dyn Fn(&fs::File)| {
        let file = fs::File::options().write(true).open(&path).unwrap();
        change(&file);
        file.set_modified(restore).unwrap();
    };
    let build = Build::scan(&[mapping(dir.path(), "/")], &BuildOptions::default(), &Cancel::default()).unwrap();
    let expected = bytes(&build);
    let fails = |mut reader: Box<dyn Read + Send>| {
        let mut read = Vec::new();
        let error = reader.read_to_end(&mut read).unwrap_err();
        mentions(&Error::io(error), ErrorKind::Invalid, &[&path]);
        // And again: what is cut short never looks complete.
        let error = Error::io(reader.read(&mut [0; 10]).unwrap_err());
        mentions(&error, ErrorKind::Invalid, &[&path]);
    };
    let begun = || {
        let mut reader = build.reader();
        reader.read_exact(&mut [0; 20_000]).unwrap();
        reader
    };
    for len in [99_999, 100_001, 10_000, 0] {
        let reader = begun();
        change(&|file| file.set_len(len).unwrap());
        fails(reader);
        fails(build.reader());
        fs::write(&path, noise(100_000, 1)).unwrap();
        change(&|_| {});
        assert_eq!(expected, bytes(&build), "as it was");
    }
    // As long as before, but written over while we read.
    let reader = begun();
    fs::File::options().write(true).open(&path).unwrap().write_all(b"other").unwrap();
    fails(reader);
    fails(build.reader());
    // Something else in its place.
    fs::remove_file(&path).unwrap();
    let error = Error::io(build.reader().read_to_end(&mut Vec::new()).unwrap_err());
    mentions(&error, ErrorKind::NotFound, &[&path]);
    rustix::fs::mkfifoat(CWD, &path, Mode::RWXU).unwrap();
    fails(build.reader());
    fs::remove_file(&path).unwrap();
    symlink("../b", &path).unwrap();
    let error = Error::io(build.reader().read_to_end(&mut Vec::new()).unwrap_err());
    mentions(&error, error.kind(), &[&path]);
}

#[test]
fn what_may_not_be_read_is_named() {
    let dir = folder();
    let path = put(dir.path(), "d/secret", "x");
    let build = Build::scan(&[mapping(dir.path(), "/")], &BuildOptions::default(), &Cancel::default()).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o0)).unwrap();
    if rustix::process::geteuid().is_root() {
        return peers_note("layer: unreadable files: root may read everything");
    }
    let error = Error::io(build.reader().read_to_end(&mut Vec::new()).unwrap_err());
    mentions(&error, ErrorKind::Denied, &[&path]);
    fs::set_permissions(dir.path().join("d"), Permissions::from_mode(0o0)).unwrap();
    mentions(&refused(&[mapping(dir.path(), "/")]), ErrorKind::Denied, &[&dir.path().join("d")]);
    fs::set_permissions(dir.path().join("d"), Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_scan_stops_when_asked_to() {
    let dir = folder();
    put(dir.path(), "a", "x");
    let cancel = Cancel::default();
    cancel.cancel();
    let error = Build::scan(&[mapping(dir.path(), "/")], &BuildOptions::default(), &cancel).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

/// Says what could not be tested. CI runs as root, so that this is no failure there.
fn peers_note(what: &str) {
    println!("NOT TESTED {what}");
}

#[test]
fn gnu_tar_unpacks_what_makes_the_same_layer() {
    let Some(program) = peers::find("tar") else { return peers::skipped("layer: GNU tar", "tar is not installed") };
    let dir = folder();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let file = put(&from, "a/file", noise(70_000, 3));
    put(&from, OsStr::from_bytes(b"a/\xff"), "");
    put(&from, format!("{}/{}", "d".repeat(150), "n".repeat(150)), "long");
    fs::hard_link(&file, from.join("b")).unwrap();
    symlink("a/file", from.join("link")).unwrap();
    rustix::fs::mkfifoat(CWD, from.join("pipe"), Mode::from_raw_mode(0o600)).unwrap();
    fs::set_permissions(from.join("a"), Permissions::from_mode(0o2750)).unwrap();
    let _ = setxattr(&file, c"user.note", b"text", XattrFlags::empty());
    let scan = |root: &Path| bytes(&Build::scan(&[mapping(root, "/")], &preserve(), &Cancel::default()).unwrap());
    let archive = scan(&from);
    fs::write(dir.path().join("layer.tar"), &archive).unwrap();
    fs::create_dir(&to).unwrap();
    let mut tar = std::process::Command::new(program);
    tar.args(["--extract", "--preserve-permissions", "--xattrs", "--xattrs-include=*", "--file"]);
    let ran = tar.arg(dir.path().join("layer.tar")).arg("--directory").arg(&to).output().unwrap();
    assert!(ran.status.success() && ran.stderr.is_empty(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(scan(&to) == archive, "GNU tar unpacked something else");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn chunk_size_never_matters(
        files in proptest::collection::vec((prop_oneof!["[a-c]{1,2}", "[a-b]/[a-z]{1,3}"], 0..3_000_usize), 0..12),
        sizes in proptest::collection::vec(1..5_000_usize, 1..10),
    ) {
        let dir = folder();
        for (name, len) in &files {
            // A name may already be a directory, or lie below a file.
            let path = dir.path().join(name);
            let _ = fs::create_dir_all(path.parent().unwrap());
            let _ = fs::write(&path, noise(*len, *len as u64));
        }
        let build = Build::scan(&[mapping(dir.path(), "/x")], &BuildOptions::default(), &Cancel::default()).unwrap();
        let expected = bytes(&build);
        let (mut reader, mut found) = (build.reader(), Vec::new());
        for size in sizes.iter().cycle() {
            let mut chunk = vec![0; *size];
            prop_assert_eq!(reader.read(&mut []).unwrap(), 0);
            let read = reader.read(&mut chunk).unwrap();
            if read == 0 {
                break;
            }
            found.extend_from_slice(&chunk[..read]);
        }
        prop_assert!(found == expected);
    }
}

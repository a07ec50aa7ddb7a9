//! What is unpacked is what the tar says, and nothing happens elsewhere, whoever unpacks.
// Devices, attributes and threads of other users are Linux's here.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs::{self, Metadata, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;

use rustix::fs::{Gid, Uid};

use super::*;
use crate::error::ErrorKind;
use crate::tar::{END, Entries, Header, Record, Time, padding};

/// Who unpacks where root does not.
const NOBODY: u32 = 65_534;

/// A tar of entries and their contents.
#[derive(Default, Clone)]
struct Tar(Vec<u8>);

impl Tar {
    fn new(entries: &[&str]) -> Self {
        entries.iter().fold(Self::default(), |tar, entry| tar.entry(entry))
    }

    /// `dir/`, `file=content`, `symlink->target`, `hard link=>target`.
    fn entry(self, text: &str) -> Self {
        let header = |path: &str, kind, mode| Header { path: path.into(), kind, mode, mtime: Time::from_secs(1), ..Header::default() };
        if let Some((path, target)) = text.split_once("->") {
            return self.put(Header { link: target.into(), ..header(path, Kind::Symlink, 0o777) }, b"");
        }
        if let Some((path, target)) = text.split_once("=>") {
            return self.put(Header { link: target.into(), ..header(path, Kind::HardLink, 0o644) }, b"");
        }
        match text.split_once('=') {
            Some((path, content)) => self.put(header(path, Kind::File, 0o644), content.as_bytes()),
            None => self.put(header(text, Kind::Directory, 0o755), b""),
        }
    }

    fn put(mut self, header: Header, content: &[u8]) -> Self {
        let header = Header { size: content.len() as u64, ..header };
        self.0.extend(header.to_blocks().unwrap());
        self.0.extend(content);
        self.0.resize(self.0.len() + padding(header.size) as usize, 0);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        [&self.0[..], &END].concat()
    }
}

fn xattr(name: &str, value: &[u8]) -> Record {
    (format!("SCHILY.xattr.{name}").into_bytes(), value.to_vec())
}

/// A folder that anybody may write to, and the directory `to` in it, which is not there.
struct Place {
    outer: tempfile::TempDir,
    to: PathBuf,
}

impl Place {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        fs::set_permissions(outer.path(), Permissions::from_mode(0o777)).unwrap();
        Self { to: outer.path().join("to"), outer }
    }

    /// With a folder `secret` that a file `file` is in.
    fn with_secret() -> Self {
        let place = Self::new();
        fs::create_dir(place.secret()).unwrap();
        fs::write(place.secret().join("file"), "secret").unwrap();
        place
    }

    fn secret(&self) -> PathBuf {
        self.outer.path().join("secret")
    }

    fn secret_is_untouched(&self) {
        assert_eq!(names(&self.secret()), ["file"]);
        let meta = fs::metadata(self.secret().join("file")).unwrap();
        assert_eq!((meta.nlink(), meta.len()), (1, 6));
        assert_eq!(fs::metadata(self.secret()).unwrap().mode() & 0o7777, 0o755);
    }

    fn path(&self, path: &str) -> PathBuf {
        self.to.join(path)
    }

    fn unpack(&self, tar: &Tar) -> Result<Unpacked> {
        self.with(tar, &UnpackOptions { rootless: !is_root(), ..UnpackOptions::default() })
    }

    fn force(&self, tar: &Tar) -> Result<Unpacked> {
        self.with(tar, &UnpackOptions { rootless: !is_root(), force: true })
    }

    fn with(&self, tar: &Tar, options: &UnpackOptions) -> Result<Unpacked> {
        unpack(tar.bytes().as_slice(), &self.to, options, &Cancel::default())
    }

    /// The message of a failure that leaves nothing.
    fn refuses(&self, tar: &Tar) -> String {
        let before = names(self.outer.path());
        let error = self.unpack(tar).unwrap_err();
        assert_eq!(names(self.outer.path()), before, "{error}");
        let (_, message) = error.to_string().split_once("/to: ").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        message
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let (mut list, mut value) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let listed = rustix::fs::llistxattr(path, list.as_mut_slice()).unwrap();
    let names = list[..listed].split(|byte| *byte == 0).filter(|name| !name.is_empty() && *name != b"security.selinux");
    let mut get = |name: &[u8]| {
        let len = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
        value[..len].to_vec()
    };
    names.map(|name| (name.to_vec(), get(name))).collect()
}

/// Does something as a user without privileges, in a thread of its own where the caller has some.
fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if !is_root() {
        return work();
    }
    let dropped = || {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(dropped).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Asserts that everything in `tar` is in the directory `root` as root unpacks it, or `rootless`.
fn agrees(tar: &[u8], root: &Path, rootless: bool) {
    let mut entries = Entries::new(tar, TarLimits::default());
    while let Some(entry) = entries.next_entry().unwrap() {
        let clean = RootPath::parse_layer(&entry.path).unwrap();
        let path = root.join(std::ffi::OsStr::from_bytes(clean.as_bytes()));
        let meta = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{clean}: {error}"));
        if entry.kind == Kind::HardLink {
            let target = RootPath::parse_layer(&entry.link).unwrap();
            let target = fs::symlink_metadata(root.join(std::ffi::OsStr::from_bytes(target.as_bytes()))).unwrap();
            assert_eq!((meta.dev(), meta.ino()), (target.dev(), target.ino()), "{clean}");
            continue;
        }
        let is_device = matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice);
        assert_eq!(kind(&meta), if rootless && is_device { Kind::File } else { entry.kind }, "{clean}");
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (entry.mtime.secs, entry.mtime.nanos.into()), "time of {clean}");
        if entry.kind != Kind::Symlink {
            assert_eq!(meta.mode() & 0o7777, entry.mode & 0o7777, "mode of {clean}");
        }
        if !rootless {
            assert_eq!((meta.uid(), meta.gid()), (entry.uid as u32, entry.gid as u32), "owner of {clean}");
            if is_device {
                assert_eq!(meta.rdev(), rustix::fs::makedev(entry.device.0 as u32, entry.device.1 as u32), "{clean}");
            }
        }
        match entry.kind {
            Kind::Symlink => assert_eq!(fs::read_link(&path).unwrap().as_os_str().as_bytes(), entry.link),
            Kind::File if !rootless || meta.mode() & 0o400 != 0 => {
                let mut content = Vec::new();
                entries.read_to_end(&mut content).unwrap();
                assert!(fs::read(&path).unwrap() == content, "content of {clean}");
                let mut found = xattrs(&path);
                if rootless {
                    found.remove(b"user.rootlesscontainers".as_slice());
                    found.retain(|name, _| name.starts_with(b"user."));
                }
                let mut expected = entry.xattrs();
                expected.retain(|name, _| !rootless || name.starts_with(b"user."));
                let expected: BTreeMap<_, _> = expected.into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
                assert_eq!(found, expected, "attributes of {clean}");
            }
            _ => {}
        }
    }
}

fn kind(meta: &Metadata) -> Kind {
    let of = meta.file_type();
    match () {
        () if of.is_dir() => Kind::Directory,
        () if of.is_symlink() => Kind::Symlink,
        () if of.is_fifo() => Kind::Fifo,
        () if of.is_char_device() => Kind::CharDevice,
        () if of.is_block_device() => Kind::BlockDevice,
        () => Kind::File,
    }
}

/// The layers of the fixture kitchen, each as it is.
fn kitchen() -> Vec<Vec<u8>> {
    let members = longshore_testkit::tar::read(&fs::read(longshore_testkit::fixture("kitchen.tar")).unwrap());
    let data = |name: &str| members.iter().find(|member| member.text() == name).unwrap().data.clone();
    let manifest: serde_json::Value = serde_json::from_slice(&data("manifest.json")).unwrap();
    manifest[0]["Layers"].as_array().unwrap().iter().map(|layer| data(layer.as_str().unwrap())).collect()
}

/// One of everything, for root.
fn everything() -> Tar {
    let time = |secs, nanos| Time { secs, nanos };
    let own = |path: &str, kind, mode| Header {
        path: path.into(),
        kind,
        mode,
        uid: 1234,
        gid: 567,
        mtime: time(1_700_000_000, 123_456_789),
        ..Header::default()
    };
    // Version 2, effective, CAP_NET_BIND_SERVICE permitted.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let records = vec![xattr("security.capability", &capability), xattr("user.empty", b""), xattr("user.note", b"kept\0")];
    Tar::default()
        .put(Header { mtime: time(-1, 500_000_000), ..own("./", Kind::Directory, 0o751) }, b"")
        .put(own("./closed/", Kind::Directory, 0o555), b"")
        .put(own("/closed/in", Kind::Directory, 0o000), b"")
        .put(Header { records: records.clone(), ..own("closed/in/file", Kind::File, 0o444) }, b"content")
        .put(own("closed/in/setuid", Kind::File, 0o6755), b"#!")
        .put(Header { mtime: time(-7, 1), ..own("old", Kind::File, 0o600) }, b"")
        .put(own("sticky", Kind::Directory, 0o3777), b"")
        .put(Header { link: b"/etc/passwd".to_vec(), mtime: time(-2, 250_000_000), ..own("symlink", Kind::Symlink, 0o777) }, b"")
        .put(Header { device: (1, 3), ..own("null", Kind::CharDevice, 0o666) }, b"")
        .put(Header { device: (7, 300), ..own("loop", Kind::BlockDevice, 0o660) }, b"")
        .put(own("fifo", Kind::Fifo, 0o622), b"")
        .put(Header { link: b"./closed/in/file".to_vec(), ..own("hard", Kind::HardLink, 0o644) }, b"")
        .put(Header { link: b"/symlink".to_vec(), ..own("hard-symlink", Kind::HardLink, 0o644) }, b"")
        .put(Header { path: b"n\xe4me\n\\".to_vec(), ..own("", Kind::File, 0o640) }, &[7; 300_000])
        .put(Header { path: [b"d/".repeat(200), b"deep".to_vec()].concat(), ..own("", Kind::File, 0o640) }, b"")
}

#[test]
fn root_unpacks_everything_as_it_is() {
    if !is_root() {
        return;
    }
    for opening in [Beneath::detect, |_: &OwnedFd| Beneath::Walk] {
        let place = Place::new();
        let tar = everything().bytes();
        let done = unpack_by(opening, tar.as_slice(), &place.to, &UnpackOptions::default(), &Cancel::default()).unwrap();
        assert!(done.left_out.is_empty(), "{:?}", done.left_out);
        assert_eq!((done.entries, done.bytes), (15, 300_009));
        agrees(&tar, &place.to, false);
        assert_eq!(mode(&place.path("d")), 0o755);
        assert_eq!(names(place.outer.path()), ["to"]);
    }
}

#[test]
fn root_unpacks_the_kitchen() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    for (at, layer) in kitchen().into_iter().enumerate() {
        let to = place.path(&at.to_string());
        fs::create_dir_all(&place.to).unwrap();
        let done = unpack(layer.as_slice(), &to, &UnpackOptions::default(), &Cancel::default());
        match done {
            Ok(done) => {
                assert!(done.left_out.is_empty(), "{:?}", done.left_out);
                agrees(&layer, &to, false);
            }
            // Layers above the first lie on others.
            Err(error) => assert!(at > 0 && error.to_string().contains("hard link"), "{error}"),
        }
    }
    assert!(place.path("0/etc/passwd").is_file());
}

#[test]
fn others_keep_what_they_may_and_record_the_rest() {
    let place = Place::new();
    let layer = kitchen().remove(0);
    as_nobody(|| {
        let options = UnpackOptions { rootless: true, ..UnpackOptions::default() };
        let done = place.with(&everything(), &options).unwrap();
        let count = |left: &Left| (left.count, left.examples.len());
        assert_eq!(count(&done.left_out.owners), (13, 10));
        assert_eq!(done.left_out.unrecorded.examples, ["symlink", "fifo"]);
        assert_eq!(done.left_out.devices.examples, ["null", "loop"]);
        assert_eq!(done.left_out.xattrs.examples, ["closed/in/file (security.capability)"]);
        assert_eq!((mode(&place.path("closed")), mode(&place.to)), (0o555, 0o751));
        assert_eq!(fs::metadata(place.path("null")).unwrap().len(), 0);
        assert_eq!(xattrs(&place.path("old"))[b"user.rootlesscontainers".as_slice()], b"\x08\xd2\x09\x10\xb7\x04");
        assert_eq!(xattrs(&place.path("closed"))[b"user.rootlesscontainers".as_slice()], b"\x08\xd2\x09\x10\xb7\x04");
        let to = place.outer.path().join("kitchen");
        unpack(layer.as_slice(), &to, &options, &Cancel::default()).unwrap();
        agrees(&layer, &to, true);
        // Over itself, with directories that give their owner no permission.
        place.with(&everything(), &UnpackOptions { force: true, ..options }).unwrap();
        assert_eq!((mode(&place.path("closed")), mode(&place.path("closed/in")), mode(&place.to)), (0o555, 0, 0o751));
        let plain = Tar::new(&["d/", "old=of root"]);
        place.with(&plain, &UnpackOptions { force: true, ..options }).unwrap();
        assert_eq!((mode(&place.to), mode(&place.path("closed"))), (0o751, 0o555));
        assert!(xattrs(&place.path("old")).is_empty() && xattrs(&place.path("d")).is_empty());
    });
    // Root that asks for no privileges gets the same.
    let to = place.outer.path().join("again");
    let done = unpack(everything().bytes().as_slice(), &to, &UnpackOptions { rootless: true, force: false }, &Cancel::default()).unwrap();
    assert_eq!((done.left_out.owners.count, done.left_out.devices.count), (13, 2));
    assert_eq!(fs::metadata(to.join("old")).unwrap().uid(), rustix::process::geteuid().as_raw());
    agrees(&everything().0, &to, true);
}

#[test]
fn others_are_told_what_they_may_not() {
    let own = |path: &str, kind, uid| Header { path: path.into(), kind, uid, gid: uid, ..Header::default() };
    as_nobody(|| {
        let (uid, place) = (rustix::process::geteuid().as_raw(), Place::new());
        let unpack = |tar: &Tar| {
            let error = place.with(tar, &UnpackOptions::default()).unwrap_err();
            assert!(error.hint_text().unwrap().contains("--rootless"), "{error}");
            assert!(names(place.outer.path()).is_empty());
            error.to_string().split_once("/to: ").unwrap().1.to_owned()
        };
        let mine: u64 = uid.into();
        assert_eq!(unpack(&Tar::default().put(own("file", Kind::File, 0), b"")), "entry `file`: its owner 0:0: Operation not permitted");
        assert_eq!(
            unpack(&Tar::default().put(own("folder", Kind::Directory, 0), b"")),
            "entry `folder`: its owner 0:0: Operation not permitted"
        );
        assert_eq!(
            unpack(&Tar::default().put(Header { device: (1, 3), ..own("null", Kind::CharDevice, mine) }, b"")),
            "entry `null`: making the device: Operation not permitted"
        );
        let capability = Header { records: vec![xattr("trusted.note", b"x")], ..own("file", Kind::File, mine) };
        assert!(unpack(&Tar::default().put(capability, b"")).contains("its extended attribute trusted.note: "));
        let closed =
            Tar::default().put(Header { mode: 0o500, ..own("d/", Kind::Directory, mine) }, b"").put(own("d/x", Kind::File, mine), b"");
        place.with(&closed, &UnpackOptions::default()).unwrap();
        assert_eq!(mode(&place.path("d")), 0o500);
    });
}

#[test]
fn names_and_links_that_mean_nothing_are_refused() {
    let place = Place::with_secret();
    let long = "n".repeat(256);
    let deep = "1234567/".repeat(513);
    let many = |parts: &[String]| parts.iter().map(String::as_str).collect::<Vec<_>>().join("");
    for (entries, message) in [
        (&["../x=1"][..], "entry `../x`: its name contains `..`, expected names below the root"),
        (&["a/../../x=1"], "entry `a/../../x`: its name contains `..`, expected names below the root"),
        (&["a/", "a/..->x"], "entry `a/..`: its name contains `..`, expected names below the root"),
        (&["./=1"], "entry `./`: it takes the place of the root, expected a directory"),
        (&["/->etc"], "entry `/`: it takes the place of the root, expected a directory"),
        (&["a=1", "b=>c"], "entry `b`: it is a hard link to `c`, which is not there"),
        (&["b=>d/c"], "entry `b`: it is a hard link to `d/c`, which is not there"),
        (&["b=>./b"], "entry `b`: it is a hard link to `b`, which is itself"),
        (&["a/", "b=>/a"], "entry `b`: it is a hard link to `a`, which is a directory"),
        (&["b=>/"], "entry `b`: it is a hard link to `.`, which is a directory"),
        (&["b=>../secret/file"], "entry `b`: the target of the hard link contains `..`, expected names below the root"),
        (&["a->../secret", "b=>a/file"], "entry `b`: it is a hard link to `a/file`, which is not there"),
        (&["a->../secret", "a/file=1"], "entry `a/file`: it lies below `a`, which is no directory"),
        (&["a->/", "a/file=1"], "entry `a/file`: it lies below `a`, which is no directory"),
        (&["a=1", "a/b/c=1"], "entry `a/b/c`: it lies below `a`, which is no directory"),
        (&["d/", "d->x"], "entry `d`: it takes the place of a directory that came earlier, expected each name once"),
        (&["d/x=1", "d=1"], "entry `d`: it takes the place of a directory that came earlier, expected each name once"),
        (&["a->"], "entry `a`: it is a symlink without a target"),
        (&[&many(&[long.clone(), "=1".into()])], "its name has a component of 256 bytes, expected at most 255"),
        (&[&many(&[deep.clone(), "x=1".into()])], "its name has 4105 bytes, expected at most 4096"),
    ] {
        let found = place.refuses(&Tar::new(entries));
        assert!(found.ends_with(message), "{found}, expected {message}");
    }
    let id = Header { path: b"x".to_vec(), uid: u32::MAX.into(), ..Header::default() };
    if is_root() {
        assert!(place.refuses(&Tar::default().put(id, b"")).contains("its owner is 4294967295:0, expected numbers below 4294967295"));
    }
    place.secret_is_untouched();
}

#[test]
fn names_that_just_fit_are_there() {
    let place = Place::new();
    let name = "n".repeat(255);
    let deep = format!("{}{}", "1234567/".repeat(511), "12345678");
    assert_eq!(deep.len(), 4096);
    place.unpack(&Tar::new(&[&format!("{name}=1"), &format!("{deep}=2")])).unwrap();
    assert_eq!(fs::read(place.path(&name)).unwrap(), b"1");
    // Removing it is a test of its own: no path leads there.
    place.force(&Tar::new(&["1234567=now a file"])).unwrap();
    assert_eq!(names(&place.to), ["1234567", &name]);
}

#[test]
fn the_last_of_one_name_counts() {
    let place = Place::new();
    place.unpack(&Tar::new(&["a=1", "b=>a", "a=2", "c->a", "c=3", "d=4", "d/", "d/x=5", "d/"])).unwrap();
    let read = |path: &str| fs::read_to_string(place.path(path)).unwrap();
    assert_eq!([read("a"), read("b"), read("c"), read("d/x")], ["2", "1", "3", "5"]);
}

#[test]
fn what_is_unknown_is_left_out() {
    let place = Place::new();
    let unknown = Header { path: b"volume".to_vec(), kind: Kind::Other(b'V'), ..Header::default() };
    let done = place.unpack(&Tar::new(&["a=1"]).put(unknown, b"payload").entry("b=2")).unwrap();
    assert_eq!((done.entries, done.left_out.unknown.examples), (2, vec!["volume".to_owned()]));
    assert_eq!(names(&place.to), ["a", "b"]);
}

#[test]
fn holes_stay_holes() {
    let place = Place::new();
    let records = [("size", "1073741824"), ("map", "1048576,3,1073741820,4")];
    let records = records.map(|(key, value)| (format!("GNU.sparse.{key}").into_bytes(), value.as_bytes().to_vec()));
    let header = Header { path: b"holes".to_vec(), records: records.to_vec(), ..Header::default() };
    let done = place.unpack(&Tar::default().put(header, b"abcdefg")).unwrap();
    let meta = fs::metadata(place.path("holes")).unwrap();
    assert_eq!((meta.len(), done.bytes), (1 << 30, 7));
    assert!(meta.blocks() < 1000, "{} blocks", meta.blocks());
    let mut read = [0; 5];
    let file = File::open(place.path("holes")).unwrap();
    file.read_exact_at(&mut read, 1_048_575).unwrap();
    assert_eq!(&read, b"\0abc\0");
    file.read_exact_at(&mut read, (1 << 30) - 5).unwrap();
    assert_eq!(&read, b"\0defg");
}

#[test]
fn default_access_lists_do_not_act_on_what_is_unpacked() {
    // Version 2; the owner all, the group none, others none.
    let entry = |tag: u16, permissions: u16| [tag.to_le_bytes(), permissions.to_le_bytes(), [0xff; 2], [0xff; 2]].concat();
    let acl = [2_u32.to_le_bytes().to_vec(), entry(1, 7), entry(4, 0), entry(0x20, 0)].concat();
    let header = |path: &[u8], kind| Header { path: path.to_vec(), kind, mode: 0o755, ..Header::default() };
    let tar = Tar::default()
        .put(Header { records: vec![xattr("system.posix_acl_default", &acl)], ..header(b"d/", Kind::Directory) }, b"")
        .put(header(b"d/below/", Kind::Directory), b"");
    let place = Place::new();
    let done = place.unpack(&tar).unwrap();
    if done.left_out.xattrs.count == 0 {
        assert_eq!(xattrs(&place.path("d"))[b"system.posix_acl_default".as_slice()], acl);
        assert!(xattrs(&place.path("d/below")).is_empty());
    }
    assert_eq!(mode(&place.path("d/below")), 0o755);
}

#[test]
fn directories_that_are_there_are_refused_or_kept() {
    let place = Place::new();
    let tar = Tar::new(&["a=1"]);
    fs::create_dir(&place.to).unwrap();
    fs::set_permissions(&place.to, Permissions::from_mode(0o750)).unwrap();
    place.unpack(&tar).unwrap();
    assert_eq!((names(&place.to), mode(&place.to)), (vec!["a".to_owned()], 0o750));
    let error = place.unpack(&tar).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    assert!(error.to_string().ends_with("/to: the directory is not empty") && error.hint_text().is_some());
    fs::write(place.path("other"), "").unwrap();
    place.force(&tar).unwrap();
    assert_eq!(names(&place.to), ["a", "other"]);
    let file = place.outer.path().join("file");
    fs::write(&file, "").unwrap();
    let error = unpack(tar.bytes().as_slice(), &file, &UnpackOptions { force: true, rootless: true }, &Cancel::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    let link = place.outer.path().join("link");
    symlink("empty", &link).unwrap();
    assert_eq!(unpack(tar.bytes().as_slice(), &link, &UnpackOptions::default(), &Cancel::default()).unwrap_err().kind(), ErrorKind::Exists);
    fs::create_dir(place.outer.path().join("empty")).unwrap();
    unpack(tar.bytes().as_slice(), &link, &UnpackOptions { rootless: true, ..UnpackOptions::default() }, &Cancel::default()).unwrap();
    assert_eq!(names(&place.outer.path().join("empty")), ["a"]);
    assert_eq!(names(place.outer.path()), ["empty", "file", "link", "to"]);
}

#[test]
fn force_replaces_what_is_in_the_way_and_follows_nothing() {
    for opening in [Beneath::detect, |_: &OwnedFd| Beneath::Walk] {
        let place = Place::with_secret();
        fs::create_dir_all(place.path("deep").join("x/".repeat(1200))).unwrap();
        fs::write(place.path("deep/x/x/file"), "").unwrap();
        fs::create_dir(place.path("kept")).unwrap();
        fs::write(place.path("kept/old"), "").unwrap();
        for link in ["folder", "file", "parent", "deep/x/link"] {
            symlink(place.secret(), place.path(link)).unwrap();
        }
        fs::hard_link(place.path("kept/old"), place.outer.path().join("other name")).unwrap();
        let tar = Tar::new(&["deep=file now", "folder/", "folder/file=1", "file=2", "parent/file=3", "kept/", "kept/old=new"]);
        let options = UnpackOptions { rootless: !is_root(), force: true };
        unpack_by(opening, tar.bytes().as_slice(), &place.to, &options, &Cancel::default()).unwrap();
        agrees(&tar.bytes(), &place.to, true);
        place.secret_is_untouched();
        assert_eq!(fs::read(place.outer.path().join("other name")).unwrap(), b"");
        let linked = Tar::new(&["folder->../secret", "copy=>folder/file"]);
        assert!(place.force(&linked).is_err());
        place.secret_is_untouched();
    }
}

/// Gives the first part of a tar, does something, and gives the rest.
struct Interrupted<'a, F: FnMut()> {
    parts: Vec<&'a [u8]>,
    between: F,
}

impl<F: FnMut()> Read for Interrupted<'_, F> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.parts.first().is_some_and(|part| part.is_empty()) {
            self.parts.remove(0);
            if !self.parts.is_empty() {
                (self.between)();
            }
        }
        match self.parts.first_mut() {
            Some(part) => part.read(out),
            None => Ok(0),
        }
    }
}

/// Unpacks `first`, lets another process do something in the directory being filled, unpacks `second`.
fn meanwhile(place: &Place, opening: fn(&OwnedFd) -> Beneath, first: &Tar, second: &Tar, act: impl Fn(&Path)) -> Result<Unpacked> {
    let second = second.bytes();
    let outer = place.outer.path();
    let between = || {
        let filling =
            names(outer).into_iter().find(|name| name.starts_with(".longshore-")).map_or(place.to.clone(), |name| outer.join(name));
        act(&filling);
    };
    // The end of the first part is noticed when the second is asked for.
    let tar = Interrupted { parts: vec![&first.0, &second], between };
    let options = UnpackOptions { rootless: !is_root(), ..UnpackOptions::default() };
    unpack_by(opening, tar, &place.to, &options, &Cancel::default())
}

#[test]
fn other_processes_cannot_lead_outside() {
    for opening in [Beneath::detect, |_: &OwnedFd| Beneath::Walk] {
        let swap = |place: &Place, root: &Path, name: &str| {
            fs::rename(root.join(name), root.join("moved")).unwrap();
            symlink(place.secret(), root.join(name)).unwrap();
        };
        // The directory of the last entry is open, and stays the one that it was.
        for (first, second) in [
            (&["a/", "a/one=1", "b/", "b/one=1"][..], &["a/two=2"][..]),
            (&["a/", "a/b/", "a/b/one=1", "c=1"], &["a/b/two=2"]),
            (&["a/", "a/one=1"], &["a/b/", "a/b/c/d=1"]),
            (&["a/", "a/file=1", "b/", "b/one=1"], &["link=>a/file"]),
            (&["a/", "b=1"], &["c=1"]),
        ] {
            let place = Place::with_secret();
            let error = meanwhile(&place, opening, &Tar::new(first), &Tar::new(second), |root| swap(&place, root, "a")).unwrap_err();
            assert!(error.to_string().contains("was moved away or replaced meanwhile"), "{error}");
            place.secret_is_untouched();
            assert_eq!(names(place.outer.path()), ["secret"], "{error}");
        }
        let place = Place::with_secret();
        let plant = |root: &Path| {
            symlink(place.secret(), root.join("a")).unwrap();
            symlink(place.secret().join("file"), root.join("b")).unwrap();
        };
        meanwhile(&place, opening, &Tar::new(&["x=1"]), &Tar::new(&["a/", "a/file=1", "b=2"]), plant).unwrap();
        place.secret_is_untouched();
        assert_eq!(fs::read(place.path("b")).unwrap(), b"2");
        // What takes the final name meanwhile stays.
        let place = Place::new();
        let take = |_: &Path| fs::create_dir(&place.to).unwrap();
        assert!(meanwhile(&place, opening, &Tar::new(&["x/"]), &Tar::new(&["x/y=1"]), take).is_err());
        assert!(names(&place.to).is_empty());
        assert_eq!(names(place.outer.path()), ["to"]);
    }
}

#[test]
fn failures_leave_what_was_there() {
    let tar = everything().bytes();
    let cut = Tar(tar[..tar.len() - 3000].to_vec());
    let place = Place::new();
    as_nobody(|| {
        let options = UnpackOptions { rootless: true, ..UnpackOptions::default() };
        let fails = |options: &UnpackOptions| {
            let error = unpack(cut.0.as_slice(), &place.to, options, &Cancel::default()).unwrap_err();
            assert!(error.to_string().contains("archive ends"), "{error}");
        };
        fails(&options);
        assert!(names(place.outer.path()).is_empty());
        fs::create_dir(&place.to).unwrap();
        fails(&options);
        assert!(names(&place.to).is_empty());
        assert_eq!(names(place.outer.path()), ["to"]);
        // In place, nothing half stays, and directories have the permissions that they had.
        fs::create_dir(place.path("closed")).unwrap();
        fs::set_permissions(place.path("closed"), Permissions::from_mode(0o500)).unwrap();
        let half = Tar::new(&["closed/new=1"]).put(Header { path: b"file".to_vec(), ..Header::default() }, &[1; 5000]);
        let half = &half.0[..half.0.len() - 2000];
        let error = unpack(half, &place.to, &UnpackOptions { force: true, ..options }, &Cancel::default()).unwrap_err();
        assert!(error.to_string().ends_with("entry `file`: archive ends 1880 bytes before the end of its data"), "{error}");
        assert_eq!((names(&place.to), mode(&place.path("closed"))), (vec!["closed".to_owned()], 0o500));
        assert_eq!(names(&place.path("closed")), ["new"]);
    });
}

#[test]
fn asked_to_stop_it_stops() {
    let place = Place::new();
    let cancel = Cancel::default();
    let second = Tar::new(&["b=2"]).bytes();
    let first = Tar::new(&["a=1"]);
    let tar = Interrupted { parts: vec![&first.0, &second], between: || cancel.cancel() };
    let error = unpack(tar, &place.to, &UnpackOptions { rootless: true, ..UnpackOptions::default() }, &cancel).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(names(place.outer.path()).is_empty());
}

#[test]
fn what_cannot_be_exchanged_is_filled_where_it_is() {
    // The folder that it is in does not let the caller make another.
    let place = Place::new();
    as_nobody(|| {
        fs::create_dir(&place.to).unwrap();
        fs::set_permissions(&place.to, Permissions::from_mode(0o705)).unwrap();
    });
    fs::set_permissions(place.outer.path(), Permissions::from_mode(0o555)).unwrap();
    as_nobody(|| {
        let options = UnpackOptions { rootless: true, ..UnpackOptions::default() };
        let before = fs::metadata(&place.to).unwrap().ino();
        assert!(place.with(&Tar::new(&["./", "a/", "a/b=1", "a/c=>d"]), &options).is_err());
        assert!(names(&place.to).is_empty() && mode(&place.to) == 0o705);
        place.with(&Tar::new(&["a/", "a/b=1"]), &options).unwrap();
        assert_eq!((names(&place.to), fs::metadata(&place.to).unwrap().ino()), (vec!["a".to_owned()], before));
    });
    fs::set_permissions(place.outer.path(), Permissions::from_mode(0o755)).unwrap();
}

//! What an entry says of a file besides its content: owner, mode, times, extended attributes.
//!
//! Everything is done to an open file or a pinned one, so that it happens to what was made, whatever has its name by then. The order matters:
//! a change of owner clears setuid bits and capabilities, and a mode without permission to write keeps attributes from being set.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Gid, Mode, RawMode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{LeftOut, ROOTLESS_HINT};
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::tar::{Entry, Kind, RootPath, Time, escape_bytes};

/// Holds the owner that a file has within its image, where it cannot have it here: rootlesscontainers' `message Resource { uint32 uid = 1;
/// uint32 gid = 2; }`. A file without it is root's.
const OWNER: &[u8] = b"user.rootlesscontainers";

/// Attributes that say something of the machine, not of the file, as in umoci.
const OF_MACHINE: [&[u8]; 2] = [b"security.selinux", b"system.nfs4_acl"];

/// Would act on whatever is made in a directory, so that it comes last.
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// A file that attributes are given to.
#[derive(Debug, Clone, Copy)]
pub(super) enum On<'a> {
    Directory(BorrowedFd<'a>),
    File(BorrowedFd<'a>),
    /// What cannot be opened without an effect, or at all.
    #[cfg(target_os = "linux")]
    Pinned(BorrowedFd<'a>, FileType),
    /// The same on systems that cannot pin: by its name in a directory, never followed.
    #[cfg(not(target_os = "linux"))]
    Named(BorrowedFd<'a>, &'a [u8], FileType),
}

impl On<'_> {
    fn kind(&self) -> FileType {
        match self {
            Self::Directory(_) => FileType::Directory,
            Self::File(_) => FileType::RegularFile,
            #[cfg(target_os = "linux")]
            Self::Pinned(_, kind) => *kind,
            #[cfg(not(target_os = "linux"))]
            Self::Named(_, _, kind) => *kind,
        }
    }

    fn chown(&self, uid: Uid, gid: Gid) -> Result<(), Errno> {
        match self {
            Self::Directory(fd) | Self::File(fd) => rustix::fs::fchown(fd, Some(uid), Some(gid)),
            #[cfg(target_os = "linux")]
            Self::Pinned(fd, _) => rustix::fs::chownat(fd, c"", Some(uid), Some(gid), rustix::fs::AtFlags::EMPTY_PATH),
            #[cfg(not(target_os = "linux"))]
            Self::Named(at, name, _) => rustix::fs::chownat(at, *name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    pub(super) fn chmod(&self, mode: Mode) -> Result<(), Errno> {
        match self {
            Self::Directory(fd) | Self::File(fd) => rustix::fs::fchmod(fd, mode),
            #[cfg(target_os = "linux")]
            Self::Pinned(fd, _) => rustix::fs::chmod(through(fd), mode),
            #[cfg(not(target_os = "linux"))]
            Self::Named(at, name, _) => rustix::fs::chmodat(at, *name, mode, rustix::fs::AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn set_time(&self, time: Time) -> Result<(), Errno> {
        let time = Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        match self {
            Self::Directory(fd) | Self::File(fd) => rustix::fs::futimens(fd, &times),
            #[cfg(target_os = "linux")]
            Self::Pinned(fd, _) => rustix::fs::utimensat(rustix::fs::CWD, through(fd), &times, rustix::fs::AtFlags::empty()),
            #[cfg(not(target_os = "linux"))]
            Self::Named(at, name, _) => rustix::fs::utimensat(at, *name, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Directory(fd) | Self::File(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            #[cfg(target_os = "linux")]
            Self::Pinned(fd, _) => rustix::fs::setxattr(through(fd), name, value, XattrFlags::empty()),
            #[cfg(not(target_os = "linux"))]
            Self::Named(..) => Err(Errno::OPNOTSUPP),
        }
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Directory(fd) | Self::File(fd) => rustix::fs::fremovexattr(fd, name),
            _ => Err(Errno::OPNOTSUPP),
        }
    }
}

/// A name that leads to exactly what was pinned, also where that is a symlink: calls that take no pinned file take it.
#[cfg(target_os = "linux")]
fn through(fd: &BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Something that has a name in a directory, looked at without opening it or following it.
pub(super) struct Pinned<'a> {
    #[cfg(target_os = "linux")]
    fd: OwnedFd,
    #[cfg(target_os = "linux")]
    at: std::marker::PhantomData<&'a OwnedFd>,
    #[cfg(not(target_os = "linux"))]
    at: (&'a OwnedFd, &'a [u8]),
    meta: Stat,
}

impl<'a> Pinned<'a> {
    #[cfg(target_os = "linux")]
    pub(super) fn open(at: &'a OwnedFd, name: &'a [u8]) -> Result<Self, Errno> {
        use rustix::fs::OFlags;
        let fd = rustix::fs::openat(at, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let meta = rustix::fs::fstat(&fd)?;
        Ok(Self { fd, at: std::marker::PhantomData, meta })
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn open(at: &'a OwnedFd, name: &'a [u8]) -> Result<Self, Errno> {
        let meta = rustix::fs::statat(at, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Self { at: (at, name), meta })
    }

    pub(super) fn on(&self) -> On<'_> {
        #[cfg(target_os = "linux")]
        return On::Pinned(self.fd.as_fd(), self.kind());
        #[cfg(not(target_os = "linux"))]
        return On::Named(self.at.0.as_fd(), self.at.1, self.kind());
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.meta.st_mode)
    }

    pub(super) fn mode(&self) -> Mode {
        Mode::from_raw_mode(self.meta.st_mode)
    }

    pub(super) fn is_own(&self) -> bool {
        self.meta.st_uid == rustix::process::geteuid().as_raw()
    }
}

/// Pins what was just made, and refuses what somebody has put in its place.
pub(super) fn pin<'a>(at: &'a OwnedFd, name: &'a [u8], kind: Kind) -> Result<Pinned<'a>> {
    let pinned = Pinned::open(at, name).map_err(|error| Error::io(error.into()))?;
    if pinned.kind() != file_type(kind) || pinned.meta.st_nlink != 1 {
        return Err(Error::new(ErrorKind::Io, "somebody else has put something in its place"));
    }
    Ok(pinned)
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Symlink => FileType::Symlink,
        Kind::CharDevice => FileType::CharacterDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::Directory => FileType::Directory,
        Kind::Fifo => FileType::Fifo,
        Kind::File | Kind::HardLink | Kind::Other(_) => FileType::RegularFile,
    }
}

/// Makes a device or fifo.
#[cfg(target_os = "linux")]
pub(super) fn make_special(at: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), Errno> {
    let number = |number: u64| u32::try_from(number).map_err(|_| Errno::INVAL);
    let device = match entry.kind {
        Kind::Fifo => 0,
        _ => rustix::fs::makedev(number(entry.device.0)?, number(entry.device.1)?),
    };
    rustix::fs::mknodat(at, name, file_type(entry.kind), Mode::RUSR | Mode::WUSR, device)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn make_special(_: &OwnedFd, _: &[u8], _: &Entry) -> Result<(), Errno> {
    Err(Errno::OPNOTSUPP)
}

/// What a directory gets once it is filled.
#[derive(Debug)]
pub(super) struct Late {
    owner: Option<(Uid, Gid)>,
    mode: Mode,
    time: Time,
    default_acl: Option<Box<[u8]>>,
}

impl Late {
    /// Bytes that it holds besides itself.
    pub(super) fn size(&self) -> usize {
        self.default_acl.as_ref().map_or(0, |acl| acl.len())
    }

    pub(super) fn apply(&self, fd: &OwnedFd) -> Result<()> {
        let on = On::Directory(fd.as_fd());
        if let Some((uid, gid)) = self.owner {
            chown(&on, uid, gid)?;
        }
        let done = self.default_acl.as_ref().map_or(Ok(()), |acl| on.set_xattr(DEFAULT_ACL, acl));
        done.and_then(|()| on.chmod(self.mode)).and_then(|()| on.set_time(self.time)).map_err(|error| Error::io(error.into()))
    }
}

/// Gives files the attributes of their entries, and knows which could not be given.
pub(super) struct Restore {
    pub(super) rootless: bool,
    is_root: bool,
    /// Whether the default access control list of the directory seen last could be set.
    takes_acls: bool,
    pub(super) left_out: LeftOut,
}

impl Restore {
    pub(super) fn new(rootless: bool) -> Self {
        Self { rootless, is_root: rustix::process::geteuid().is_root(), takes_acls: false, left_out: LeftOut::default() }
    }

    /// Gives all attributes to what is no directory.
    pub(super) fn all(&mut self, on: &On<'_>, entry: &Entry, path: &RootPath) -> Result<()> {
        self.owner(on, entry, path, true)?;
        self.xattrs(on, entry, path)?;
        if entry.kind != Kind::Symlink {
            on.chmod(mode(entry)).map_err(|error| Error::io(error.into())).context(|| "its mode")?;
        }
        on.set_time(entry.mtime).map_err(|error| Error::io(error.into())).context(|| "its time")
    }

    /// Whether a directory has attributes that [`Restore::early`] gives.
    pub(super) fn is_early(&self, entry: &Entry, is_new: bool) -> bool {
        let owner = if self.rootless { !is_new || !is_of_root(entry) } else { !self.is_root };
        owner || !entry.xattrs().is_empty()
    }

    /// Gives a directory what does not keep the caller from filling it.
    pub(super) fn early(&mut self, on: &On<'_>, entry: &Entry, path: &RootPath, is_new: bool) -> Result<()> {
        // Root may give a directory away at the end. Others learn now that they may not.
        if self.rootless || !self.is_root {
            self.owner(on, entry, path, is_new)?;
        }
        self.xattrs(on, entry, path)
    }

    /// What a directory gets in the end.
    pub(super) fn late(&self, entry: &Entry) -> Result<Late> {
        let owner = if self.rootless || !self.is_root { None } else { Some(owner(entry)?) };
        let default_acl = entry.xattrs().get(DEFAULT_ACL).filter(|_| self.takes_acls).map(|acl| (*acl).into());
        Ok(Late { owner, mode: mode(entry), time: entry.mtime, default_acl })
    }

    fn owner(&mut self, on: &On<'_>, entry: &Entry, path: &RootPath, is_new: bool) -> Result<()> {
        if !self.rootless {
            let (uid, gid) = owner(entry)?;
            return chown(on, uid, gid);
        }
        if is_of_root(entry) {
            if !is_new {
                // Perhaps there is none. One of an earlier time would be wrong.
                let _ = on.remove_xattr(OWNER);
            }
            return Ok(());
        }
        self.left_out.owners.add(|| path.to_string());
        if on.set_xattr(OWNER, &resource(entry)).is_err() {
            self.left_out.unrecorded.add(|| path.to_string());
        }
        Ok(())
    }

    fn xattrs(&mut self, on: &On<'_>, entry: &Entry, path: &RootPath) -> Result<()> {
        for (name, value) in entry.xattrs() {
            if self.rootless && name == OWNER {
                continue;
            }
            let is_late = name == DEFAULT_ACL && on.kind() == FileType::Directory;
            let done = if OF_MACHINE.contains(&name) { Err(Errno::OPNOTSUPP) } else { on.set_xattr(name, value) };
            self.takes_acls = if is_late { done.is_ok() } else { self.takes_acls };
            match done {
                // It could be set, and so it can at the end.
                Ok(()) if is_late => on.remove_xattr(name).map_err(|error| Error::io(error.into()))?,
                Ok(()) => {}
                Err(error) if self.may_lack(on, name, error) => {
                    self.left_out.xattrs.add(|| format!("{path} ({})", escape_bytes(name)));
                }
                Err(error) => {
                    let framed = Error::io(error.into()).frame(format_args!("its extended attribute {}", escape_bytes(name)));
                    return Err(if is_refusal(error) { framed.hint(ROOTLESS_HINT) } else { framed });
                }
            }
        }
        Ok(())
    }

    /// Whether an attribute that cannot be set is left out: where there are none, for anybody, and where less is asked for.
    fn may_lack(&self, on: &On<'_>, name: &[u8], error: Errno) -> bool {
        let takes_user = matches!(on.kind(), FileType::RegularFile | FileType::Directory);
        match error {
            Errno::OPNOTSUPP | Errno::NOSYS => true,
            Errno::PERM if name.starts_with(b"user.") && !takes_user => true,
            error => self.rootless && is_refusal(error),
        }
    }
}

/// Whether the system understands and will not.
fn is_refusal(error: Errno) -> bool {
    matches!(error, Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::TOOBIG | Errno::RANGE | Errno::NOSPC)
}

fn is_of_root(entry: &Entry) -> bool {
    (entry.uid, entry.gid) == (0, 0)
}

fn owner(entry: &Entry) -> Result<(Uid, Gid)> {
    // The largest number means "leave it as it is".
    let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    let (uid, gid) = id(entry.uid)
        .zip(id(entry.gid))
        .ok_or_else(|| Error::invalid(format_args!("its owner is {}:{}, expected numbers below {}", entry.uid, entry.gid, u32::MAX)))?;
    Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
}

fn chown(on: &On<'_>, uid: Uid, gid: Gid) -> Result<()> {
    on.chown(uid, gid).map_err(|error| {
        let framed = Error::io(error.into()).frame(format_args!("its owner {}:{}", uid.as_raw(), gid.as_raw()));
        if is_refusal(error) { framed.hint(ROOTLESS_HINT) } else { framed }
    })
}

/// Permissions, setuid, setgid and sticky bit. Docker before 25 wrote bits of the type above them.
fn mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode((entry.mode & 0o7777) as RawMode)
}

/// Writes rootlesscontainers' message; zeros are left out, as protobuf 3 does.
fn resource(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, mut id) in [(0x08, entry.uid), (0x10, entry.gid)] {
        if id == 0 {
            continue;
        }
        out.push(key);
        while id >= 0x80 {
            out.push(id.to_le_bytes()[0] | 0x80);
            id >>= 7;
        }
        out.push(id.to_le_bytes()[0]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_written_as_protobuf() {
        let entry = |uid, gid| {
            let header = crate::tar::Header { path: b"x".to_vec(), uid, gid, ..Default::default() };
            let blocks = header.to_blocks().unwrap();
            crate::tar::Entries::new(blocks.as_slice(), Default::default()).next_entry().unwrap().unwrap()
        };
        for (uid, gid, bytes) in [
            (0, 0, &b""[..]),
            (1, 127, &[0x08, 1, 0x10, 127]),
            (0, 1000, &[0x10, 0xe8, 0x07]),
            (128, 0, &[0x08, 0x80, 0x01]),
            (u64::from(u32::MAX), 0, &[0x08, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            assert_eq!(resource(&entry(uid, gid)), bytes, "{uid}:{gid}");
        }
        assert!(owner(&entry(u64::from(u32::MAX), 0)).is_err());
    }
}

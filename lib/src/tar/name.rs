//! Clean names: the only form in which a name from an archive may be compared with others or lead into a file system.

use std::fmt;

/// A clean path of bytes below some root: relative, components separated by single slashes, none of them empty, `.` or `..`, no NUL.
///
/// The root itself is the empty path, see [`RootPath::root`]. It orders and compares by bytes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootPath(Vec<u8>);

/// Why a name cannot be a [`RootPath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It begins with `/`.
    #[error("is absolute, expected a relative one")]
    Absolute,
    /// It has no bytes.
    #[error("is empty")]
    Empty,
    /// It contains a NUL byte.
    #[error("contains a NUL byte")]
    Nul,
    /// One of its components is `..`.
    #[error("contains `..`, expected names below the root")]
    ParentDir,
}

impl RootPath {
    /// Gives the root itself: what `.`, `./` and in layers `/` mean.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Parses the name of an archive's member: drops `./` in front, `/` at the end, and `//` and `/./` within. `.` is the root.
    ///
    /// # Errors
    /// An empty or absolute name, `..` anywhere, NUL.
    pub fn parse_member(name: &[u8]) -> Result<Self, NameError> {
        if name.starts_with(b"/") { Err(NameError::Absolute) } else { Self::parse_layer(name) }
    }

    /// Parses the name of a layer's entry or the target of its hard link: like [`parse_member`](Self::parse_member), and drops slashes in
    /// front, since every engine reads names of a layer from its root.
    ///
    /// # Errors
    /// An empty name, `..` anywhere, NUL.
    pub fn parse_layer(name: &[u8]) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.contains(&0) {
            return Err(NameError::Nul);
        }
        let mut clean = Vec::with_capacity(name.len());
        for component in name.split(|&b| b == b'/').filter(|c| !matches!(*c, b"" | b".")) {
            if component == b".." {
                return Err(NameError::ParentDir);
            }
            if !clean.is_empty() {
                clean.push(b'/');
            }
            clean.extend_from_slice(component);
        }
        Ok(Self(clean))
    }

    /// Gives the bytes: no slash at either end; empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Says whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives the components from the root down; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|c| !c.is_empty())
    }

    /// Gives the last component; none for the root.
    pub fn file_name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// Gives the path without its last component; none for the root.
    pub fn parent(&self) -> Option<Self> {
        let name = self.file_name()?;
        Some(Self(self.0[..(self.0.len() - name.len()).saturating_sub(1)].to_vec()))
    }

    /// Gives the paths above this one as bytes, from the first component down; neither the root nor the path itself.
    pub fn ancestors(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &self.0[..at])
    }

    /// Says whether this path is `other` or lies below it.
    pub fn starts_with(&self, other: &Self) -> bool {
        other.is_root() || self.0.strip_prefix(other.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

impl fmt::Display for RootPath {
    /// Writes the path escaped, the root as `.`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&if self.is_root() { ".".to_owned() } else { escape_bytes(&self.0) })
    }
}

impl fmt::Debug for RootPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

/// Makes bytes fit for a message of one line: printing UTF-8 stays as it is, newline, return and tab become `\n`, `\r` and `\t`, and every
/// byte of anything else becomes `\xNN`. Characters that print nothing or turn the direction of text count as not printing.
pub fn escape_bytes(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(bytes.len());
    let hex = |out: &mut String, bytes: &[u8]| bytes.iter().for_each(|byte| write!(out, "\\x{byte:02x}").expect("a String takes all"));
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if is_printing(c) => out.push(c),
                c => hex(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        hex(&mut out, chunk.invalid());
    }
    out
}

fn is_printing(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Parses `data` as a name in every way and asserts what a clean name promises. For fuzzing; it must not panic, whatever `data` is.
pub fn fuzz_name(data: &[u8]) {
    let text = escape_bytes(data);
    assert!(text.chars().all(is_printing));
    let Ok(path) = RootPath::parse_layer(data) else { return };
    assert!(path.components().all(|c| !c.is_empty() && c != b"." && c != b".." && !c.contains(&0) && !c.contains(&b'/')));
    assert_eq!(path.components().collect::<Vec<_>>().join(&b'/'), path.as_bytes());
    assert_eq!(path.is_root(), path.parent().is_none());
    assert!(path.parent().is_none_or(|parent| path.starts_with(&parent) && !parent.starts_with(&path)));
    assert_eq!(path.ancestors().count(), path.components().count().saturating_sub(1));
    if !path.is_root() {
        assert_eq!(RootPath::parse_member(path.as_bytes()).as_ref(), Ok(&path));
    }
    assert_eq!(RootPath::parse_member(data).is_ok(), data[0] != b'/');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cleans_names() {
        use NameError::{Absolute, Empty, Nul, ParentDir};
        type Clean = Result<&'static str, NameError>;
        let table: &[(&str, Clean, Clean)] = &[
            ("a", Ok("a"), Ok("a")),
            ("a/b/", Ok("a/b"), Ok("a/b")),
            ("./a", Ok("a"), Ok("a")),
            ("././/a//./b/.", Ok("a/b"), Ok("a/b")),
            (".", Ok(""), Ok("")),
            ("./", Ok(""), Ok("")),
            ("...", Ok("..."), Ok("...")),
            ("a/..b/c..", Ok("a/..b/c.."), Ok("a/..b/c..")),
            ("/", Err(Absolute), Ok("")),
            ("/etc", Err(Absolute), Ok("etc")),
            ("//etc", Err(Absolute), Ok("etc")),
            ("", Err(Empty), Err(Empty)),
            ("..", Err(ParentDir), Err(ParentDir)),
            ("a/../b", Err(ParentDir), Err(ParentDir)),
            ("a/..", Err(ParentDir), Err(ParentDir)),
            ("/../a", Err(Absolute), Err(ParentDir)),
            ("a\0b", Err(Nul), Err(Nul)),
        ];
        for (name, member, layer) in table {
            let path = |clean: &&str| RootPath(clean.as_bytes().to_vec());
            assert_eq!(RootPath::parse_member(name.as_bytes()), member.as_ref().map(path).map_err(|e| *e), "{name}");
            assert_eq!(RootPath::parse_layer(name.as_bytes()), layer.as_ref().map(path).map_err(|e| *e), "{name}");
        }
    }

    #[test]
    fn walks_up() {
        let path = RootPath::parse_member(b"a/b/c").unwrap();
        assert_eq!(path.ancestors().collect::<Vec<_>>(), [&b"a"[..], b"a/b"]);
        assert_eq!(path.parent().unwrap().as_bytes(), b"a/b");
        assert_eq!(RootPath::parse_member(b"a").unwrap().parent(), Some(RootPath::root()));
        assert!(path.starts_with(&RootPath::parse_member(b"a/b").unwrap()));
        assert!(!path.starts_with(&RootPath::parse_member(b"a/b/c/d").unwrap()) && path.starts_with(&RootPath::root()));
        assert!(!RootPath::parse_member(b"ab").unwrap().starts_with(&RootPath::parse_member(b"a").unwrap()));
        assert_eq!((RootPath::root().to_string(), path.to_string()), (".".to_owned(), "a/b/c".to_owned()));
    }

    #[test]
    fn escapes_what_does_not_print() {
        for (bytes, expected) in [
            (&b"plain 'quote\" \\"[..], "plain 'quote\" \\"),
            ("näme-✓ e\u{301}".as_bytes(), "näme-✓ e\u{301}"),
            (b"new\nline\t\r", r"new\nline\t\r"),
            (b"\x1b[31m\x7f\0", r"\x1b[31m\x7f\x00"),
            (b"\xff\xc3(", r"\xff\xc3("),
            ("a\u{202e}b".as_bytes(), r"a\xe2\x80\xaeb"),
        ] {
            assert_eq!(escape_bytes(bytes), expected);
        }
    }

    proptest! {
        #[test]
        fn keeps_its_promises(name in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), Just(b'a'), any::<u8>()], 0..40)) {
            fuzz_name(&name);
        }
    }
}

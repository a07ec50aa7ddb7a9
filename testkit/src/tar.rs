//! A tar reader and writer for tests: ustar, GNU long names and numbers, PAX records, and nothing clever.
//!
//! The writer writes what it is told, valid or not: names of any bytes, kinds of any letter, sizes that lie.

use std::collections::BTreeMap;

/// What a header says of a file beside its name, kind and content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// The permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u64,
    /// The group.
    pub gid: u64,
    /// Seconds since 1970 and nanoseconds: half a second before 1970 is `(-1, 500_000_000)`.
    pub mtime: (i64, u32),
    /// Extended attributes by name, without `SCHILY.xattr.`.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// PAX records that the reader gives no meaning to.
    pub records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Default for Attributes {
    fn default() -> Self {
        Self { mode: 0o644, uid: 0, gid: 0, mtime: (0, 0), xattrs: BTreeMap::new(), records: BTreeMap::new() }
    }
}

/// One member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The name, any bytes.
    pub name: Vec<u8>,
    /// The type flag: `0` file, `1` hard link, `2` symbolic link, `5` directory, ...
    pub kind: u8,
    /// Where a link points.
    pub link: Vec<u8>,
    /// The payload.
    pub data: Vec<u8>,
    /// Mode, owner, time and the like.
    pub about: Attributes,
    /// The major and minor number of a device.
    pub device: (u32, u32),
    /// What the header's size field says instead of the length of `data`, as raw field bytes.
    pub size_field: Option<[u8; 12]>,
}

impl Member {
    /// Makes a regular file.
    pub fn file(name: impl Into<Vec<u8>>, data: impl Into<Vec<u8>>) -> Self {
        let about = Attributes::default();
        Self { name: name.into(), kind: b'0', link: Vec::new(), data: data.into(), about, device: (0, 0), size_field: None }
    }

    /// Makes a directory.
    pub fn dir(name: impl Into<Vec<u8>>) -> Self {
        Self { kind: b'5', ..Self::file(name, "") }
    }

    /// Makes an entry of another kind without data.
    pub fn other(kind: u8, name: impl Into<Vec<u8>>, link: impl Into<Vec<u8>>) -> Self {
        Self { kind, link: link.into(), ..Self::file(name, "") }
    }

    /// The name as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }

    /// The header block. Xattrs, nanoseconds and other records need a PAX header in front, which then has long names and large numbers too;
    /// else a name over 100 bytes gets a GNU long name entry, and large numbers are in base 256.
    pub fn header(&self) -> Vec<u8> {
        let about = &self.about;
        let mut out = Vec::new();
        let pax = about.mtime.1 != 0 || !about.xattrs.is_empty() || !about.records.is_empty();
        if pax {
            let mut records: Vec<(Vec<u8>, Vec<u8>)> = vec![(b"mtime".into(), time(about.mtime).into())];
            let mut add = |key: &str, value: &[u8], wanted: bool| {
                if wanted {
                    records.push((key.into(), value.into()));
                }
            };
            add("path", &self.name, self.name.len() > 100);
            add("linkpath", &self.link, self.link.len() > 100);
            add("uid", about.uid.to_string().as_bytes(), about.uid >= 1 << 21);
            add("gid", about.gid.to_string().as_bytes(), about.gid >= 1 << 21);
            records.extend(about.xattrs.iter().map(|(name, value)| ([XATTR, name].concat(), value.clone())));
            records.extend(about.records.clone());
            let data: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
            out = Self { kind: b'x', ..Self::file("PaxHeaders/x", data) }.bytes();
        } else {
            for (kind, long) in [(b'L', &self.name), (b'K', &self.link)] {
                if long.len() > 100 {
                    out.extend(Self { kind, ..Self::file("././@LongLink", [long, &b"\0"[..]].concat()) }.bytes());
                }
            }
        }
        let mut block = [0; 512];
        let mut put = |at: usize, width: usize, bytes: &[u8]| {
            let len = bytes.len().min(width);
            block[at..at + len].copy_from_slice(&bytes[..len]);
        };
        put(0, 100, &self.name);
        put(100, 8, &field(i64::from(about.mode), 8));
        put(108, 8, &field(about.uid.try_into().unwrap(), 8));
        put(116, 8, &field(about.gid.try_into().unwrap(), 8));
        let size = format!("{:011o}\0", self.data.len());
        put(124, 12, self.size_field.as_ref().map_or(size.as_bytes(), |field| field));
        put(136, 12, &field(about.mtime.0, 12));
        put(156, 1, &[self.kind]);
        put(157, 100, &self.link);
        put(257, 8, b"ustar\x0000");
        if self.device != (0, 0) {
            put(329, 8, &field(self.device.0.into(), 8));
            put(337, 8, &field(self.device.1.into(), 8));
        }
        fix_checksum(&mut block);
        out.extend(block);
        out
    }

    /// Header, payload and padding.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        out.extend(&self.data);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }
}

/// Writes the checksum of a header block into it.
pub fn fix_checksum(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// An archive of `members` with its two closing blocks.
pub fn write(members: &[Member]) -> Vec<u8> {
    let mut out: Vec<u8> = members.iter().flat_map(Member::bytes).collect();
    out.extend([0; 1024]);
    out
}

const XATTR: &[u8] = b"SCHILY.xattr.";

/// The members of `archive`, long names resolved. Panics on anything that it does not understand.
pub fn read(archive: &[u8]) -> Vec<Member> {
    let (mut at, mut members, mut long_name, mut long_link, mut pax) = (0, Vec::new(), None, None, BTreeMap::new());
    while at + 512 <= archive.len() {
        let block = &archive[at..at + 512];
        if block.iter().all(|&byte| byte == 0) {
            break;
        }
        let sum: u32 = block.iter().enumerate().map(|(i, &byte)| if (148..156).contains(&i) { 32 } else { u32::from(byte) }).sum();
        assert_eq!(number(&block[148..156]), i64::from(sum), "header checksum at byte {at}");
        let kind = block[156];
        // Go, and so every engine, takes an empty value for none.
        let mut text = |key: &str| pax.remove(key.as_bytes()).filter(|value: &Vec<u8>| !value.is_empty());
        let is_meta = matches!(kind, b'L' | b'K' | b'g' | b'x');
        let mut pax_number = |key: &str, field: &[u8]| {
            let stated = if is_meta { None } else { text(key) };
            stated.map_or_else(|| number(field), |value| String::from_utf8(value).unwrap().parse().unwrap())
        };
        let size = pax_number("size", &block[124..136]);
        let size = if matches!(kind, b'1'..=b'6') { 0 } else { usize::try_from(size).unwrap() };
        let data = archive[at + 512..at + 512 + size].to_vec();
        at += 512 + size.next_multiple_of(512);
        match kind {
            b'L' => long_name = Some(until_nul(&data).to_vec()).filter(|name| !name.is_empty()),
            b'K' => long_link = Some(until_nul(&data).to_vec()).filter(|link| !link.is_empty()),
            b'g' => {}
            b'x' => pax = records(&data),
            _ => {
                let mut name = until_nul(&block[..100]).to_vec();
                let prefix = until_nul(&block[345..500]);
                if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
                    name = [prefix, b"/", &name].concat();
                }
                let (uid, gid) = (pax_number("uid", &block[108..116]), pax_number("gid", &block[116..124]));
                let mtime = text("mtime").map_or_else(|| (number(&block[136..148]), 0), |value| parse_time(&value));
                let name = text("path").or(long_name.take()).unwrap_or(name);
                let link = text("linkpath").or(long_link.take()).unwrap_or_else(|| until_nul(&block[157..257]).to_vec());
                let device = |field| u32::try_from(number(field)).unwrap();
                let is_xattr = |key: &Vec<u8>| key.starts_with(XATTR);
                let (xattrs, records) = std::mem::take(&mut pax).into_iter().partition::<BTreeMap<_, _>, _>(|(key, _)| is_xattr(key));
                members.push(Member {
                    kind: match kind {
                        // Before ustar a directory was a file whose name ends so.
                        0 if name.ends_with(b"/") => b'5',
                        0 => b'0',
                        _ => kind,
                    },
                    name,
                    link,
                    data,
                    about: Attributes {
                        mode: number(&block[100..108]) as u32 & 0o7777,
                        uid: uid.try_into().unwrap(),
                        gid: gid.try_into().unwrap(),
                        mtime,
                        xattrs: xattrs.into_iter().map(|(key, value)| (key[XATTR.len()..].to_vec(), value)).collect(),
                        records,
                    },
                    device: if matches!(kind, b'3' | b'4') { (device(&block[329..337]), device(&block[337..345])) } else { (0, 0) },
                    size_field: None,
                });
            }
        }
    }
    members
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len())]
}

/// A header's number: octal, or two's complement in base 256.
fn number(field: &[u8]) -> i64 {
    if field[0] & 0x80 != 0 {
        let sign = if field[0] & 0x40 == 0 { 0 } else { -1 };
        return field[1..].iter().fold(sign, |sum, &byte| sum << 8 | i64::from(byte));
    }
    // As Go does: spaces and NULs at both ends say nothing.
    let text = String::from_utf8_lossy(field).trim_matches([' ', '\0']).to_owned();
    let text = String::from_utf8_lossy(until_nul(text.as_bytes())).into_owned();
    if text.is_empty() { 0 } else { i64::from_str_radix(&text, 8).unwrap() }
}

/// A number as a header's field of `width` bytes.
fn field(value: i64, width: usize) -> Vec<u8> {
    if (0..1 << (3 * (width - 1))).contains(&value) {
        return format!("{value:0width$o}", width = width - 1).into_bytes();
    }
    let wide = i128::from(value).to_be_bytes();
    let mut field = wide[wide.len() - width..].to_vec();
    field[0] |= 0x80;
    field
}

fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key, b"=", value, b"\n"].concat();
    // The length counts its own digits.
    let len = (1..).find(|len: &usize| len.to_string().len() + rest.len() == *len).unwrap();
    [len.to_string().as_bytes(), &rest].concat()
}

fn records(data: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let (mut rest, mut found) = (data, BTreeMap::new());
    while !rest.is_empty() {
        let space = rest.iter().position(|&byte| byte == b' ').unwrap();
        let len: usize = std::str::from_utf8(&rest[..space]).unwrap().parse().unwrap();
        let record = &rest[space + 1..len - 1];
        let equals = record.iter().position(|&byte| byte == b'=').unwrap();
        found.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        rest = &rest[len..];
    }
    found
}

/// A time as a PAX record has it.
pub(crate) fn time((seconds, nanos): (i64, u32)) -> String {
    let (sign, seconds, nanos) = if seconds < 0 && nanos > 0 { ("-", -(seconds + 1), 1_000_000_000 - nanos) } else { ("", seconds, nanos) };
    let text = format!("{sign}{seconds}.{nanos:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn parse_time(text: &[u8]) -> (i64, u32) {
    let text = std::str::from_utf8(text).unwrap();
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanos: u32 = format!("{fraction:0<9}")[..9].parse().unwrap();
    let seconds: i64 = seconds.parse().unwrap();
    if text.starts_with('-') && nanos > 0 { (seconds - 1, 1_000_000_000 - nanos) } else { (seconds, nanos) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let members = vec![Member::file("a", "text"), Member::dir("d/"), Member::file("n".repeat(300), ""), Member::other(b'2', "l", "a")];
        assert_eq!(read(&write(&members)), members);
    }

    #[test]
    fn reads_the_attributes_that_it_writes() {
        let pairs =
            |pairs: &[(&str, &str)]| -> BTreeMap<_, _> { pairs.iter().map(|(key, value)| (Vec::from(*key), Vec::from(*value))).collect() };
        for mtime in [(0, 0), (1_700_000_000, 0), (-1, 0), (-1, 500_000_000), (-2, 1), (1 << 40, 0), (5, 120_000_000), (-100, 0)] {
            for xattrs in [pairs(&[]), pairs(&[("user.a", "x=\0\n"), ("user.empty", "")])] {
                let records = pairs(if xattrs.is_empty() { &[] } else { &[("comment", "text")] });
                let about = Attributes { mode: 0o4755, uid: 3_000_000_000, gid: 1 << 21, mtime, xattrs, records };
                let mut members =
                    vec![Member::file("a", "text"), Member::other(b'3', "n".repeat(300), ""), Member::other(b'1', "h", "n".repeat(300))];
                members[1].device = (3_000_000, 7);
                members.iter_mut().for_each(|member| member.about = about.clone());
                assert_eq!(read(&write(&members)), members);
            }
        }
    }

    #[test]
    fn takes_an_empty_long_name_or_link_for_none() {
        for kind in *b"LK" {
            let members = [Member::other(kind, "long", ""), Member::other(b'1', "name", "target")];
            let read = read(&write(&members));
            assert_eq!((read.len(), &read[0].name[..], &read[0].link[..]), (1, &b"name"[..], &b"target"[..]));
        }
    }

    #[test]
    fn reads_what_others_wrote() {
        let members = read(&std::fs::read(crate::fixture("from/docker20-one.tar")).unwrap());
        assert!(members.iter().any(|member| member.name == b"manifest.json"));
        assert!(members.iter().any(|member| member.kind == b'2' && member.link.ends_with(b"/layer.tar")));
    }
}

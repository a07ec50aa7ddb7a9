//! A tar reader and writer for tests: ustar, GNU long names and PAX paths, and nothing clever.
//!
//! The writer writes what it is told, valid or not: names of any bytes, kinds of any letter, sizes that lie.

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
    /// What the header's size field says instead of the length of `data`, as raw field bytes.
    pub size_field: Option<[u8; 12]>,
}

impl Member {
    /// Makes a regular file.
    pub fn file(name: impl Into<Vec<u8>>, data: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), kind: b'0', link: Vec::new(), data: data.into(), size_field: None }
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

    /// The header block. A name over 100 bytes gets a GNU long name entry in front.
    pub fn header(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.name.len() > 100 {
            let mut long = self.name.clone();
            long.push(0);
            out = Self { kind: b'L', ..Self::file("././@LongLink", long) }.bytes();
        }
        let mut block = [0; 512];
        let mut put = |at: usize, width: usize, bytes: &[u8]| {
            let len = bytes.len().min(width);
            block[at..at + len].copy_from_slice(&bytes[..len]);
        };
        put(0, 100, &self.name);
        put(100, 8, b"0000644");
        put(108, 8, b"0000000");
        put(116, 8, b"0000000");
        let size = format!("{:011o}\0", self.data.len());
        put(124, 12, self.size_field.as_ref().map_or(size.as_bytes(), |field| field));
        put(136, 12, b"00000000000");
        put(156, 1, &[self.kind]);
        put(157, 100, &self.link);
        put(257, 8, b"ustar\x0000");
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

/// The members of `archive`, long names resolved. Panics on anything that it does not understand.
pub fn read(archive: &[u8]) -> Vec<Member> {
    let (mut at, mut members, mut long, mut pax_path, mut pax_link) = (0, Vec::new(), None, None, None);
    while at + 512 <= archive.len() {
        let block = &archive[at..at + 512];
        if block.iter().all(|&byte| byte == 0) {
            break;
        }
        let sum: u32 = block.iter().enumerate().map(|(i, &byte)| if (148..156).contains(&i) { 32 } else { u32::from(byte) }).sum();
        assert_eq!(octal(&block[148..156]), u64::from(sum), "header checksum at byte {at}");
        let kind = block[156];
        let size =
            if matches!(kind, b'1' | b'2' | b'3' | b'4' | b'5' | b'6') { 0 } else { usize::try_from(octal(&block[124..136])).unwrap() };
        let data = archive[at + 512..at + 512 + size].to_vec();
        at += 512 + size.next_multiple_of(512);
        match kind {
            b'L' => long = Some(until_nul(&data).to_vec()),
            b'g' => {}
            b'x' => {
                pax_path = pax_record(&data, "path");
                pax_link = pax_record(&data, "linkpath");
            }
            _ => {
                let mut name = until_nul(&block[..100]).to_vec();
                let prefix = until_nul(&block[345..500]);
                if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
                    name = [prefix, b"/", &name].concat();
                }
                members.push(Member {
                    name: pax_path.take().or(long.take()).unwrap_or(name),
                    kind: if kind == 0 { b'0' } else { kind },
                    link: pax_link.take().unwrap_or_else(|| until_nul(&block[157..257]).to_vec()),
                    data,
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

fn octal(field: &[u8]) -> u64 {
    if field[0] & 0x80 != 0 {
        return field[1..].iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
    }
    let text = String::from_utf8_lossy(until_nul(field)).trim().to_owned();
    if text.is_empty() { 0 } else { u64::from_str_radix(&text, 8).unwrap() }
}

fn pax_record(data: &[u8], key: &str) -> Option<Vec<u8>> {
    let mut rest = data;
    let mut found = None;
    while !rest.is_empty() {
        let space = rest.iter().position(|&byte| byte == b' ').unwrap();
        let len: usize = std::str::from_utf8(&rest[..space]).unwrap().parse().unwrap();
        let record = &rest[space + 1..len - 1];
        let equals = record.iter().position(|&byte| byte == b'=').unwrap();
        if &record[..equals] == key.as_bytes() {
            found = Some(record[equals + 1..].to_vec());
        }
        rest = &rest[len..];
    }
    found
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
    fn reads_what_others_wrote() {
        let members = read(&std::fs::read(crate::fixture("from/docker20-one.tar")).unwrap());
        assert!(members.iter().any(|member| member.name == b"manifest.json"));
        assert!(members.iter().any(|member| member.kind == b'2' && member.link.ends_with(b"/layer.tar")));
    }
}

//! Mutations: small damage of the kinds that parsers meet, made of a deterministic stream of random numbers.

/// A xorshift generator: small, fast, and the same everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// Starts at `seed`, which `salt` moves elsewhere for each target.
    pub(crate) fn new(seed: u64, salt: &str) -> Self {
        // FNV-1a, so that targets see different streams of one seed.
        let state = salt.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self(state | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // The high half: the low bits of a product are weak.
        ((self.next() >> 32) as usize) % bound
    }

    /// One of `items`, which are some.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    fn token(&mut self) -> &'static [u8] {
        TOKENS[self.below(TOKENS.len())]
    }
}

/// Tokens that mean something to one of the parsers.
const TOKENS: &[&[u8]] = &[
    // tar: numbers, magic, type flags and PAX records.
    b"00000000000\0",
    b"77777777777\0",
    b"\x80\0\0\0\0\0\0\0\0\0\x02\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"-0000000001\0",
    b"ustar\x0000",
    b"ustar  \0",
    b"././@LongLink",
    b"11 path=ab\n",
    b"12 size=100\n",
    b"30 mtime=1700000000.123456789\n",
    b"28 SCHILY.xattr.user.a=bcde\n",
    b"22 GNU.sparse.major=1\n",
    b"0 a=b\n",
    b"99999999999999999999 a=b\n",
    b".wh.",
    b".wh..wh..opq",
    b"../",
    b"./",
    b"//",
    b"/",
    b"\0",
    // JSON.
    b"{",
    b"}",
    b"[",
    b"]",
    b"[[[[[[[[[[[[[[[[[[[[",
    b",",
    b":",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"\\",
    b"null",
    b"true",
    b"1e999",
    b"-1",
    b"18446744073709551616",
    b"9223372036854775808",
    b"\"schemaVersion\":2",
    b"\"mediaType\":\"application/vnd.oci.image.index.v1+json\"",
    b"\"manifests\":[",
    b"\"layers\":[",
    b"\"digest\":\"sha256:",
    b"\"RepoTags\":null",
    b"\xef\xbb\xbf",
    // Compression.
    b"\x1f\x8b\x08\0",
    b"\x28\xb5\x2f\xfd",
    b"\x50\x2a\x4d\x18",
    b"\xfd7zXZ\0",
    b"BZh9",
    b"\x04\x22\x4d\x18",
    // References.
    b"sha256:",
    b"sha512:",
    b"@",
    b"localhost:5000/",
    b"docker.io/library/",
    b"[::1]",
    b"__",
    b"\xff",
    b"\xc3\xa9",
];

/// Bytes that sit at the edge of something.
const EDGES: [u8; 10] = [0, 1, 0x20, b'0', b'7', b'9', 0x7f, 0x80, 0xfe, 0xff];

/// Where a tar header's fields lie.
const TAR_FIELDS: [(usize, usize); 12] =
    [(0, 100), (100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (148, 8), (156, 1), (157, 100), (257, 8), (329, 16), (345, 155)];

/// No input grows beyond this.
const LONGEST: usize = 400_000;

/// Damages one of `seeds`, one to some ten times.
pub(crate) fn mutate(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = random.pick(seeds).clone();
    let times = 1 << random.below(4);
    for _ in 0..times {
        once(random, &mut input, seeds);
    }
    input.truncate(LONGEST);
    // A parser that stops at the first wrong checksum sees nothing of what comes behind it.
    if random.below(4) != 0 {
        fix_checksums(&mut input);
    }
    input
}

fn once(random: &mut Random, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let at = random.below(input.len() + 1);
    match random.below(12) {
        0 => flip(random, input),
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = *random.pick(&EDGES);
            }
        }
        2 => overwrite(input, at, random.token()),
        3 => insert(input, at, random.token()),
        4 => {
            let len = span(random, input.len() - at);
            input.drain(at..at + len);
        }
        5 => {
            let len = span(random, input.len() - at);
            let copy = input[at..at + len].to_vec();
            let to = random.below(input.len() + 1);
            insert(input, to, &copy);
        }
        6 => input.truncate(at),
        7 => {
            let other = random.pick(seeds);
            let from = random.below(other.len() + 1);
            // A tail of another seed, at the same distance from a block's start so that archives stay archives.
            input.truncate(at - at % 512);
            input.extend(&other[from - from % 512..]);
        }
        8 => number(random, input, at),
        9 | 10 => tar_field(random, input),
        _ => {
            // A whole block twice, gone or in another place.
            let blocks = input.len() / 512;
            if blocks > 1 {
                let (a, b) = (random.below(blocks) * 512, random.below(blocks) * 512);
                let block = input[a..a + 512].to_vec();
                if random.below(2) == 0 { overwrite(input, b, &block) } else { insert(input, b, &block) }
            }
        }
    }
}

fn flip(random: &mut Random, input: &mut [u8]) {
    if !input.is_empty() {
        let at = random.below(input.len());
        input[at] ^= 1 << random.below(8);
    }
}

fn overwrite(input: &mut [u8], at: usize, token: &[u8]) {
    let len = token.len().min(input.len() - at);
    input[at..at + len].copy_from_slice(&token[..len]);
}

fn insert(input: &mut Vec<u8>, at: usize, token: &[u8]) {
    if input.len() + token.len() <= LONGEST {
        input.splice(at..at, token.iter().copied());
    }
}

/// A length up to `most`, mostly short.
fn span(random: &mut Random, most: usize) -> usize {
    let bound = [4, 16, 64, 512, 4096][random.below(5)];
    random.below(most.min(bound) + 1)
}

/// Changes the first decimal number after `at`.
fn number(random: &mut Random, input: &mut Vec<u8>, at: usize) {
    let Some(start) = input[at..].iter().position(u8::is_ascii_digit).map(|offset| at + offset) else { return };
    let end = input[start..].iter().position(|byte| !byte.is_ascii_digit()).map_or(input.len(), |offset| start + offset);
    let numbers: [&[u8]; 8] =
        [b"0", b"1", b"00", b"511", b"4294967296", b"9223372036854775807", b"18446744073709551615", b"99999999999999999999999"];
    input.splice(start..end, random.pick(&numbers).iter().copied());
}

/// Damages one field of a tar header, whose checksum is right again afterwards.
fn tar_field(random: &mut Random, input: &mut [u8]) {
    let blocks = input.len() / 512;
    if blocks == 0 {
        return;
    }
    let start = random.below(blocks);
    // The next block that is a header, if one is near.
    let block = (start..blocks.min(start + 64)).find(|&block| is_header(&input[block * 512..][..512])).unwrap_or(start) * 512;
    let (offset, width) = *random.pick(&TAR_FIELDS);
    let field = &mut input[block + offset..block + offset + width];
    match random.below(5) {
        0 => field.fill(*random.pick(&EDGES)),
        1 => {
            let at = random.below(width);
            field[at] = *random.pick(&EDGES);
        }
        2 if width == 1 => field[0] = *random.pick(b"0123456789gxLKSDVANM\0"),
        2 => {
            let text = format!("{:0width$o}\0", random.below(1 << 20), width = width.saturating_sub(1).min(11));
            overwrite(field, 0, text.as_bytes());
        }
        _ => overwrite(field, 0, random.token()),
    }
    fix_checksum(&mut input[block..block + 512]);
}

fn is_header(block: &[u8]) -> bool {
    &block[257..262] == b"ustar"
}

fn fix_checksums(input: &mut [u8]) {
    for block in input.chunks_exact_mut(512).filter(|block| is_header(block)) {
        fix_checksum(block);
    }
}

fn fix_checksum(block: &mut [u8]) {
    let block: &mut [u8; 512] = block.try_into().expect("a block has 512 bytes");
    longshore_testkit::tar::fix_checksum(block);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds::Seeds;

    #[test]
    fn one_seed_gives_one_stream_and_targets_differ() {
        let seeds = Seeds::Archives.collect();
        let stream = |seed, salt: &str| {
            let mut random = Random::new(seed, salt);
            (0..20).map(|_| mutate(&mut random, &seeds)).collect::<Vec<_>>()
        };
        assert!(stream(1, "tar") == stream(1, "tar"));
        assert!(stream(1, "tar") != stream(1, "json"));
        assert!(stream(1, "tar") != stream(2, "tar"));
    }

    #[test]
    fn every_mutation_survives_every_length() {
        let seeds: Vec<Vec<u8>> = [0, 1, 2, 511, 512, 513, 1024, 5000].iter().map(|&len| longshore_testkit::noise(len, 1)).collect();
        let mut random = Random::new(1, "");
        let inputs: Vec<Vec<u8>> = (0..20_000).map(|_| mutate(&mut random, &seeds)).collect();
        assert!(inputs.iter().any(Vec::is_empty) && inputs.iter().any(|input| input.len() > 5000));
    }
}

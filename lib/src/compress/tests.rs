//! What must hold for every kind of stream, and the odd streams of each.

use std::io::{self, ErrorKind, Read, Write as _};

use proptest::prelude::*;

use super::decode::Cut;
use super::*;
use crate::{Error, ErrorKind as Kind};

const KINDS: [Compression; 4] = [Compression::Gzip, Compression::Zstd, Compression::Xz, Compression::Bzip2];

fn decode(kind: Compression, stream: &[u8]) -> crate::Result<Vec<u8>> {
    decode_cut(kind, stream, usize::MAX)
}

/// Decodes, reading and being read `cut` bytes at a time, and reads once more at the end.
fn decode_cut(kind: Compression, stream: &[u8], cut: usize) -> crate::Result<Vec<u8>> {
    let mut decoder = decoder(kind, Cut { data: stream, cut }, DecodeLimits::default())?;
    let mut made = Vec::new();
    let mut buffer = vec![0; cut.min(1 << 16)];
    loop {
        assert_eq!(decoder.read(&mut []).unwrap(), 0);
        match decoder.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => made.extend_from_slice(&buffer[..count]),
            Err(error) => {
                assert!(decoder.read(&mut buffer).is_err(), "an error is not the last word");
                return Err(Error::io(error));
            }
        }
    }
    assert_eq!(decoder.read(&mut buffer).unwrap(), 0);
    Ok(made)
}

fn says(kind: Compression, stream: &[u8]) -> (Kind, String) {
    let error = decode(kind, stream).expect_err("a bad stream was read");
    (error.kind(), error.to_string())
}

fn invalid(message: &str) -> (Kind, String) {
    (Kind::Invalid, message.to_owned())
}

/// One stream of `kind` that holds `data`.
fn encode(kind: Compression, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match kind {
        Compression::None => out.extend_from_slice(data),
        Compression::Gzip => Encoding::default().encoder().encode(data, &mut out).unwrap(),
        Compression::Zstd => Encoding::Zstd(ZstdLevel::default()).encoder().encode(data, &mut out).unwrap(),
        Compression::Xz => out = xz(data, 8),
        Compression::Bzip2 => {
            let mut encoder = ::bzip2::write::BzEncoder::new(out, ::bzip2::Compression::fast());
            encoder.write_all(data).unwrap();
            out = encoder.finish().unwrap();
        }
    }
    out
}

fn crc32(data: &[u8]) -> [u8; 4] {
    libdeflater::crc32(data).to_le_bytes()
}

/// An xz stream of one block with a CRC-32, its LZMA2 chunks uncompressed, and a dictionary of `size` as LZMA2 encodes it.
fn xz(data: &[u8], size: u8) -> Vec<u8> {
    fn number(mut value: usize, out: &mut Vec<u8>) {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }
    let mut out = b"\xfd7zXZ\0\0\x01".to_vec();
    out.extend(crc32(&[0, 1]));
    let mut header = vec![2, 0, 0x21, 1, size, 0, 0, 0];
    header.extend(crc32(&header));
    let start = out.len();
    out.extend(header);
    for (at, chunk) in data.chunks(1 << 16).enumerate() {
        out.push(if at == 0 { 1 } else { 2 });
        out.extend((chunk.len() as u16).wrapping_sub(1).to_be_bytes());
        out.extend(chunk);
    }
    out.push(0);
    let unpadded = out.len() - start + 4;
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(crc32(data));
    let mut index = vec![0, 1];
    number(unpadded, &mut index);
    number(data.len(), &mut index);
    index.resize(index.len().next_multiple_of(4), 0);
    index.extend(crc32(&index));
    let backward = (index.len() as u32 / 4 - 1).to_le_bytes();
    out.extend(index);
    let flags = [backward[0], backward[1], backward[2], backward[3], 0, 1];
    out.extend(crc32(&flags));
    out.extend(flags);
    out.extend(b"YZ");
    out
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

const TEXT: &[u8] = b"hello hello hello longshore\n";

#[test]
fn reads_what_other_tools_wrote() {
    let table = [
        // xz 5.4.1: -9e --check=sha256; -0 --check=crc32; --block-size=10 --delta=dist=1 --x86 --lzma2=dict=4KiB
        "fd377a585a00000ae1fb0ca1020021011c00000010cf58cce0001b00155d00341949ee8de950969d9b2bd5c0d88ee4a38f4df60000000000a4bb66dd71c8f2cc7b1c\
         bbaec49c09132af1028bf8e58cd18f5bd0536f6dddd60001491c281d3c15189b4b9a01000000000a595a",
        "fd377a585a0000016922de36020021010c0000008f98419ce0001b00165d00341949db855c678448f256e33f13b85318f3af0800000000008818a7b500012e1c48e0\
         803f9042990d010000000001595a",
        "fd377a585a000004e6d6b446030203010004002101000000dc47391801000968fd070003b148fd0700000000a62069e1c4494ef5030203010004002101000000dc47\
         39180100096fb148fd070003b14c030000006b10b86f4b539fd0030203010004002101000000dc4739180100076ef90cf50703f3a500146eba360b373f3a0003260a\
         260a2408de2772b8b1c467fb020000000004595a",
        // bzip2 1.0.8: -9
        "425a6839314159265359bf36ffbc000004d1800010400002c5980020002194f5198a100304ccd33345669ec40357e2ee48a70a1217e6dff780",
        // zstd 1.5.4: -19
        "28b52ffd241cb500008068656c6c6f206c6f6e6773686f72650a0100e14a111bc5606c",
    ];
    for text in table {
        let stream = hex(text);
        let kind = sniff(&stream).unwrap();
        for cut in [1, 2, 7, usize::MAX] {
            assert_eq!(decode_cut(kind, &stream, cut).unwrap(), TEXT, "{kind} {text}");
        }
        for end in 0..stream.len() {
            assert!(decode(kind, &stream[..end]).is_err(), "{kind} {text} cut at {end}");
        }
    }
}

#[test]
fn round_trips_whatever_the_cuts() {
    for kind in KINDS {
        for data in [&b""[..], b"x", TEXT] {
            let stream = encode(kind, data);
            assert_eq!(sniff(&stream), Ok(kind));
            for cut in [1, 3, 1 << 16, usize::MAX] {
                assert_eq!(decode_cut(kind, &stream, cut).unwrap(), data, "{kind}");
            }
        }
    }
    assert_eq!(decode_cut(Compression::None, TEXT, 1).unwrap(), TEXT);
}

#[test]
fn streams_one_after_another_are_one_stream() {
    for kind in KINDS {
        let stream = [encode(kind, b"one "), encode(kind, b""), encode(kind, &[b'2'; 70_000]), encode(kind, b"three")].concat();
        let data = [b"one ", &[b'2'; 70_000][..], b"three"].concat();
        for cut in [1, 1000, usize::MAX] {
            assert_eq!(decode_cut(kind, &stream, cut).unwrap(), data, "{kind}");
        }
    }
}

#[test]
fn a_stream_that_ends_early_is_an_error_at_every_byte() {
    let messages = [
        (Compression::Gzip, &["gzip stream ends before its header", "gzip stream ends before its trailer"][..]),
        (Compression::Zstd, &["zstd stream ends within a frame"]),
        (Compression::Xz, &["xz stream ends before its footer"]),
        (Compression::Bzip2, &["bzip2 stream ends before its checksum"]),
    ];
    for (kind, expected) in messages {
        let first = encode(kind, TEXT);
        let both = [&first[..], &first].concat();
        for end in (0..both.len()).filter(|&end| end != first.len()) {
            for cut in [1, usize::MAX] {
                let error = decode_cut(kind, &both[..end], cut).expect_err("a part was taken for the whole");
                assert_eq!(error.kind(), Kind::Invalid);
                let expected = if kind == Compression::Xz && end > first.len() && end < first.len() + 6 {
                    // lzma-rust2 does not tell a short magic from a wrong one.
                    &["bad xz stream: incomplete XZ magic bytes"]
                } else {
                    expected
                };
                assert!(expected.contains(&error.to_string().as_str()), "{kind} at {end}: {error}");
            }
        }
    }
}

#[test]
fn bytes_after_the_stream_are_an_error() {
    let messages = [
        (Compression::Gzip, "bytes after the gzip stream that are no member"),
        (Compression::Zstd, "bytes after the zstd stream that are no frame"),
        (Compression::Xz, "bad xz stream: invalid data after stream"),
        (Compression::Bzip2, "bytes after the bzip2 stream that are no stream"),
    ];
    for (kind, message) in messages {
        for garbage in [&b"garbage, more than a header"[..], b"junk"] {
            assert_eq!(says(kind, &[&encode(kind, TEXT), garbage].concat()), invalid(message));
        }
        for garbage in [b"\x1f", b"x", b"\xff"] {
            assert!(decode(kind, &[&encode(kind, TEXT)[..], garbage].concat()).is_err(), "{kind}");
        }
    }
}

#[test]
fn another_kind_of_stream_is_an_error() {
    for kind in KINDS {
        for other in KINDS.into_iter().filter(|&other| other != kind) {
            assert!(decode(kind, &encode(other, TEXT)).is_err());
            assert!(decode(kind, &[encode(kind, TEXT), encode(other, TEXT)].concat()).is_err());
        }
        assert!(decode(kind, &[b't'; 600]).is_err());
    }
}

#[test]
fn a_changed_bit_is_never_read_as_other_data() {
    for kind in KINDS {
        let stream = encode(kind, TEXT);
        for bit in 0..stream.len() * 8 {
            let mut bad = stream.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            match decode(kind, &bad) {
                // Times, names and extra fields of gzip, and the like, say nothing about the data.
                Ok(data) => assert_eq!(data, TEXT, "{kind} with bit {bit} changed"),
                Err(error) => assert_ne!(error.kind(), Kind::Io),
            }
        }
    }
}

#[test]
fn errors_of_the_reader_below_pass_through() {
    struct Fails<'a>(&'a [u8], bool);
    impl Read for Fails<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            match self.1 {
                true => Err(ErrorKind::Interrupted.into()),
                false if self.0.is_empty() => Err(io::Error::new(ErrorKind::UnexpectedEof, "the disk is gone")),
                false => self.0.read(&mut buf[..1]),
            }
        }
    }
    for kind in KINDS {
        let stream = encode(kind, TEXT);
        for end in 0..=stream.len() {
            let mut made = Vec::new();
            let mut decoder = decoder(kind, Fails(&stream[..end], false), DecodeLimits::default()).unwrap();
            let error = decoder.read_to_end(&mut made).unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::UnexpectedEof, "the disk is gone"), "{kind} at {end}");
        }
    }
}

#[test]
fn expanding_too_far_is_an_error() {
    let zeros = vec![0; 1 << 20];
    for (kind, ratio) in [(Compression::Gzip, 200), (Compression::Zstd, 200), (Compression::Bzip2, 200)] {
        let stream = encode(kind, &zeros);
        for (ratio_floor, expected) in [(1 << 20, true), (1 << 18, false)] {
            let limits = DecodeLimits { ratio, ratio_floor };
            let mut decoder = decoder(kind, &stream[..], limits).unwrap();
            match io::copy(&mut decoder, &mut io::sink()) {
                Ok(count) => assert!(expected && count == 1 << 20),
                Err(error) => {
                    let error = Error::io(error);
                    assert!(!expected, "{kind}: {error}");
                    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Limit, "decompresses to over 200 times its size"));
                }
            }
        }
    }
}

/// A gzip stream by hand: flags, what follows the fixed header, and the member's data.
fn gzip(flags: u8, fields: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 2, 3];
    out.extend(fields);
    out.extend([1]);
    out.extend((data.len() as u16).to_le_bytes());
    out.extend((!(data.len() as u16)).to_le_bytes());
    out.extend(data);
    out.extend(crc32(data));
    out.extend((data.len() as u32).to_le_bytes());
    out
}

#[test]
fn gzip_header_fields_are_skipped_and_checked() {
    let fields = b"\x05\x00extraname\0comment\0";
    for (flags, fields) in [
        (0, &b""[..]),
        (1, b""),
        (0x04, b"\0\0"),
        (0x04, b"\x05\0extra"),
        (0x08, b"\0"),
        (0x08, b"name\0"),
        (0x10, b"comment\0"),
        (0x1c, fields),
    ] {
        for cut in [1, usize::MAX] {
            assert_eq!(decode_cut(Compression::Gzip, &gzip(flags, fields, TEXT), cut).unwrap(), TEXT, "flags {flags:x}");
        }
    }
    let long = [vec![b'n'; 600_000], vec![0]].concat();
    assert_eq!(decode(Compression::Gzip, &gzip(8, &long, TEXT)).unwrap(), TEXT);

    let header = [&[0x1f, 0x8b, 8, 0x1e, 1, 2, 3, 4, 2, 3], &fields[..]].concat();
    let sum = &crc32(&header)[..2];
    assert_eq!(decode(Compression::Gzip, &gzip(0x1e, &[fields, sum].concat(), TEXT)).unwrap(), TEXT);
    let (kind, message) = says(Compression::Gzip, &gzip(0x1e, &[fields, &[!sum[0], sum[1]][..]].concat(), TEXT));
    assert!(kind == Kind::Invalid && message.starts_with("CRC-16 of the gzip header is "), "{message}");

    assert_eq!(says(Compression::Gzip, &gzip(0x20, b"", TEXT)), (Kind::Unsupported, "reserved gzip flags 0x20".to_owned()));
    let mut other = gzip(0, b"", TEXT);
    other[2] = 7;
    assert_eq!(says(Compression::Gzip, &other), (Kind::Unsupported, "gzip compression method 7, expected 8, deflate".to_owned()));
}

#[test]
fn gzip_trailers_are_checked() {
    let good = gzip(0, b"", b"abc");
    let at = good.len() - 8;
    let mut bad = good.clone();
    bad[at] ^= 1;
    assert_eq!(says(Compression::Gzip, &bad), invalid("CRC-32 is 352441c2, expected 352441c3"));
    let mut bad = good;
    bad[at + 4] = 4;
    assert_eq!(says(Compression::Gzip, &bad), invalid("gzip member has 3 bytes modulo 2^32, expected 4"));
}

#[test]
fn gzip_may_be_padded_with_zeros_and_nothing_else() {
    let stream = gzip(0, b"", TEXT);
    for zeros in [1, 511, 300_000] {
        let padded = [&stream[..], &vec![0; zeros]].concat();
        assert_eq!(decode(Compression::Gzip, &padded).unwrap(), TEXT);
        for after in [&b"x"[..], &stream] {
            let message = "bytes after the gzip stream that are no member";
            assert_eq!(says(Compression::Gzip, &[&padded[..], after].concat()), invalid(message));
        }
    }
    assert_eq!(says(Compression::Gzip, &[&[0][..], &stream].concat()), invalid("not a gzip stream"));
    assert_eq!(says(Compression::Gzip, b""), invalid("gzip stream ends before its header"));
}

#[test]
fn zstd_skips_skippable_frames() {
    let frame = encode(Compression::Zstd, TEXT);
    let skip = |length: u32| [&[0x53, 0x2a, 0x4d, 0x18][..], &length.to_le_bytes(), &vec![b's'; length as usize]].concat();
    let stream = [skip(0), skip(3), frame.clone(), skip(400_000), frame.clone(), skip(1)].concat();
    for cut in [1, usize::MAX] {
        assert_eq!(decode_cut(Compression::Zstd, &stream, cut).unwrap(), [TEXT, TEXT].concat());
    }
    assert_eq!(decode(Compression::Zstd, &skip(5)).unwrap(), b"");
    assert_eq!(says(Compression::Zstd, &[frame, skip(5)[..12].to_vec()].concat()), invalid("zstd stream ends within a frame"));
}

#[test]
fn zstd_windows_and_dictionaries_are_looked_at_first() {
    let frame = |header: &[u8]| [&b"\x28\xb5\x2f\xfd"[..], header, b"\x19\0\0abc"].concat();
    // Window_Descriptor: exponent in the upper five bits, over 10; eighths in the others.
    assert_eq!(decode(Compression::Zstd, &frame(b"\0\x88")).unwrap(), b"abc");
    let refused = |mib: u64| (Kind::Limit, format!("the zstd window of {mib} MiB is over the limit of 128 MiB"));
    assert_eq!(says(Compression::Zstd, &frame(b"\0\x89")), refused(144));
    assert_eq!(says(Compression::Zstd, &frame(b"\0\x98")), refused(512));
    assert_eq!(says(Compression::Zstd, &frame(b"\0\xff")), refused(3_932_160));
    // A single segment: the content is the window.
    assert_eq!(says(Compression::Zstd, &frame(b"\xa0\0\0\0\x20")), refused(512));
    assert_eq!(says(Compression::Zstd, &frame(b"\xe0\xff\xff\xff\xff\xff\xff\xff\xff")), refused(17_592_186_044_416));
    let wanted = (Kind::Unsupported, "the zstd frame needs dictionary 513, and layers have none".to_owned());
    assert_eq!(says(Compression::Zstd, &frame(b"\x02\x50\x01\x02")), wanted);
}

#[test]
fn zstd_checksums_are_checked() {
    let mut stream = encode(Compression::Zstd, TEXT);
    *stream.last_mut().unwrap() ^= 1;
    assert_eq!(says(Compression::Zstd, &stream), invalid("bad zstd frame: restored data doesn't match checksum"));
}

#[test]
fn xz_padding_and_dictionaries() {
    let stream = encode(Compression::Xz, TEXT);
    let twice = [&stream[..], &[0; 8], &stream, &[0; 4]].concat();
    assert_eq!(decode(Compression::Xz, &twice).unwrap(), [TEXT, TEXT].concat());
    assert!(decode(Compression::Xz, &[&stream[..], &[0; 3]].concat()).is_err());
    // 2^(n/2 + 12): 30 is 128 MiB, 31 is 192.
    assert_eq!(decode(Compression::Xz, &xz(TEXT, 30)).unwrap(), TEXT);
    let refused = (Kind::Limit, "the xz dictionary is over the limit of 128 MiB".to_owned());
    for size in [31, 39, 40] {
        assert_eq!(says(Compression::Xz, &xz(TEXT, size)), refused);
    }
}

#[test]
fn fuzzing_takes_anything() {
    for kind in 0..5 {
        for stream in KINDS.map(|kind| encode(kind, TEXT)) {
            fuzz_decode(&[&[kind, 3], &stream[..]].concat());
            fuzz_sniff(&stream);
        }
    }
    fuzz_decode(b"");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn decoding_undoes_encoding(
        parts in prop::collection::vec((any::<u8>(), 0..5000_usize, prop::collection::vec(any::<u8>(), 0..500)), 0..12),
        cut in 1..3000_usize,
        block in 1..20_000_usize,
    ) {
        let data: Vec<u8> = parts.into_iter().flat_map(|(byte, count, tail)| [vec![byte; count], tail].concat()).collect();
        for kind in KINDS {
            let stream = if data.is_empty() { encode(kind, &data) } else { data.chunks(block).flat_map(|block| encode(kind, block)).collect() };
            prop_assert!(decode_cut(kind, &stream, cut).unwrap() == data, "{} differs", kind);
        }
    }

    #[test]
    fn bytes_at_random_never_panic(kind in 0..5_u8, cut in any::<u8>(), at in any::<prop::sample::Index>(), noise in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut data = [&[kind, cut], &encode(KINDS[usize::from(kind % 4)], TEXT)[..]].concat();
        let at = 2 + at.index(data.len() - 2);
        data.splice(at..(at + noise.len()).min(data.len()), noise);
        fuzz_decode(&data);
        fuzz_sniff(&data[2..]);
    }
}

//! Sparse files: four ways to write down which parts of a file are data, all from GNU tar ("Storing Sparse Files" in its manual).
//!
//! | form | where the map is |
//! |---|---|
//! | old GNU, type `S` | four pairs in the header block, then blocks of 21 pairs while a flag says so |
//! | PAX 0.0 | repeated records `GNU.sparse.offset` and `GNU.sparse.numbytes` |
//! | PAX 0.1 | one record `GNU.sparse.map`, numbers separated by commas |
//! | PAX 1.0 | in front of the data, as decimal lines, padded to a whole block |
//!
//! A map is used only when it is ascending, without overlap, within the file, as long as the data that follow, and within a limit.

use super::pax::{self, decimal};
use super::{BLOCK, Record, Sparse, TarError, header};

/// Pairs of offset and length, collected under a limit.
#[derive(Debug)]
pub(super) struct Map {
    pairs: Vec<(u64, u64)>,
    limit: usize,
}

impl Map {
    pub(super) fn new(limit: usize) -> Self {
        Self { pairs: Vec::new(), limit }
    }

    fn push(&mut self, offset: u64, length: u64) -> Result<(), TarError> {
        if self.pairs.len() == self.limit {
            return Err(too_long(self.limit as u64 + 1, self.limit));
        }
        self.pairs.push((offset, length));
        Ok(())
    }

    /// Takes the pairs of a header or of a block after it, up to the first that is not used.
    pub(super) fn push_old(&mut self, area: &[u8]) -> Result<(), TarError> {
        for pair in area.chunks_exact(24).take_while(|pair| pair[0] != 0) {
            let offset = header::unsigned_number("offset in a sparse file", &pair[..12])?;
            let length = header::unsigned_number("length in a sparse file", &pair[12..])?;
            self.push(offset, length)?;
        }
        Ok(())
    }

    /// Checks the map against the size of the file and of the data that follow.
    pub(super) fn finish(self, size: u64, data: u64) -> Result<Sparse, TarError> {
        let mut end = 0;
        let mut sum = 0;
        for &(offset, length) in &self.pairs {
            if offset < end {
                return Err(TarError::Sparse("has pieces out of order"));
            }
            end = offset.checked_add(length).filter(|&e| e <= size).ok_or(TarError::Sparse("goes beyond the end of the file"))?;
            // No overflow: pieces that do not overlap are together no longer than the file.
            sum += length;
        }
        if sum != data {
            return Err(TarError::Sparse("does not cover as many bytes as follow"));
        }
        Ok(Sparse { size, map: self.pairs })
    }
}

fn too_long(found: u64, limit: usize) -> TarError {
    TarError::Limit { what: "number of pieces of a sparse file", found, limit: limit as u64 }
}

/// The 21 pairs of a block that continues the map of an old GNU header.
pub(super) const CONTINUED: std::ops::Range<usize> = 0..504;
/// Not zero in such a block when another one follows.
pub(super) const CONTINUED_MORE: usize = 504;

/// What the records of a PAX header say about a sparse file.
#[derive(Debug)]
pub(super) enum Stated {
    /// The whole map (0.0 and 0.1), and the size of the file.
    Map(Map, u64),
    /// The size of the file; the map begins the payload (1.0).
    InPayload(u64),
}

/// Finds out whether and how records describe a sparse file, by the rules of Go.
pub(super) fn stated(records: &[Record], limit: usize) -> Result<Option<Stated>, TarError> {
    if !records.iter().any(|(key, _)| key.starts_with(b"GNU.sparse.")) {
        return Ok(None);
    }
    let version = (pax::value(records, "GNU.sparse.major"), pax::value(records, "GNU.sparse.minor"));
    let size = match pax::number(records, "GNU.sparse.size")? {
        Some(size) => size,
        None => pax::number(records, "GNU.sparse.realsize")?.ok_or(TarError::Sparse("comes without the size of the file"))?,
    };
    match version {
        (None, None) | (Some(b"0"), Some(b"0" | b"1")) => Ok(Some(Stated::Map(map_of_records(records, limit)?, size))),
        (Some(b"1"), Some(b"0")) => Ok(Some(Stated::InPayload(size))),
        _ => Err(TarError::Sparse("has an unknown version, expected 0.0, 0.1 or 1.0")),
    }
}

fn map_of_records(records: &[Record], limit: usize) -> Result<Map, TarError> {
    let mut map = Map::new(limit);
    let mut offset = None;
    let mut pair = |is_length: bool, text: &[u8]| {
        let number = decimal(text).ok_or(TarError::Sparse("holds what is no decimal number"))?;
        match (offset.take(), is_length) {
            (None, false) => offset = Some(number),
            (Some(offset), true) => map.push(offset, number)?,
            _ => return Err(TarError::Sparse("does not alternate between offsets and lengths")),
        }
        Ok(())
    };
    if let Some(text) = pax::value(records, "GNU.sparse.map") {
        for (at, number) in text.split(|&b| b == b',').enumerate() {
            pair(at % 2 == 1, number)?;
        }
    } else {
        for (key, value) in records {
            match key.as_slice() {
                b"GNU.sparse.offset" => pair(false, value)?,
                b"GNU.sparse.numbytes" => pair(true, value)?,
                _ => {}
            }
        }
    }
    if offset.is_some() {
        return Err(TarError::Sparse("ends in an offset, expected a length after it"));
    }
    match pax::number(records, "GNU.sparse.numblocks")? {
        Some(count) if count != map.pairs.len() as u64 => Err(TarError::Sparse("has another number of pieces than stated")),
        _ => Ok(map),
    }
}

/// Reads the map at the beginning of a payload (PAX 1.0), a block at a time.
#[derive(Debug)]
pub(super) struct PayloadMap {
    map: Map,
    /// How many pieces the first line promises.
    count: Option<u64>,
    offset: Option<u64>,
    /// The number being read, and whether it has a digit yet.
    number: Option<u64>,
    /// Blocks read so far.
    pub(super) blocks: u64,
}

impl PayloadMap {
    pub(super) fn new(limit: usize) -> Self {
        Self { map: Map::new(limit), count: None, offset: None, number: None, blocks: 0 }
    }

    /// Takes a block; true when the map is complete.
    pub(super) fn take(&mut self, block: &[u8; BLOCK]) -> Result<bool, TarError> {
        self.blocks += 1;
        for &byte in block {
            if byte.is_ascii_digit() {
                let shifted = self.number.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(u64::from(byte - b'0')));
                self.number = Some(shifted.ok_or(TarError::Sparse("holds a number of over 64 bits"))?);
                continue;
            }
            let number = self.number.take().filter(|_| byte == b'\n').ok_or(TarError::Sparse("holds what is no decimal line"))?;
            if self.line(number)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn line(&mut self, number: u64) -> Result<bool, TarError> {
        match (self.count, self.offset.take()) {
            (None, _) if number > self.map.limit as u64 => return Err(too_long(number, self.map.limit)),
            (None, _) => self.count = Some(number),
            (Some(_), None) => self.offset = Some(number),
            (Some(_), Some(offset)) => self.map.push(offset, number)?,
        }
        Ok(self.count == Some(self.map.pairs.len() as u64) && self.offset.is_none())
    }

    /// The map, once it is complete.
    pub(super) fn into_map(self) -> Map {
        self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(pairs: &[(&str, &str)]) -> Vec<Record> {
        pairs.iter().map(|(k, v)| (format!("GNU.sparse.{k}").into_bytes(), v.as_bytes().to_vec())).collect()
    }

    fn map(pairs: &[(&str, &str)], data: u64) -> Result<Sparse, TarError> {
        match stated(&records(pairs), 4)?.unwrap() {
            Stated::Map(map, size) => map.finish(size, data),
            Stated::InPayload(_) => panic!("not in the payload"),
        }
    }

    #[test]
    fn reads_maps_of_records() {
        let expected = Ok(Sparse { size: 100, map: vec![(10, 5), (90, 10)] });
        let old = [("size", "100"), ("numblocks", "2"), ("offset", "10"), ("numbytes", "5"), ("offset", "90"), ("numbytes", "10")];
        assert_eq!(map(&old, 15), expected);
        assert_eq!(map(&[("size", "100"), ("map", "10,5,90,10")], 15), expected);
        assert_eq!(map(&[("major", "0"), ("minor", "1"), ("realsize", "100"), ("map", "10,5,90,10")], 15), expected);
        assert!(stated(&[], 4).unwrap().is_none());
    }

    #[test]
    fn refuses_bad_maps() {
        let long = "0,1,2,1,4,1,6,1,8,1";
        for (pairs, data) in [
            (&[("size", "100"), ("map", "10,5,90,10")][..], 14),
            (&[("size", "99"), ("map", "10,5,90,10")], 15),
            (&[("map", "10,5")], 5),
            (&[("size", "100"), ("map", "10,5,90")], 5),
            (&[("size", "100"), ("map", "10,5,12,1")], 6),
            (&[("size", "100"), ("map", "10,-5")], 0),
            (&[("size", "100"), ("map", "18446744073709551615,1")], 1),
            (&[("size", "-1"), ("map", "0,0")], 0),
            (&[("size", "100"), ("map", "10,5"), ("numblocks", "2")], 5),
            (&[("size", "100"), ("numbytes", "5"), ("offset", "10")], 5),
            (&[("size", "100"), ("map", long)], 5),
            (&[("size", "100"), ("major", "2"), ("minor", "0")], 0),
        ] {
            assert!(map(pairs, data).is_err(), "{pairs:?}");
        }
    }

    fn payload(text: &str) -> Result<Option<Map>, TarError> {
        let mut reader = PayloadMap::new(40);
        for chunk in text.as_bytes().chunks(BLOCK) {
            let mut block = [0; BLOCK];
            block[..chunk.len()].copy_from_slice(chunk);
            if reader.take(&block)? {
                return Ok(Some(reader.into_map()));
            }
        }
        Ok(None)
    }

    #[test]
    fn reads_maps_in_payloads() {
        assert_eq!(payload("0\n").unwrap().unwrap().finish(7, 0).unwrap().map, []);
        assert_eq!(payload("2\n1\n2\n5\n1\n").unwrap().unwrap().finish(7, 3).unwrap().map, [(1, 2), (5, 1)]);
        let lines: String = (0..40).map(|n| format!("{}\n1\n", n * 1_000_000_000_000_u64)).collect();
        assert_eq!(payload(&format!("40\n{lines}")).unwrap().unwrap().pairs.len(), 40);
        assert!(matches!(payload("41\n"), Err(TarError::Limit { found: 41, .. })));
        for bad in ["\n", "x\n", "-1\n", "1 \n", "99999999999999999999\n", "1\n0"] {
            assert!(payload(bad).is_err(), "{bad:?}");
        }
    }
}

//! Small pieces of engines' stores, made by hand: bbolt databases and tar-split streams.

use crate::tar;

/// What a key of a bucket leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Some bytes.
    Bytes(Vec<u8>),
    /// A bucket, in the order of its keys.
    Bucket(Vec<(Vec<u8>, Self)>),
}

/// Makes a value.
pub fn bytes(key: &str, value: impl AsRef<[u8]>) -> (Vec<u8>, Item) {
    (key.into(), Item::Bytes(value.as_ref().to_vec()))
}

/// Makes a bucket.
pub fn bucket(key: &str, items: Vec<(Vec<u8>, Item)>) -> (Vec<u8>, Item) {
    (key.into(), Item::Bucket(items))
}

/// A bbolt database.
#[derive(Debug)]
pub struct Bolt {
    /// Bytes of a page.
    pub page: usize,
    /// Keys on one page.
    pub fan: usize,
    /// Bytes up to which a bucket lies within its parent.
    pub inline: usize,
}

impl Bolt {
    /// Writes a database that holds `items`, as of transaction 7; the other meta page is of transaction 6 and leads nowhere.
    pub fn write(&self, items: &[(Vec<u8>, Item)]) -> Vec<u8> {
        // Two meta pages, an empty list of free pages, and one that nobody uses.
        let mut file = vec![0; self.page * 4];
        let root = self.tree(items, &mut file);
        for (at, transaction, root) in [(0, 6, u64::MAX), (1, 7, root)] {
            let mut meta = Vec::new();
            meta.extend(0xED0C_DAED_u32.to_ne_bytes());
            meta.extend(2_u32.to_ne_bytes());
            meta.extend(u32::try_from(self.page).unwrap().to_ne_bytes());
            meta.extend(0_u32.to_ne_bytes());
            for number in [root, 0, 2, (file.len() / self.page) as u64, transaction] {
                meta.extend(number.to_ne_bytes());
            }
            let sum = meta.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
            meta.extend(sum.to_ne_bytes());
            let page = [header(at, 4, 0, 0), meta].concat();
            file[usize::try_from(at).unwrap() * self.page..][..page.len()].copy_from_slice(&page);
        }
        file
    }

    /// Writes the pages of a bucket and gives the top one.
    fn tree(&self, items: &[(Vec<u8>, Item)], file: &mut Vec<u8>) -> u64 {
        let leaves: Vec<_> = items.chunks(self.fan).map(|part| (part.first().map(|(key, _)| key.clone()), self.leaf(part, file))).collect();
        let mut level: Vec<(Vec<u8>, u64)> =
            leaves.into_iter().map(|(key, page)| (key.unwrap_or_default(), self.put(2, &page.0, page.1, file))).collect();
        if level.is_empty() {
            return self.put(2, &[], 0, file);
        }
        while level.len() > 1 {
            level = level
                .chunks(self.fan.max(2))
                .map(|part| {
                    let elements: Vec<_> = part.iter().map(|(key, page)| (key.clone(), Vec::new(), page.to_ne_bytes().to_vec())).collect();
                    (
                        part[0].0.clone(),
                        self.put(
                            1,
                            &pack(&elements, |_, position, key, _, more| {
                                [position.to_ne_bytes().to_vec(), key.to_ne_bytes().to_vec(), more.to_vec()].concat()
                            }),
                            part.len(),
                            file,
                        ),
                    )
                })
                .collect();
        }
        level[0].1
    }

    /// The elements of a leaf, and how many there are.
    fn leaf(&self, items: &[(Vec<u8>, Item)], file: &mut Vec<u8>) -> (Vec<u8>, usize) {
        let elements: Vec<_> = items
            .iter()
            .map(|(key, item)| match item {
                Item::Bytes(value) => (key.clone(), value.clone(), vec![0]),
                Item::Bucket(inner) => {
                    let mut scratch = Vec::new();
                    let only_bytes = inner.iter().all(|(_, item)| matches!(item, Item::Bytes(_)));
                    let (packed, count) = if only_bytes { self.leaf(inner, &mut scratch) } else { (Vec::new(), 0) };
                    let value = if only_bytes && packed.len() <= self.inline {
                        [vec![0; 16], header(0, 2, count, 0), packed].concat()
                    } else {
                        [self.tree(inner, file).to_ne_bytes(), [0; 8]].concat()
                    };
                    (key.clone(), value, vec![1])
                }
            })
            .collect();
        let packed = pack(&elements, |_, position, key, value, more| {
            [u32::from(more[0]), position, key, value].iter().flat_map(|number| number.to_ne_bytes()).collect()
        });
        (packed, items.len())
    }

    /// Adds a page with what overflows, and gives its number.
    fn put(&self, flags: u16, body: &[u8], count: usize, file: &mut Vec<u8>) -> u64 {
        let id = (file.len() / self.page) as u64;
        let pages = (16 + body.len()).div_ceil(self.page);
        file.extend(header(id, flags, count, pages - 1));
        file.extend(body);
        file.resize((usize::try_from(id).unwrap() + pages) * self.page, 0);
        id
    }
}

fn header(id: u64, flags: u16, count: usize, overflow: usize) -> Vec<u8> {
    let mut header = id.to_ne_bytes().to_vec();
    header.extend(flags.to_ne_bytes());
    header.extend(u16::try_from(count).unwrap().to_ne_bytes());
    header.extend(u32::try_from(overflow).unwrap().to_ne_bytes());
    header
}

/// Elements of 16 bytes and what they lead to behind them.
fn pack(elements: &[(Vec<u8>, Vec<u8>, Vec<u8>)], element: impl Fn(usize, u32, u32, u32, &[u8]) -> Vec<u8>) -> Vec<u8> {
    let (mut heads, mut data) = (Vec::new(), Vec::<u8>::new());
    for (at, (key, value, more)) in elements.iter().enumerate() {
        let position = (elements.len() - at) * 16 + data.len();
        let number = |number: usize| u32::try_from(number).unwrap();
        heads.extend(element(at, number(position), number(key.len()), number(value.len()), more));
        data.extend(key);
        data.extend(value);
    }
    heads.extend(data);
    heads
}

/// Names of files and their contents.
pub type Files = Vec<(Vec<u8>, Vec<u8>)>;

/// The lines that tar-split keeps of a tar, plain, and the files whose contents it leaves out.
pub fn tar_split(archive: &[u8]) -> (Vec<u8>, Files) {
    let (mut lines, mut files, mut position) = (Vec::new(), Vec::new(), 0);
    let mut line = |fields: String| {
        lines.extend(format!("{{{fields},\"position\":{position}}}\n").into_bytes());
        position += 1;
    };
    let (mut start, mut at) = (0, 0);
    for member in tar::read(archive) {
        // Headers that belong to the member come first.
        while matches!(archive[at + 156], b'L' | b'K' | b'x' | b'g') {
            let size = std::str::from_utf8(&archive[at + 124..at + 135]).unwrap();
            at += 512 + usize::from_str_radix(size, 8).unwrap().next_multiple_of(512);
        }
        at += 512;
        line(format!("\"type\":2,\"payload\":\"{}\"", base64(&archive[start..at])));
        start = at;
        let name = match std::str::from_utf8(&member.name) {
            Ok(name) => format!("\"name\":{}", serde_json::Value::from(name)),
            Err(_) => format!("\"name_raw\":\"{}\"", base64(&member.name)),
        };
        if member.data.is_empty() {
            line(format!("\"type\":1,{name},\"payload\":null"));
        } else {
            line(format!("\"type\":1,{name},\"size\":{},\"payload\":\"AAAAAAAAAAA=\"", member.data.len()));
            start += member.data.len();
            at = start.next_multiple_of(512);
            files.push((member.name, member.data));
        }
    }
    line(format!("\"type\":2,\"payload\":\"{}\"", base64(&archive[start..])));
    (lines, files)
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=group.len()].copy_from_slice(group);
        let word = u32::from_be_bytes(word);
        let letter = |at: usize| char::from(ALPHABET[(word >> (18 - 6 * at)) as usize & 63]);
        text.extend((0..4).map(|at| if at <= group.len() { letter(at) } else { '=' }));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_as_the_rfc_has_it() {
        assert_eq!(["", "f", "fo", "foo", "foobar"].map(|text| super::base64(text.as_bytes())), ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYmFy"]);
    }
}

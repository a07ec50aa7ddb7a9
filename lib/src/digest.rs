//! Digests of bytes: parsing, printing and computing them.
//!
//! [`Digest`] names stored bytes, [`DiffId`] a layer's uncompressed tar, and they are different types so that one is never taken for the
//! other. The grammar is that of the [OCI image-spec], as strict as containers' go-digest: a known algorithm and its exact number of
//! lower-case hexadecimal digits.
//!
//! [OCI image-spec]: https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md#digests

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest as lc;
use thiserror::Error;

/// A digest algorithm that the OCI image-spec registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, what nearly every image uses.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The length of a digest in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// The digest of some bytes as stored, `sha256:…` or `sha512:…`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: [u8; 64],
}

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DigestError {
    /// There is no colon.
    #[error("{0:?} is not a digest (ALGORITHM:HEX)")]
    Form(String),
    /// The algorithm is none of ours.
    #[error("digest {0:?} has an unknown algorithm (known: sha256, sha512)")]
    Algorithm(String),
    /// The digits are too few, too many, upper case or none.
    #[error("digest {0:?} does not have {1} lower-case hexadecimal digits")]
    Digits(String, usize),
}

impl Digest {
    /// Digests `bytes` with SHA-256.
    pub fn of(bytes: &[u8]) -> Self {
        let mut digester = Digester::new(Algorithm::Sha256);
        digester.update(bytes);
        digester.finish()
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digits after the colon.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.raw().iter().fold(String::with_capacity(128), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
            hex
        })
    }

    /// The tag under which registries and layouts keep what refers to it: the algorithm and the digits, 64 at most (distribution-spec 1.1,
    /// "Referrers Tag Schema"). cosign's tags have `.sig`, `.att` or `.sbom` after it.
    pub(crate) fn referrers_tag(&self) -> String {
        format!("{}-{:.64}", self.algorithm().name(), self.hex())
    }

    /// Whether a tag is one by which something refers to a digest.
    pub(crate) fn is_referrers_tag(tag: &str) -> bool {
        let parts = tag.split('.').next().and_then(|tag| tag.split_once('-'));
        let is_digits = |digits: &str| digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        parts.is_some_and(|(algorithm, digits)| matches!(algorithm, "sha256" | "sha512") && is_digits(digits))
    }

    /// The first twelve digits, as engines show an image ID.
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }

    fn raw(&self) -> &[u8] {
        &self.bytes[..self.algorithm.size()]
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        // A name from outside may be long and odd; a message need not be.
        let shown = || text.chars().take(160).collect::<String>();
        let (name, hex) = text.split_once(':').ok_or_else(|| DigestError::Form(shown()))?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(DigestError::Algorithm(shown())),
        };
        let digits = || DigestError::Digits(shown(), algorithm.size() * 2);
        if hex.len() != algorithm.size() * 2 {
            return Err(digits());
        }
        let mut bytes = [0; 64];
        for (at, pair) in hex.as_bytes().chunks_exact(2).enumerate() {
            let nibble = |c: u8| match c {
                b'0'..=b'9' => Some(c - b'0'),
                b'a'..=b'f' => Some(c - b'a' + 10),
                _ => None,
            };
            let (Some(high), Some(low)) = (nibble(pair[0]), nibble(pair[1])) else { return Err(digits()) };
            bytes[at] = high << 4 | low;
        }
        Ok(Self { algorithm, bytes })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The digest of a layer's uncompressed tar.
///
/// The [image-spec](https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md#layer-diffid): "a layer DiffID is the digest over
/// the layer's uncompressed tar archive".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

impl DiffId {
    /// The chain ID of each layer of a stack, base first: what an engine knows it by.
    ///
    /// The [image-spec](https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md#layer-chainid): "ChainID(L₀|...|Lₙ₋₁|Lₙ) =
    /// Digest(ChainID(L₀|...|Lₙ₋₁) + " " + DiffID(Lₙ))".
    pub fn chains(stack: &[Self]) -> Vec<Digest> {
        let mut chains: Vec<Digest> = Vec::with_capacity(stack.len());
        for diff_id in stack {
            chains.push(chains.last().map_or(diff_id.0, |below| Digest::of(format!("{below} {diff_id}").as_bytes())));
        }
        chains
    }
}

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Computes one digest over bytes that come in pieces.
pub struct Digester {
    algorithm: Algorithm,
    context: lc::Context,
}

impl Digester {
    /// Starts over no bytes.
    pub fn new(algorithm: Algorithm) -> Self {
        let lc_algorithm = match algorithm {
            Algorithm::Sha256 => &lc::SHA256,
            Algorithm::Sha512 => &lc::SHA512,
        };
        Self { algorithm, context: lc::Context::new(lc_algorithm) }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of all bytes taken.
    pub fn finish(self) -> Digest {
        let mut bytes = [0; 64];
        let done = self.context.finish();
        bytes[..self.algorithm.size()].copy_from_slice(done.as_ref());
        Digest { algorithm: self.algorithm, bytes }
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digester").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn prints_what_it_parses() {
        assert_eq!(EMPTY.parse::<Digest>().unwrap().to_string(), EMPTY);
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        let long = format!("sha512:{}", "0f".repeat(64));
        assert_eq!(long.parse::<Digest>().unwrap().to_string(), long);
    }

    #[test]
    fn pieces_do_not_matter() {
        let mut digester = Digester::new(Algorithm::Sha256);
        digester.update(b"a");
        digester.update(b"");
        digester.update(b"bc");
        assert_eq!(digester.finish(), Digest::of(b"abc"));
    }

    #[test]
    fn refuses_everything_else() {
        let upper = EMPTY.to_uppercase().replace("SHA256", "sha256");
        for bad in
            ["", "sha256", "sha256:", ":e3b0", "md5:d41d8cd98f00b204e9800998ecf8427e", &EMPTY[..70], &upper, "sha256:../../etc/passwd"]
        {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        assert!(format!("{EMPTY}0").parse::<Digest>().is_err());
    }
}

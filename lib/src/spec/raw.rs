//! A document as the bytes it came in, beside its typed view.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::json::{self, JsonError, JsonLimits};
use super::view::{Json, SpecError};
use crate::digest::{Algorithm, Digest, Digester};

/// A typed view of a document.
pub trait Validate: DeserializeOwned {
    /// Reads the view, and checks what it means. Types whose errors should name the place read by hand.
    fn read(json: Json<'_>) -> Result<Self, SpecError> {
        let view: Self = json.typed()?;
        view.validate()?;
        Ok(view)
    }

    /// Checks what the types alone do not.
    fn validate(&self) -> Result<(), SpecError> {
        Ok(())
    }
}

/// JSON kept as the bytes it came in, with a typed view beside it. Never re-serialised unless edited; unknown keys survive an edit.
///
/// A clone shares the bytes and the view.
pub struct Raw<T> {
    bytes: Arc<[u8]>,
    digest: Digest,
    view: Arc<T>,
}

impl<T: Validate> Raw<T> {
    /// Checks that `bytes` are strict JSON within `limits`, and reads them.
    pub fn parse(bytes: impl Into<Arc<[u8]>>, limits: &JsonLimits) -> Result<Self, JsonError> {
        let bytes = bytes.into();
        json::check(&bytes, limits)?;
        let raw: &RawValue = serde_json::from_slice(&bytes).map_err(SpecError::new)?;
        let view = Arc::new(T::read(Json::of(raw))?);
        Ok(Self { digest: Digest::of(&bytes), view, bytes })
    }
}

impl<T> Raw<T> {
    /// The bytes, as they came.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, shared.
    pub fn shared(&self) -> Arc<[u8]> {
        Arc::clone(&self.bytes)
    }

    /// The digest of the bytes: SHA-256, unless another was asked for.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The number of bytes.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// What the bytes say.
    pub fn view(&self) -> &T {
        &self.view
    }

    /// The same document under a digest of another algorithm, for a descriptor that names it so.
    #[must_use]
    pub fn with_digest_algorithm(mut self, algorithm: Algorithm) -> Self {
        if self.digest.algorithm() != algorithm {
            let mut digester = Digester::new(algorithm);
            digester.update(&self.bytes);
            self.digest = digester.finish();
        }
        self
    }
}

impl<T> Clone for Raw<T> {
    fn clone(&self) -> Self {
        Self { bytes: Arc::clone(&self.bytes), digest: self.digest, view: Arc::clone(&self.view) }
    }
}

impl<T> Deref for Raw<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.view
    }
}

impl<T: fmt::Debug> fmt::Debug for Raw<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raw").field("digest", &self.digest).field("size", &self.bytes.len()).field("view", &self.view).finish()
    }
}

/// The same document: the same bytes.
impl<T> PartialEq for Raw<T> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<T> Eq for Raw<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    #[derive(Debug, serde::Deserialize)]
    struct Pair {
        a: u8,
    }

    impl Validate for Pair {
        fn validate(&self) -> Result<(), SpecError> {
            if self.a == 0 { Err(SpecError::new("zero").at_key("a")) } else { Ok(()) }
        }
    }

    #[test]
    fn keeps_its_bytes() {
        let limits = JsonLimits::manifest(&Limits::default());
        let text = b" {\"unknown\" : 1e3, \"a\":1}\n".to_vec();
        let raw = Raw::<Pair>::parse(text.clone(), &limits).unwrap();
        assert_eq!((raw.bytes(), raw.a, raw.view().a, raw.size()), (&text[..], 1, 1, 26));
        assert_eq!(*raw.digest(), Digest::of(&text));
        let long = raw.clone().with_digest_algorithm(Algorithm::Sha512);
        assert!(long.digest().to_string().starts_with("sha512:"));
        assert_eq!(long.with_digest_algorithm(Algorithm::Sha256).digest(), raw.digest());
    }

    #[test]
    fn refuses_by_grammar_by_type_and_by_meaning() {
        let limits = JsonLimits { bytes: 100, depth: 3 };
        let error = |text: &str| Raw::<Pair>::parse(text.as_bytes(), &limits).unwrap_err().to_string();
        assert_eq!(error("{\"a\":1"), "the JSON is malformed at line 1, column 7 (byte 6): expected ',' or '}', found the end");
        assert_eq!(error("{\"a\":\"1\"}"), "invalid type: string \"1\", expected a number at line 1 column 8");
        assert_eq!(error("{\"a\":0}"), "a: zero");
        assert_eq!(error("[[[[1]]]]"), "the JSON is nested over 3 deep at line 1, column 4 (byte 3)");
    }
}

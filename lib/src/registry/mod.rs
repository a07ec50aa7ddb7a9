//! Registries as sources and sinks: the [distribution-spec] 1.1 and Docker's registry API v2.
//!
//! ```text
//! credentials   who the caller is             auth      challenges and tokens
//! helper        programs that know passwords
//! login         whether they are right           tags      what a repository has
//! client        one registry: requests, refusals, what is tried again
//! source        manifests and configs at open, blobs by download (resumed)
//! sink          blobs by upload (skipped, mounted, whole, in chunks), manifests at commit
//! ```
//!
//! A registry is format and transport in one. What comes from it is verified like everything else; what is specific is distrust of the
//! line: anything may break off, be late, be repeated, or lead elsewhere.
//!
//! [distribution-spec]: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md

mod auth;
mod client;
mod credentials;
mod download;
mod helper;
mod login;
mod manifests;
mod referrers;
mod retry;
mod sink;
mod source;
mod tags;
mod upload;

pub use credentials::{Credential, CredentialFiles, Kept};
pub use login::login;
pub use tags::tags;

pub(crate) use sink::{RegistrySink, accepts};
pub(crate) use source::open;

use crate::http;

/// Blobs that are moved side by side, unless the caller says otherwise.
const PARALLEL: usize = 4;

/// How registries are reached, and as whom.
#[derive(Debug, Clone)]
pub struct Access {
    /// TLS, proxies, and how long connecting may take. How long nothing may happen is [`Limits::idle`](crate::limits::Limits::idle) of the
    /// operation, whatever is said here.
    pub http: http::Settings,
    /// Whether servers without TLS, or with a certificate that nobody vouches for, are taken.
    pub insecure: bool,
    /// The caller's credentials, which beat the files. Every registry that this access is used for may see them: it is the caller who knows
    /// that there is one alone.
    pub credential: Option<Credential>,
    /// Where credentials are looked for.
    pub files: CredentialFiles,
    /// Blobs that are moved side by side.
    pub parallel: usize,
}

impl Default for Access {
    fn default() -> Self {
        Self { http: http::Settings::default(), insecure: false, credential: None, files: CredentialFiles::default(), parallel: PARALLEL }
    }
}

//! Whether a registry takes credentials: its root, asked for with them.

use std::sync::Arc;

use super::auth::Scope;
use super::client::{Call, Client};
use super::{Access, Credential};
use crate::context::Context;
use crate::error::Result;
use crate::reference::Reference;

/// Bytes of the answer, which says nothing.
const ANSWER: u64 = 1 << 20;

/// Asks the registry that a reference is in whether credentials are right. They beat those that `access` has.
///
/// # Errors
/// When it refuses them, or cannot be reached.
pub fn login(registry: &Reference, credential: &Credential, access: &Arc<Access>, ctx: &Context) -> Result<()> {
    let access = match &access.credential {
        Some(known) if known == credential => Arc::clone(access),
        _ => Arc::new(Access { credential: Some(credential.clone()), ..Access::clone(access) }),
    };
    let client = Client::new(registry, &access, ctx);
    let answer = client.ask(&Call::get("/v2/", &Scope::default()), ANSWER)?;
    match answer.status() {
        200 => Ok(()),
        _ => Err(client.refusal(&answer)),
    }
}

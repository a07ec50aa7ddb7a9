//! What can be asked of a registry besides images: which tags a repository has, and whether credentials are right.

use std::collections::HashSet;
use std::sync::Arc;

use super::auth::{Scope, encode};
use super::client::{Call, Client};
use super::referrers::next_page;
use super::{Access, Credential};
use crate::context::Context;
use crate::error::{Context as _, Error, Result};
use crate::reference::Reference;
use crate::spec::Object;

/// Tags that one page is asked for.
const PAGE: &str = "1000";
/// Bytes of a page.
const PAGE_BYTES: u64 = 4 << 20;
/// Bytes of all tags together.
const ALL_BYTES: usize = 64 << 20;

/// The tags of a repository, in the order of the registry.
///
/// # Errors
/// When the registry cannot be reached, or refuses.
pub fn tags(repository: &Reference, access: &Arc<Access>, ctx: &Context) -> Result<Vec<String>> {
    let client = Client::new(repository, access, ctx);
    read(&client, repository.path()).context(|| format!("docker://{}", repository.familiar_repository()))
}

fn read(client: &Client, repository: &str) -> Result<Vec<String>> {
    let (mut path, scope) = (format!("/v2/{repository}/tags/list?{}", encode(&[("n", PAGE)])), Scope::pull(repository));
    let (mut tags, mut bytes): (Vec<String>, usize) = (Vec::new(), 0);
    let mut seen = HashSet::new();
    loop {
        let answer = client.ask(&Call::get(&path, &scope), PAGE_BYTES)?;
        if answer.status() != 200 {
            return Err(client.refusal(&answer));
        }
        let object = Object::parse(&answer.bytes).map_err(|error| Error::from(error).frame("the list of tags"))?;
        let page: Option<Option<Vec<String>>> =
            object.get("tags").map(|raw| serde_json::from_str(raw.get())).transpose().map_err(Error::invalid)?;
        let page = page.flatten().unwrap_or_default();
        bytes += page.iter().map(String::len).sum::<usize>();
        if bytes > ALL_BYTES {
            return Err(Error::limit(format_args!("it has more than {ALL_BYTES} bytes of tags")));
        }
        let before = tags.len();
        tags.extend(page.into_iter().filter(|tag| seen.insert(tag.clone())));
        match next_page(&answer)? {
            // A page that leads back to where it came from has nothing new.
            Some(next) if tags.len() > before => path = next,
            _ => return Ok(tags),
        }
    }
}

/// Asks a registry whether credentials are right.
///
/// # Errors
/// When it refuses them, or cannot be reached.
pub fn login(registry: &Reference, credential: &Credential, access: &Access, ctx: &Context) -> Result<()> {
    let access = Arc::new(Access { credential: Some(credential.clone()), ..access.clone() });
    let client = Client::new(registry, &access, ctx);
    let answer = client.ask(&Call::get("/v2/", &Scope::default()), PAGE_BYTES)?;
    match answer.status() {
        200 => Ok(()),
        _ => Err(client.refusal(&answer)),
    }
}

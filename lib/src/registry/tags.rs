//! Which tags a repository of a registry has.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::Access;
use super::auth::{Scope, encode};
use super::client::{Call, Client};
use super::referrers::next_page;
use crate::context::Context;
use crate::error::{Context as _, Error, Result};
use crate::reference::Reference;
use crate::spec::Object;

/// Tags that one page is asked for.
const PAGE: &str = "1000";
/// Bytes of a page.
const PAGE_BYTES: u64 = 4 << 20;
/// Bytes that all tags together may take in memory.
const ALL_BYTES: usize = 24 << 20;
/// Bytes that a tag takes beside its text: it is kept twice, to be listed and to be known again.
const BESIDE: usize = 128;
/// Pages of a list. Some registries give fifty tags at a time, whatever they are asked for.
const PAGES: usize = 10_000;

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
    for _ in 0..PAGES {
        let answer = client.ask(&Call::get(&path, &scope), PAGE_BYTES)?;
        if answer.status() != 200 {
            return Err(client.refusal(&answer));
        }
        let before = tags.len();
        for tag in page(&answer.bytes, &mut bytes)? {
            if seen.insert(tag.clone()) {
                tags.push(tag);
            }
        }
        match next_page(&answer)? {
            // A page that leads back to where it came from has nothing new.
            Some(next) if tags.len() > before => path = next,
            _ => return Ok(tags),
        }
    }
    Err(Error::limit(format_args!("the list of tags has more than {PAGES} pages")))
}

/// The tags of one page. `bytes` counts what all take.
fn page(answer: &[u8], bytes: &mut usize) -> Result<Vec<String>> {
    let object = Object::parse(answer).map_err(|error| Error::from(error).frame("the list of tags"))?;
    let Some(tags) = object.get("tags") else { return Ok(Vec::new()) };
    // Each as the text that it is, so that a million of empty ones are counted before they are made.
    let tags: Option<Vec<&RawValue>> = serde_json::from_str(tags.get()).map_err(Error::invalid)?;
    let tags = tags.unwrap_or_default();
    *bytes += tags.iter().map(|tag| tag.get().len() + BESIDE).sum::<usize>();
    if *bytes > ALL_BYTES {
        return Err(Error::limit(format_args!("it has more tags than fit into {ALL_BYTES} bytes")));
    }
    tags.into_iter().map(|tag| serde_json::from_str(tag.get()).map_err(Error::invalid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn pages_of_tags() {
        let mut bytes = 0;
        for (answer, tags) in [(r#"{"name":"a","tags":["1","\u0032"]}"#, vec!["1", "2"]), (r#"{"tags":null}"#, vec![]), ("{}", vec![])] {
            assert_eq!(page(answer.as_bytes(), &mut bytes).unwrap(), tags, "{answer}");
        }
        for answer in ["", "[]", r#"{"tags":{}}"#, r#"{"tags":[1]}"#, r#"{"tags":[null]}"#] {
            assert_eq!(page(answer.as_bytes(), &mut bytes).unwrap_err().kind(), ErrorKind::Invalid, "{answer}");
        }
    }

    #[test]
    fn what_tags_take_is_counted_before_they_are_made() {
        let many = format!(r#"{{"tags":[{}""]}}"#, r#""","#.repeat(1 << 20));
        assert_eq!(page(many.as_bytes(), &mut 0).unwrap_err().kind(), ErrorKind::Limit);
        let (one, mut bytes) = (format!(r#"{{"tags":["{}"]}}"#, "t".repeat(1 << 20)), 0);
        let pages = (0..100).take_while(|_| page(one.as_bytes(), &mut bytes).is_ok()).count();
        assert_eq!(pages, (ALL_BYTES >> 20) - 1);
    }
}

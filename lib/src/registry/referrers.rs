//! What refers to an image: signatures, SBOMs, attestations.
//!
//! Three ways to find it, and all are tried: the referrers API of the distribution-spec 1.1; where a registry lacks it, the tag
//! `sha256-<hex>`, under which clients keep the same index; and the tags of cosign, which end in `.sig`, `.att` and `.sbom`.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::auth::Scope;
use super::client::{Answer, Call, Client, To};
use super::manifests::{self, Fetched, fetch_if_there, media_type_of};
use crate::catalog::{Content, Name, Node, Root};
use crate::digest::Digest;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::http::Method;
use crate::reference::Reference;
use crate::spec::media::{DOCKER_LIST, OCI_INDEX};
use crate::spec::{Descriptor, Index, JsonLimits, Manifest, Object, Raw};
use crate::tree::{Opening, TreeReader};

/// Pages of a list of referrers.
const PAGES: usize = 100;

/// The tag by which a name leads to what refers to an image: `sha256-<hex>` with or without more after a dot. In a layout it may stand alone, as
/// any tag may, which reads like a repository.
pub(super) fn tag(name: &Reference) -> Option<&str> {
    let is_tag = |text: &&str| Digest::is_referrers_tag(text);
    name.tag().filter(is_tag).or_else(|| name.path().rsplit('/').next().filter(is_tag))
}

/// Adds what refers to what was read, and what refers to that.
pub(super) fn add(client: &Arc<Client>, reference: &Reference, reader: &mut TreeReader<'_>, opening: &Opening<'_>) -> Result<()> {
    let repository = reference.path();
    let mut asked = HashSet::new();
    let mut wanted: VecDeque<Digest> = VecDeque::new();
    for root in &reader.catalog.roots {
        collect(&reader.catalog, &root.node, &mut wanted);
    }
    let mut listed: HashSet<Digest> = wanted.iter().copied().collect();
    while let Some(digest) = wanted.pop_front() {
        if !asked.insert(digest) {
            continue;
        }
        let mut found: Vec<(Option<String>, Descriptor)> =
            list(client, repository, &digest, opening)?.into_iter().map(|descriptor| (None, descriptor)).collect();
        for suffix in [".sig", ".att", ".sbom"] {
            let tag = format!("{}{suffix}", digest.referrers_tag());
            if let Some(Fetched { media_type, digest, bytes }) = fetch_if_there(client, repository, &tag, opening.ctx.limits.manifest)? {
                found.push((Some(tag), Descriptor::new(media_type, digest, bytes.len() as u64)));
            }
        }
        for (tag, descriptor) in found {
            if !listed.insert(descriptor.digest) && tag.is_none() {
                continue;
            }
            let node = reader.node(&descriptor, 0).context(|| format!("what refers to {digest}"));
            let Some(node) = reader.tolerate(node)? else { continue };
            collect(&reader.catalog, &node, &mut wanted);
            let name = tag.and_then(|tag| reference.with_tag(&tag)).map(Name::Reference);
            reader.catalog.roots.push(Root { name, node });
        }
    }
    Ok(())
}

fn collect(catalog: &crate::catalog::Catalog, node: &Node, to: &mut VecDeque<Digest>) {
    to.extend(node.digest(catalog).copied().filter(|_| !matches!(node.content, Content::Unread)));
    if let Content::Index { nodes, .. } = &node.content {
        nodes.iter().for_each(|node| collect(catalog, node, to));
    }
}

/// What the registry lists as referring to a digest.
fn list(client: &Client, repository: &str, digest: &Digest, opening: &Opening<'_>) -> Result<Vec<Descriptor>> {
    let limit = opening.ctx.limits.manifest;
    let mut path = format!("/v2/{repository}/referrers/{digest}");
    let scope = Scope::pull(repository);
    let (mut found, mut bytes) = (Vec::new(), 0);
    for page in 0..PAGES {
        let answer = client.ask(&Call::get(&path, &scope).headers(&[("accept", OCI_INDEX)]), limit)?;
        // Older registries know no such thing: "a 404 means that the API is not supported".
        if answer.status() != 200 || !is_index(&answer.bytes) {
            if page > 0 || !matches!(answer.status(), 200 | 400 | 404 | 405 | 406) {
                return Err(client.refusal(&answer));
            }
            let Some(kept) = fetch_if_there(client, repository, &digest.referrers_tag(), limit)? else { return Ok(Vec::new()) };
            return Ok(index(kept.bytes, opening)?.manifests.clone());
        }
        let next = next_page(&answer)?;
        // All pages together are the index that a tag would lead to.
        bytes += answer.bytes.len() as u64;
        if bytes > limit {
            return Err(Error::limit(format_args!("the list of what refers to {digest} has more than {limit} bytes")));
        }
        found.extend(index(answer.bytes, opening)?.manifests.iter().cloned());
        match next {
            Some(next) => path = next,
            None => return Ok(found),
        }
    }
    Err(Error::limit(format_args!("the list of what refers to {digest} has more than {PAGES} pages")))
}

/// The target of the link whose relation is `next`, of a header that may have several.
fn next_link(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        let (target, after) = rest.split_once('<')?.1.split_once('>')?;
        let parameters = after.split('<').next().unwrap_or_default();
        if parameters.replace([' ', '"'], "").split([';', ',']).any(|parameter| parameter.eq_ignore_ascii_case("rel=next")) {
            return Some(target);
        }
        rest = after;
    }
}

fn is_index(bytes: &[u8]) -> bool {
    media_type_of(bytes) == OCI_INDEX
}

fn index(bytes: Vec<u8>, opening: &Opening<'_>) -> Result<Raw<Index>> {
    Raw::parse(bytes, &JsonLimits::manifest(&opening.ctx.limits)).map_err(|error| Error::from(error).frame("the list of referrers"))
}

/// Where a list goes on: `Link: </v2/…>; rel="next"` (RFC 8288), perhaps among others. It stays with the registry.
pub(super) fn next_page(answer: &Answer) -> Result<Option<String>> {
    let Some(target) = answer.head.headers("link").find_map(next_link) else { return Ok(None) };
    let next = answer.url.join(target)?;
    if next.origin() != answer.url.origin() {
        return Err(Error::new(ErrorKind::Denied, format!("the next page is on {}", next.authority())).frame(answer.url.authority()));
    }
    Ok(Some(next.path_and_query().to_owned()))
}

/// Notes in the index under the fallback tag that a manifest refers to another, for a registry that does not note that itself: "If the
/// registry does not return the OCI-Subject header, the client MUST … update the referrers tag".
pub(super) fn note(client: &Client, repository: &str, manifest: &[u8], digest: &Digest, limits: &crate::limits::Limits) -> Result<()> {
    let Some((subject, entry)) = describe(manifest, digest, limits)? else { return Ok(()) };
    // One that has the API answers, and needs no tag.
    let (path, scope) = (format!("/v2/{repository}/referrers/{subject}"), Scope::push(repository));
    let answer = client.ask(&Call::new(Method::Get, To::Path(&path), &scope), limits.manifest)?;
    if answer.status() == 200 && is_index(&answer.bytes) {
        return Ok(());
    }
    let tag = subject.referrers_tag();
    let mut index = match fetch_if_there(client, repository, &tag, limits.manifest)? {
        Some(kept) => Object::parse(&kept.bytes)?,
        None => {
            let mut new = Object::new();
            new.set("schemaVersion", 2).set("mediaType", OCI_INDEX);
            new
        }
    };
    let listed = index.get("manifests").and_then(|raw| serde_json::from_str::<Vec<serde_json::Value>>(raw.get()).ok());
    let mut listed = listed.unwrap_or_default();
    let text = digest.to_string();
    if listed.iter().any(|listed| listed.get("digest").and_then(|digest| digest.as_str()) == Some(&text)) {
        return Ok(());
    }
    listed.push(serde_json::from_slice(&entry.to_vec()).map_err(Error::invalid)?);
    index.set("manifests", listed);
    let bytes = index.to_vec();
    manifests::put(client, repository, &tag, &bytes, &Digest::of(&bytes)).map(drop)
}

/// What a manifest refers to, and how the index lists it: with its type and annotations.
fn describe(manifest: &[u8], digest: &Digest, limits: &crate::limits::Limits) -> Result<Option<(Digest, Object)>> {
    let json = JsonLimits::manifest(limits);
    let media_type = media_type_of(manifest);
    let (subject, artifact_type, annotations) = if matches!(media_type.as_str(), OCI_INDEX | DOCKER_LIST) {
        let index = Raw::<Index>::parse(manifest.to_vec(), &json).map_err(Error::from)?;
        (index.subject.clone(), index.artifact_type.clone(), index.annotations.clone())
    } else {
        let parsed = Raw::<Manifest>::parse(manifest.to_vec(), &json).map_err(Error::from)?;
        let kind = parsed.artifact_type.clone().or_else(|| Some(parsed.config.media_type.clone()));
        (parsed.subject.clone(), kind, parsed.annotations.clone())
    };
    let Some(subject) = subject else { return Ok(None) };
    let mut entry = Descriptor::new(media_type, *digest, manifest.len() as u64).edit();
    if let Some(kind) = artifact_type {
        entry.set("artifactType", kind);
    }
    if !annotations.is_empty() {
        entry.set("annotations", annotations);
    }
    Ok(Some((subject.digest, entry)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_the_one_that_is_called_so() {
        for (header, target) in [
            ("</v2/x?last=a>; rel=\"next\"", Some("/v2/x?last=a")),
            ("</v2/x?last=a,b>; rel=next", Some("/v2/x?last=a,b")),
            ("</first>; rel=\"prev\", </second>; title=\"x,y\"; rel=\"next\"", Some("/second")),
            ("</first>; rel=\"NEXT\", </second>; rel=\"prev\"", Some("/first")),
            ("</first>; rel=\"prev\"", None),
            ("</next>; rel=\"nextish\"", None),
            ("rel=\"next\"", None),
            ("<", None),
            ("", None),
        ] {
            assert_eq!(next_link(header), target, "{header}");
        }
    }

    #[test]
    fn tags_that_lead_to_what_refers_to_an_image() {
        let digest = format!("sha256-{}", "5a".repeat(32));
        let long: Digest = format!("sha512:{}", "5a".repeat(64)).parse().unwrap();
        assert_eq!(long.referrers_tag(), format!("sha512-{}", "5a".repeat(32)));
        for (name, expected) in [
            (format!("a.example/b:{digest}.sig"), Some(format!("{digest}.sig"))),
            (format!("a.example/b:{digest}"), Some(digest.clone())),
            (format!("a.example/b:{}", long.referrers_tag()), Some(long.referrers_tag())),
            (format!("{digest}.att"), Some(format!("{digest}.att"))),
            (format!("{digest}.att:latest"), Some(format!("{digest}.att"))),
            (format!("a.example/b:{digest}5"), None),
            ("a.example/b:sha256-5a.sig".to_owned(), None),
            ("a.example/b:1".to_owned(), None),
            ("sbom".to_owned(), None),
        ] {
            assert_eq!(tag(&Reference::parse(&name).unwrap()), expected.as_deref(), "{name}");
        }
    }
}

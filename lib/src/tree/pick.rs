//! Which images of a source are wanted, and what belongs to them.

use std::collections::BTreeMap;

use crate::catalog::{Catalog, Content, IMAGE_NAME, Name, Node, REF_NAME, Root, Wanted};
use crate::context::Context;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::near;
use crate::reference::Reference;
use crate::source::Pick;

/// How something is opened.
#[derive(Debug)]
pub struct Opening<'a> {
    /// Which image is wanted; all when absent.
    pub pick: Option<&'a Pick>,
    /// Which platforms of an index are read, where reading one costs a round trip; the others are left unread.
    pub wanted: &'a Wanted,
    /// Whether what refers to the wanted image (signatures, SBOMs, attestations) comes along.
    pub referrers: bool,
    /// Whether layers that an archive names and does not hold are left to the caller: another source may have them.
    pub missing_layers: bool,
    /// Whether to note what is wrong in [`Catalog::findings`] and go on, as far as that makes sense.
    pub keep_going: bool,
    /// The outside world.
    pub ctx: &'a Context,
}

impl Opening<'_> {
    /// Passes an error on, or notes it and goes on.
    pub(crate) fn tolerate<T>(&self, result: Result<T>, findings: &mut Vec<String>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if self.keep_going && error.kind() != ErrorKind::Cancelled => {
                findings.push(error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The name that a descriptor's annotations give: containerd's full name, or else OCI's ref.name.
pub(crate) fn annotated_name(annotations: &BTreeMap<String, String>) -> Option<Name> {
    let text = annotations.get(IMAGE_NAME).or_else(|| annotations.get(REF_NAME))?;
    Some(Name::from_annotation(text))
}

/// Whether `wanted` is the name: in its full or familiar form, or as one of the annotations has it.
pub(crate) fn name_matches(wanted: &str, name: Option<&Name>, annotations: &BTreeMap<String, String>) -> bool {
    let literal = [IMAGE_NAME, REF_NAME].iter().any(|key| annotations.get(*key).is_some_and(|text| text == wanted));
    literal || name.is_some_and(|name| is_called(name, wanted))
}

/// Whether `name` is what the caller calls `wanted`: the same reference, whichever form it is written in.
pub(crate) fn is_called(name: &Name, wanted: &str) -> bool {
    if let Name::Text(text) = name
        && text == wanted
    {
        return true;
    }
    match (name.reference(), Reference::parse(wanted)) {
        (Some(reference), Ok(wanted)) => reference == wanted.with_default_tag(),
        _ => false,
    }
}

/// Reduces the roots to what was picked and, if wanted, what refers to it; says what there is when that is nothing. `others` are roots that
/// were dropped already.
pub(crate) fn narrow(catalog: &mut Catalog, opening: &Opening<'_>, mut others: Vec<Root>) -> Result<()> {
    let all = catalog.roots.clone();
    pick(catalog, opening.pick)?;
    if opening.referrers && opening.pick.is_some() {
        let kept: Vec<_> = catalog.roots.iter().map(|root| (root.name.clone(), catalog.identity(&root.node))).collect();
        others.extend(all.into_iter().filter(|root| !kept.contains(&(root.name.clone(), catalog.identity(&root.node)))));
        add_referrers(catalog, others);
    }
    Ok(())
}

/// Adds those of `others` that refer to what is there, by subject or by a tag that begins with the digest (`sha256-<hex>`, as the
/// distribution-spec's fallback has it, or `sha256-<hex>.sig` and the like, as cosign does).
fn add_referrers(catalog: &mut Catalog, mut others: Vec<Root>) {
    loop {
        let mut digests = Vec::new();
        catalog.roots.iter().for_each(|root| collect_digests(catalog, &root.node, &mut digests));
        let tags: Vec<_> = digests.iter().map(Digest::referrers_tag).collect();
        let refers = |root: &Root| {
            let by_tag = |name: &Name| {
                let tag = match name {
                    Name::Text(text) => Some(text.as_str()),
                    Name::Reference(reference) => reference.tag(),
                };
                tag.is_some_and(|tag| {
                    tags.iter().any(|known| tag.strip_prefix(known.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
                })
            };
            root.node.subject(catalog).is_some_and(|subject| digests.contains(subject)) || root.name.as_ref().is_some_and(by_tag)
        };
        let (found, rest): (Vec<_>, Vec<_>) = others.into_iter().partition(refers);
        if found.is_empty() {
            return;
        }
        catalog.roots.extend(found);
        others = rest;
    }
}

fn collect_digests(catalog: &Catalog, node: &Node, digests: &mut Vec<Digest>) {
    digests.extend(node.digest(catalog).copied());
    if let Content::Index { nodes, .. } = &node.content {
        nodes.iter().for_each(|node| collect_digests(catalog, node, digests));
    }
}

/// Reduces the roots to what was picked.
fn pick(catalog: &mut Catalog, pick: Option<&Pick>) -> Result<()> {
    match pick {
        None => {}
        // Readers keep what matches; nothing left means that nothing matched.
        Some(Pick::Name(wanted)) => {
            if catalog.roots.is_empty() {
                return Err(not_found(&[], wanted));
            }
            let entries = catalog.entries().len();
            if entries > 1 {
                let digests = catalog.roots.iter().filter_map(|root| catalog.identity(&root.node)).map(|d| format!("@{d}"));
                let known = digests.collect::<Vec<_>>().join(", ");
                return Err(Error::invalid(format_args!("{entries} images are called {}", wanted.escape_debug()))
                    .hint(format_args!("choose one by its digest: {known}")));
            }
        }
        Some(Pick::Position(position)) => {
            let entries = catalog.entries();
            let Some(entry) = entries.get(*position) else {
                let error = not_found(&catalog.roots, &format!("@{position}"));
                return Err(if entries.is_empty() { error } else { error.hint(format_args!("there are @0 to @{}", entries.len() - 1)) });
            };
            catalog.roots = entry.iter().map(|root| (*root).clone()).collect();
        }
        Some(Pick::Digest(digest)) => {
            let mut kept: Vec<Root> = Vec::new();
            for root in &catalog.roots {
                if root.node.digest(catalog) == Some(digest) {
                    kept.push(root.clone());
                } else if let Some(node) = find(catalog, &root.node, digest) {
                    kept.push(Root { name: root.name.clone(), node });
                }
            }
            if kept.is_empty() {
                return Err(not_found(&catalog.roots, &format!("@{digest}")));
            }
            catalog.roots = kept;
        }
    }
    Ok(())
}

/// Says that an image is not there, and what is.
pub(crate) fn not_found(roots: &[Root], wanted: &str) -> Error {
    let mut names: Vec<_> = roots.iter().map(Root::to_string).collect();
    names.dedup();
    near::no_image(wanted, &names)
}

/// The node at or below `node` with this digest or image ID.
fn find(catalog: &Catalog, node: &Node, digest: &Digest) -> Option<Node> {
    let own = match &node.content {
        Content::Image(id) => catalog.image(*id).id() == digest,
        _ => false,
    };
    if own || node.digest(catalog) == Some(digest) {
        return Some(node.clone());
    }
    match &node.content {
        Content::Index { nodes, .. } => nodes.iter().find_map(|node| find(catalog, node, digest)),
        _ => None,
    }
}

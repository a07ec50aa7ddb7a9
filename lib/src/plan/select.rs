//! Which images of a catalog a destination gets: platforms, kinds and names that it can hold.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::convert::{ConvertOptions, NameChange, Platforms};
use crate::catalog::{self, ATTESTS, Candidate, Catalog, Content, ImageId, Name, Node, Root, list};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::sink::{Accepts, Names};
use crate::spec::Platform;

/// The roots that a destination gets, and what is to be said about it.
#[derive(Debug, Default)]
pub(super) struct Selected {
    pub(super) roots: Vec<Root>,
    pub(super) omitted: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// Chooses by platform, then drops what the destination cannot hold, then names.
pub(super) fn select(catalog: &Catalog, accepts: &Accepts, options: &ConvertOptions) -> Result<Selected> {
    let mut selected = Selected { notes: catalog.warnings.clone(), ..Selected::default() };
    for root in &catalog.roots {
        let node = by_platform(catalog, root, accepts, options, &mut selected).map_err(|e| e.frame(root))?;
        if holds_artifact_only(&node) && !accepts.artifacts {
            selected.omitted.push(format!("{root} is an artifact, and {} holds images only", accepts.format));
            continue;
        }
        selected.roots.push(Root { name: root.name.clone(), node });
    }
    if selected.roots.is_empty() {
        return Err(if catalog.roots.is_empty() {
            Error::not_found("it holds no image")
        } else {
            Error::unsupported(format_args!("there is nothing in it that {} can hold", accepts.format))
        });
    }
    rename(catalog, accepts, options, &mut selected)?;
    settle_names(catalog, accepts, &mut selected)?;
    if !accepts.several {
        let entries = selected.roots.iter().filter_map(|root| identity(catalog, accepts, &root.node)).collect::<BTreeSet<_>>().len();
        if entries > 1 {
            let names: Vec<_> = catalog.roots.iter().map(Root::to_string).collect();
            return Err(Error::unsupported(format_args!("{} holds one image or index, and {entries} are selected", accepts.format))
                .hint(format_args!("choose one with :REF; there are {}", names.join(", "))));
        }
        selected.roots.truncate(1);
    }
    Ok(selected)
}

/// What makes two nodes the same to a destination: without indexes, nothing but config and layers, whatever manifests list them.
fn identity(catalog: &Catalog, accepts: &Accepts, node: &Node) -> Option<Digest> {
    match &node.content {
        Content::Image(id) if !accepts.indexes => Some(*catalog.image(*id).id()),
        _ => catalog.identity(node),
    }
}

fn holds_artifact_only(node: &Node) -> bool {
    matches!(node.content, Content::Artifact { .. })
}

/// What of a root is wanted: all of it, some platforms, or one.
fn by_platform(catalog: &Catalog, root: &Root, accepts: &Accepts, options: &ConvertOptions, said: &mut Selected) -> Result<Node> {
    let node = &root.node;
    let Content::Index { .. } = node.content else {
        if let (Content::Image(id), Platforms::Only(wanted)) = (&node.content, &options.platforms) {
            let platform = catalog.image(*id).platform();
            if !wanted.iter().any(|wanted| platform.score(wanted).is_some()) {
                return Err(Error::not_found(format_args!("it is {platform}, not {}", list(wanted))));
            }
        }
        return Ok(node.clone());
    };
    let candidates = catalog.candidates(node);
    match &options.platforms {
        Platforms::Only(wanted) if accepts.indexes && wanted.len() > 1 => {
            // As for one platform: where there is none of exactly that name, the one that runs best on it.
            let exists = |wanted: &Platform| candidates.iter().any(|candidate| candidate.platform.matches(wanted));
            let chosen = wanted.iter().map(|wanted| match exists(wanted) {
                true => Ok(wanted.clone()),
                false => best(&candidates, wanted, node).map(|best| best.platform.clone()),
            });
            filter(catalog, node, &chosen.collect::<Result<Vec<_>>>()?)
        }
        Platforms::Only(wanted) => {
            let [wanted] = wanted.as_slice() else {
                return Err(Error::unsupported(format_args!("{} takes one platform an image", accepts.format)).hint("give --platform once"));
            };
            said.omitted.extend(root.lost_annotations());
            Ok(best(&candidates, wanted, node)?.node.clone())
        }
        Platforms::All | Platforms::Default if accepts.indexes => {
            complete(node)?;
            Ok(node.clone())
        }
        Platforms::All if candidates.len() > 1 => {
            let platforms: Vec<_> = candidates.iter().map(|candidate| candidate.platform.clone()).collect();
            Err(Error::unsupported(format_args!("{} takes one platform an image, and it has {}", accepts.format, list(&platforms)))
                .hint("choose one with --platform, or write an oci-archive"))
        }
        Platforms::All | Platforms::Default => {
            let chosen = match candidates.as_slice() {
                [] if Catalog::unread(node).is_empty() => return Err(Error::not_found("it is an index without any image")),
                [only] => only,
                several => {
                    let chosen = best(several, &options.host, node)?;
                    let all = several.iter().map(|c| &c.platform).chain(Catalog::unread(node));
                    let others: Vec<_> = all.filter(|platform| **platform != chosen.platform).cloned().collect();
                    // An index may list one platform, or one manifest, more than once.
                    let also = if others.is_empty() { "another of it".to_owned() } else { list(&others) };
                    let (format, platform) = (accepts.format, &chosen.platform);
                    said.notes.push(format!("{root}: took {platform}; {format} takes one platform an image, and there is also {also}"));
                    chosen
                }
            };
            let artifacts = count_artifacts(node);
            if artifacts > 0 {
                said.omitted.push(format!("{}: {artifacts} artifacts or attestations beside the image", root));
            }
            said.omitted.extend(root.lost_annotations());
            Ok(chosen.node.clone())
        }
    }
}

/// The image that runs best on `wanted`.
fn best<'a, 'b>(candidates: &'b [Candidate<'a>], wanted: &Platform, index: &Node) -> Result<&'b Candidate<'a>> {
    catalog::best(candidates, wanted).ok_or_else(|| {
        let known = list(candidates.iter().map(|candidate| &candidate.platform).chain(Catalog::unread(index)));
        let error = Error::not_found(format_args!("there is no image for {wanted}"));
        if known.is_empty() { error } else { error.hint(format_args!("choose with --platform; there are {known}")) }
    })
}

/// An index with some of its platforms, and the attestations that belong to them.
fn filter(catalog: &Catalog, node: &Node, wanted: &[Platform]) -> Result<Node> {
    let Content::Index { raw, nodes } = &node.content else { return Ok(node.clone()) };
    let chosen: Vec<&Node> = nodes
        .iter()
        .filter(|node| catalog.candidates(node).iter().any(|candidate| wanted.iter().any(|wanted| candidate.platform.matches(wanted))))
        .collect();
    let digests: Vec<String> = chosen.iter().filter_map(|node| node.digest(catalog).map(ToString::to_string)).collect();
    let keep = |node: &&Node| {
        let attests = node.descriptor.as_ref().and_then(|descriptor| descriptor.annotation(ATTESTS));
        chosen.iter().any(|chosen| std::ptr::eq(*chosen, *node)) || attests.is_some_and(|digest| digests.iter().any(|d| d == digest))
    };
    let nodes = nodes.iter().filter(keep).map(|node| filter(catalog, node, wanted)).collect::<Result<Arc<_>>>()?;
    let kept = Node { descriptor: node.descriptor.clone(), content: Content::Index { raw: raw.clone(), nodes } };
    complete(&kept)?;
    Ok(kept)
}

/// Refuses an index that lists what the source does not hold: its copy would be as broken.
fn complete(node: &Node) -> Result<()> {
    match (&node.content, &node.descriptor) {
        (Content::Index { nodes, .. }, _) => nodes.iter().try_for_each(complete),
        (Content::Unread, Some(descriptor)) => {
            let platform = descriptor.platform.as_ref().map_or_else(String::new, |platform| format!(" for {platform}"));
            Err(Error::not_found(format_args!("the index lists manifest {}{platform}, which is missing", descriptor.digest))
                .hint("choose what is there with --platform"))
        }
        _ => Ok(()),
    }
}

fn count_artifacts(node: &Node) -> usize {
    match &node.content {
        Content::Artifact { .. } => 1,
        Content::Index { nodes, .. } => nodes.iter().map(count_artifacts).sum(),
        Content::Image(_) | Content::Unread => 0,
    }
}

/// Applies `--tag` and the REF of a destination: they name one image.
fn rename(catalog: &Catalog, accepts: &Accepts, options: &ConvertOptions, selected: &mut Selected) -> Result<()> {
    let (references, keep) = match &options.names {
        NameChange::Keep => return Ok(()),
        NameChange::Add(references) if references.is_empty() => return Ok(()),
        NameChange::Add(references) => (references, true),
        NameChange::Replace(references) => (references, false),
    };
    // What refers to an image is not what is named, unless there is nothing else.
    let only_artifacts = selected.roots.iter().all(|root| holds_artifact_only(&root.node));
    let (mut images, others): (Vec<Root>, Vec<Root>) =
        selected.roots.drain(..).partition(|root| only_artifacts || !holds_artifact_only(&root.node));
    let identities: BTreeSet<_> = images.iter().filter_map(|root| identity(catalog, accepts, &root.node)).collect();
    let Some(first) = images.first().cloned().filter(|_| identities.len() == 1) else {
        let names: Vec<_> = images.iter().map(Root::to_string).collect();
        return Err(Error::invalid(format_args!("a new name is for one image, and {} are selected", identities.len()))
            .hint(format_args!("choose one with :REF; there are {}", names.join(", "))));
    };
    if !keep {
        images.clear();
    }
    images.retain(|root| root.name.is_some());
    images.extend(references.iter().map(|reference| Root { name: Some(Name::Reference(reference.clone())), node: first.node.clone() }));
    selected.roots = images;
    selected.roots.extend(others);
    Ok(())
}

/// Drops what is said twice and what the destination cannot say, and refuses one name for two images.
fn settle_names(catalog: &Catalog, accepts: &Accepts, selected: &mut Selected) -> Result<()> {
    let mut kept: Vec<Root> = Vec::new();
    let mut named = HashMap::new();
    let mut unnamed = HashSet::new();
    let mut lost: Vec<String> = Vec::new();
    for mut root in std::mem::take(&mut selected.roots) {
        let name = match (&root.name, accepts.names) {
            (None, _) | (_, Names::Any) => root.name.clone(),
            (Some(name), Names::None) => {
                lost.push(name.to_string());
                None
            }
            (Some(name), Names::Tagged) => {
                let reference = name.reference().filter(|reference| reference.digest().is_none());
                if reference.is_none() {
                    lost.push(name.to_string());
                }
                reference.map(Name::Reference)
            }
        };
        root.name = name;
        let Some(name) = &root.name else {
            if unnamed.insert(identity(catalog, accepts, &root.node)) {
                kept.push(root);
            }
            continue;
        };
        let at = *named.entry(name.clone()).or_insert(kept.len());
        let Some(before) = kept.get_mut(at) else {
            kept.push(root);
            continue;
        };
        let same = |one: &Root, other: &Root| identity(catalog, accepts, &one.node) == identity(catalog, accepts, &other.node);
        if unlisted(catalog, &root).is_none() && unlisted(catalog, before).is_some_and(|id| image(catalog, &root) == Some(id)) {
            // The same image from a source that has its manifest too.
            before.node = root.node;
        } else if !same(before, &root) && unlisted(catalog, &root).is_none_or(|id| image(catalog, before) != Some(id)) {
            return Err(Error::invalid(format_args!("two different images are called {root}"))
                .hint("choose one with :REF, or write one of them under another name with --tag first"));
        }
    }
    if !lost.is_empty() {
        lost.dedup();
        let what = if lost.len() == 1 { "the name" } else { "the names" };
        selected.omitted.push(format!("{what} {}, which {} cannot hold", lost.join(", "), accepts.format));
    }
    selected.roots = kept;
    Ok(())
}

/// The image ID of an image.
fn image(catalog: &Catalog, root: &Root) -> Option<Digest> {
    let Content::Image(id) = root.node.content else { return None };
    Some(*catalog.image(id).id())
}

/// The image ID of an image that has no manifest.
fn unlisted(catalog: &Catalog, root: &Root) -> Option<Digest> {
    image(catalog, root).filter(|_| root.node.digest(catalog).is_none())
}

/// The images at or below the selected roots, in order, each once.
pub(super) fn images(roots: &[Root]) -> Vec<ImageId> {
    let mut images = Vec::new();
    for id in roots.iter().flat_map(|root| root.node.images()) {
        if !images.contains(&id) {
            images.push(id);
        }
    }
    images
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use longshore_testkit::images::{Image, Layout, docker_archive};
    use serde_json::json;

    use super::*;
    use crate::error::ErrorKind;
    use crate::plan::{Plan, PlannedNode, convert};
    use crate::reference::Reference;
    use crate::testing::{accepts, app, layout};

    fn platform(text: &str) -> Platform {
        Platform::parse(text).unwrap()
    }

    fn plan(catalog: &Catalog, format: &str, options: &ConvertOptions) -> Result<Plan> {
        convert(catalog, &accepts(format), options)
    }

    fn options(platforms: Platforms) -> ConvertOptions {
        ConvertOptions { platforms, host: platform("linux/arm64"), ..ConvertOptions::default() }
    }

    fn said(result: Result<Plan>) -> String {
        let error = result.map(drop).unwrap_err();
        format!("{error} ({})", error.hint_text().unwrap_or("no hint"))
    }

    /// amd64, arm/v6, arm/v7 and arm64, an attestation of the first and one of the last.
    fn multi(dir: &Path) -> Catalog {
        let mut layout_of = Layout::new();
        let mut manifests: Vec<_> = ["linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64"]
            .iter()
            .map(|platform| layout_of.image(&app("").platform(platform)))
            .collect();
        for (at, attested) in [(0, "one"), (3, "four")] {
            let mut attestation = layout_of.artifact("application/vnd.in-toto+json", attested, None);
            attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
            attestation["annotations"] =
                json!({ "vnd.docker.reference.digest": manifests[at]["digest"], "vnd.docker.reference.type": "attestation-manifest" });
            manifests.push(attestation);
        }
        let index = layout_of.index(&manifests);
        layout_of.root(index, Some("a:1"));
        layout(dir, "multi", &layout_of).catalog().clone()
    }

    fn platforms(plan: &Plan) -> Vec<String> {
        plan.images.iter().map(|image| image.config.platform().to_string()).collect()
    }

    #[test]
    fn indexes_stay_whole_where_they_can() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = multi(dir.path());
        for format in ["oci", "oci-archive", "dir"] {
            for platforms in [Platforms::Default, Platforms::All] {
                let plan = plan(&catalog, format, &options(platforms)).unwrap();
                assert_eq!(plan.images.len(), 4, "{format}");
                let PlannedNode::Index { raw, nodes, .. } = &plan.roots[0].node else { panic!("an index") };
                assert_eq!((raw.manifests.len(), nodes.len()), (6, 6));
            }
        }
    }

    #[test]
    fn one_platform_is_chosen_where_one_fits() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = multi(dir.path());
        let chosen = plan(&catalog, "docker-archive", &options(Platforms::Default)).unwrap();
        assert_eq!(platforms(&chosen), ["linux/arm64"]);
        assert!(chosen.notes[0].starts_with("a:1: took linux/arm64; docker-archive takes one platform"), "{:?}", chosen.notes);
        assert!(chosen.omitted[0].contains("2 artifacts or attestations"), "{:?}", chosen.omitted);
        assert_eq!(chosen.names(0), ["a:1"]);
        let error = said(plan(&catalog, "docker-archive", &options(Platforms::All)));
        assert!(error.starts_with("a:1: docker-archive takes one platform an image, and it has linux/amd64, linux/arm/v6"), "{error}");
        let none = ConvertOptions { host: platform("linux/s390x"), ..ConvertOptions::default() };
        let error = said(plan(&catalog, "docker-archive", &none));
        assert!(error.contains("there is no image for linux/s390x (choose with --platform; there are linux/amd64"), "{error}");
        for (wanted, found) in [
            ("linux/arm/v7", "linux/arm/v7"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v8", "linux/arm/v7"),
            ("linux/aarch64", "linux/arm64"),
        ] {
            for format in ["docker-archive", "oci", "dir"] {
                let plan = plan(&catalog, format, &options(Platforms::Only(vec![platform(wanted)]))).unwrap();
                assert_eq!(platforms(&plan), [found], "{wanted} to {format}");
                assert!(matches!(plan.roots[0].node, PlannedNode::Image { .. }));
            }
        }
        assert_eq!(
            plan(&catalog, "oci", &options(Platforms::Only(vec![platform("linux/arm/v5")]))).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }

    #[test]
    fn what_an_index_says_is_missed_when_one_image_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let mut annotated = Layout::new();
        let manifests = ["linux/amd64", "linux/arm64"].map(|platform| annotated.image(&app("").platform(platform)));
        let mut index = json!({ "schemaVersion": 2, "mediaType": crate::spec::media::OCI_INDEX, "manifests": manifests });
        index["annotations"] = json!({ "team": "kitchen" });
        let mut listed = annotated.blob(crate::spec::media::OCI_INDEX, index.to_string().into_bytes());
        listed["annotations"] = json!({ "listed": "1" });
        annotated.root(listed, Some("a:1"));
        let catalog = layout(dir.path(), "in", &annotated).catalog().clone();
        let says = ["a:1: annotations of the index (listed, team), of which one image is taken"];
        assert_eq!(plan(&catalog, "docker-archive", &options(Platforms::Default)).unwrap().omitted, says);
        assert_eq!(plan(&catalog, "oci", &options(Platforms::Only(vec![platform("linux/amd64")]))).unwrap().omitted, says);
        assert!(plan(&catalog, "oci", &options(Platforms::Default)).unwrap().omitted.is_empty());
    }

    #[test]
    fn several_platforms_come_with_what_attests_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = multi(dir.path());
        let both = options(Platforms::Only(vec![platform("linux/amd64"), platform("linux/arm/v7")]));
        let filtered = plan(&catalog, "oci", &both).unwrap();
        assert_eq!(platforms(&filtered), ["linux/amd64", "linux/arm/v7"]);
        let PlannedNode::Index { nodes, .. } = &filtered.roots[0].node else { panic!("an index") };
        assert_eq!(nodes.len(), 3);
        assert!(matches!(nodes[2], PlannedNode::Artifact { .. }), "the attestation of the first");
        let older = options(Platforms::Only(vec![platform("linux/amd64"), platform("linux/arm/v8")]));
        assert_eq!(platforms(&plan(&catalog, "oci", &older).unwrap()), ["linux/amd64", "linux/arm/v7"], "what runs on arm/v8");
        assert!(said(plan(&catalog, "docker-archive", &both)).contains("give --platform once"));
        let error = said(plan(&catalog, "oci", &options(Platforms::Only(vec![platform("linux/amd64"), platform("linux/s390x")]))));
        assert!(error.contains("no image for linux/s390x"), "{error}");
    }

    #[test]
    fn an_image_that_is_no_index_must_be_of_the_platform() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = layout(dir.path(), "one", &Layout::of(&[app("a:1")])).catalog().clone();
        for runs in ["linux/amd64", "linux/amd64/v2"] {
            assert!(plan(&catalog, "oci", &options(Platforms::Only(vec![platform(runs)]))).is_ok(), "{runs}, as in an index");
        }
        assert!(plan(&catalog, "docker-archive", &options(Platforms::Default)).is_ok(), "what there is, whatever the host");
        let error = said(plan(&catalog, "oci", &options(Platforms::Only(vec![platform("linux/arm64")]))));
        assert!(error.starts_with("a:1: it is linux/amd64, not linux/arm64"), "{error}");
    }

    #[test]
    fn what_is_listed_but_missing_is_no_whole_index() {
        let dir = tempfile::tempdir().unwrap();
        let mut multi = Layout::new();
        let (here, missing) = (multi.image(&app("")), multi.image(&app("").platform("linux/arm64")));
        let index = multi.index(&[here, missing.clone()]);
        multi.root(index, Some("a:1"));
        multi
            .archive()
            .without(&format!("blobs/{}", missing["digest"].as_str().unwrap().replace(':', "/")))
            .write_dir(&dir.path().join("in"));
        let source = crate::testing::source(dir.path().join("in").to_str().unwrap()).unwrap();
        let error = said(plan(source.catalog(), "oci", &options(Platforms::Default)));
        assert!(error.contains("for linux/arm64, which is missing (choose what is there with --platform)"), "{error}");
        assert_eq!(
            platforms(&plan(source.catalog(), "oci", &options(Platforms::Only(vec![platform("linux/amd64")]))).unwrap()),
            ["linux/amd64"]
        );
        assert_eq!(platforms(&plan(source.catalog(), "docker-archive", &options(Platforms::Default)).unwrap()), ["linux/amd64"]);
    }

    fn named(names: NameChange) -> ConvertOptions {
        ConvertOptions { names, ..ConvertOptions::default() }
    }

    fn references(texts: &[&str]) -> Vec<Reference> {
        texts.iter().map(|text| Reference::parse(text).unwrap()).collect()
    }

    #[test]
    fn a_new_name_is_for_one_image() {
        let dir = tempfile::tempdir().unwrap();
        let one = layout(dir.path(), "one", &Layout::of(&[app("a:1").name("a:2")])).catalog().clone();
        let replaced = plan(&one, "docker-archive", &named(NameChange::Replace(references(&["b:1", "c:1"])))).unwrap();
        assert_eq!(replaced.names(0), ["b:1", "c:1"]);
        let added = plan(&one, "docker-archive", &named(NameChange::Add(references(&["b:1", "a:1"])))).unwrap();
        assert_eq!(added.names(0), ["a:1", "a:2", "b:1"]);
        assert_eq!(added.images[0].references, references(&["a:1", "a:2", "b:1"]));
        let two = layout(dir.path(), "two", &Layout::of(&[app("a:1"), app("b:1").platform("linux/arm64")])).catalog().clone();
        for change in [NameChange::Replace(references(&["c:1"])), NameChange::Add(references(&["c:1"]))] {
            let error = said(plan(&two, "docker-archive", &named(change)));
            assert!(
                error.contains("a new name is for one image, and 2 are selected (choose one with :REF; there are a:1, b:1)"),
                "{error}"
            );
        }
        assert!(plan(&two, "docker-archive", &named(NameChange::Add(Vec::new()))).is_ok());
    }

    #[test]
    fn one_image_of_two_sources_is_one_where_manifests_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = crate::testing::put(dir.path(), "in.tar", &docker_archive(&[app("a:1")]));
        let both =
            || crate::source::join(vec![crate::testing::source(&path).unwrap(), layout(dir.path(), "in", &Layout::of(&[app("a:1")]))]);
        let archive = plan(both().catalog(), "docker-archive", &ConvertOptions::default()).unwrap();
        assert_eq!((archive.images.len(), archive.names(0)), (1, vec!["a:1".to_owned()]));
        let renamed = plan(both().catalog(), "docker-archive", &named(NameChange::Replace(references(&["b:1"])))).unwrap();
        assert_eq!((renamed.images.len(), renamed.names(0)), (1, vec!["b:1".to_owned()]));
        // Where they do, the one that has a manifest is taken, whichever source comes first.
        for sources in [both(), {
            let first = layout(dir.path(), "again", &Layout::of(&[app("a:1")]));
            crate::source::join(vec![first, crate::testing::source(&path).unwrap()])
        }] {
            let layout = plan(sources.catalog(), "oci", &ConvertOptions::default()).unwrap();
            assert_eq!((layout.images.len(), layout.images[0].manifest.is_some()), (1, true));
        }
    }

    #[test]
    fn signatures_do_not_stand_in_the_way_of_a_new_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut signed = Layout::new();
        let image = signed.image(&app(""));
        let signature = signed.artifact("application/x", "s", Some(&image));
        signed.root(image, Some("a:1"));
        signed.root(signature, None);
        let catalog = layout(dir.path(), "in", &signed).catalog().clone();
        let plan = plan(&catalog, "oci", &named(NameChange::Replace(references(&["b:1"])))).unwrap();
        let names: Vec<_> = plan.roots.iter().map(|root| root.name.as_ref().map(Name::to_string)).collect();
        assert_eq!(names, [Some("b:1".to_owned()), None]);
    }

    #[test]
    fn names_that_a_format_cannot_hold() {
        let dir = tempfile::tempdir().unwrap();
        let mut odd = Layout::new();
        let image = odd.image(&app(""));
        for name in ["kitchen", "v1 beta", "a:1", "a:1"] {
            odd.root(image.clone(), Some(name));
        }
        let catalog = layout(dir.path(), "odd", &odd).catalog().clone();
        let archive = plan(&catalog, "docker-archive", &ConvertOptions::default()).unwrap();
        assert_eq!(archive.names(0), ["kitchen:latest", "a:1"]);
        assert_eq!(archive.omitted, ["the name v1 beta, which docker-archive cannot hold"]);
        assert_eq!(plan(&catalog, "oci", &ConvertOptions::default()).unwrap().names(0), ["kitchen", "v1 beta", "a:1"]);
        let bare = plan(&catalog, "dir", &ConvertOptions::default()).unwrap();
        assert_eq!((bare.roots.len(), bare.names(0).len()), (1, 0));
        assert_eq!(bare.omitted, ["the names kitchen, v1 beta, a:1, which dir cannot hold"]);
    }

    #[test]
    fn one_name_for_two_images_and_two_images_where_one_fits() {
        let dir = tempfile::tempdir().unwrap();
        let two = layout(dir.path(), "two", &Layout::of(&[app("a:1"), app("a:1").platform("linux/arm64")])).catalog().clone();
        let error = said(plan(&two, "oci", &ConvertOptions::default()));
        assert!(error.contains("two different images are called a:1"), "{error}");
        let two = layout(dir.path(), "others", &Layout::of(&[app("a:1"), Image::new("")])).catalog().clone();
        let error = said(plan(&two, "dir", &ConvertOptions::default()));
        assert!(
            error.contains("dir holds one image or index, and 2 are selected (choose one with :REF; there are a:1, @sha256:"),
            "{error}"
        );
        assert!(said(plan(&Catalog::default(), "oci", &ConvertOptions::default())).contains("it holds no image"));
    }

    #[test]
    fn artifacts_go_where_they_can() {
        let dir = tempfile::tempdir().unwrap();
        let mut only = Layout::new();
        let artifact = only.artifact("application/x", "chart", None);
        only.root(artifact, Some("chart:1"));
        let catalog = layout(dir.path(), "only", &only).catalog().clone();
        assert!(said(plan(&catalog, "docker-archive", &ConvertOptions::default())).contains("nothing in it that docker-archive can hold"));
        assert_eq!(plan(&catalog, "oci", &ConvertOptions::default()).unwrap().blobs.len(), 2);
        let image = only.image(&app(""));
        only.root(image, Some("a:1"));
        let catalog = layout(dir.path(), "both", &only).catalog().clone();
        let archive = plan(&catalog, "docker-archive", &ConvertOptions::default()).unwrap();
        assert_eq!(archive.omitted, ["chart:1 is an artifact, and docker-archive holds images only"]);
        assert_eq!((archive.roots.len(), archive.blobs.len()), (1, 2));
    }
}

//! Which images of a store are meant by a name, an ID or nothing.
//!
//! The rules are those of the engines: a name without a tag means `latest`, one without a registry is looked for as Docker and as podman do,
//! and an ID may be cut short.

use crate::catalog::Name;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::near;
use crate::reference::Reference;

/// Digits that an ID must have at least: those that engines show.
const ID: usize = 12;

/// One image of a store, as the store lists it.
#[derive(Debug, Clone, Default)]
pub(super) struct Listed {
    /// The digits of the image ID.
    pub(super) id: String,
    /// What it is called, digests included.
    pub(super) names: Vec<String>,
    /// Digests of its manifests.
    pub(super) digests: Vec<Digest>,
    /// Whether it is only of use to other images: not among all images.
    pub(super) hidden: bool,
}

impl Listed {
    /// The names that lead to it, those that are digests apart.
    fn all_names(&self) -> Vec<Name> {
        self.names.iter().filter_map(|name| as_name(name)).collect()
    }
}

/// One that was chosen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Its place among those listed.
    pub(super) at: usize,
    /// What it is to be called.
    pub(super) names: Vec<Name>,
}

/// The name that an archive can have; none for a digest.
fn as_name(text: &str) -> Option<Name> {
    if text.parse::<Digest>().is_ok() {
        return None;
    }
    match Reference::parse(text) {
        Ok(reference) if reference.digest().is_some() => None,
        Ok(reference) => Some(Name::Reference(reference.with_default_tag())),
        Err(_) => Some(Name::Text(text.to_owned())),
    }
}

/// The names of all images, as people write them.
pub(super) fn names(images: &[Listed]) -> Vec<String> {
    images.iter().flat_map(Listed::all_names).map(|name| name.to_string()).collect()
}

/// Chooses what `reference` means: all images when absent, `name[:tag]`, `name@digest`, an ID or its beginning, `@sha256:DIGEST` or `@POSITION`.
pub(super) fn choose(images: &[Listed], reference: Option<&str>) -> Result<Vec<Chosen>> {
    let whole = |at: usize| Chosen { at, names: images[at].all_names() };
    let Some(wanted) = reference else {
        return Ok((0..images.len()).filter(|at| !images[*at].hidden).map(whole).collect());
    };
    if let Some(position) = wanted.strip_prefix('@').and_then(|digits| digits.parse::<usize>().ok()) {
        let mut shown = (0..images.len()).filter(|at| !images[*at].hidden);
        return shown.nth(position).map(|at| vec![whole(at)]).ok_or_else(|| absent(images, wanted));
    }
    let named = by_name(images, wanted);
    if !named.is_empty() {
        return one(images, wanted, named);
    }
    let digest = wanted.trim_start_matches('@');
    one(images, wanted, by_id(images, digest).into_iter().map(whole).collect())
}

/// One image, or why it is none.
fn one(images: &[Listed], wanted: &str, mut found: Vec<Chosen>) -> Result<Vec<Chosen>> {
    match found.len() {
        0 => Err(absent(images, wanted)),
        1 => Ok(vec![found.remove(0)]),
        several => {
            let ids: Vec<_> = found.iter().map(|chosen| images[chosen.at].id.clone()).collect();
            Err(Error::invalid(format_args!("{several} images are called {}", wanted.escape_debug()))
                .hint(format_args!("choose one by its ID: {}", ids.join(", "))))
        }
    }
}

/// The images that a name leads to. The first way of reading it that leads to any is the one that counts.
fn by_name(images: &[Listed], wanted: &str) -> Vec<Chosen> {
    let literal = |name: &str| name == wanted;
    let found = collect(images, |_, name| literal(name));
    if !found.is_empty() {
        return found;
    }
    // containers-storage: takes NAME@ID, where the digits have no algorithm.
    if let Some((name, id)) = wanted.rsplit_once('@').filter(|(_, id)| is_id(id) && id.len() == 64) {
        let found = by_name(images, name);
        return found.into_iter().filter(|chosen| images[chosen.at].id == id).collect();
    }
    let Ok(reference) = Reference::parse(wanted) else { return Vec::new() };
    if let Some(digest) = reference.digest() {
        let repository = reference.repository();
        let same = |name: &str| Reference::parse(name).is_ok_and(|name| name.repository() == repository);
        let has = |image: &Listed, name: &str| {
            same(name) && (image.digests.contains(digest) || Reference::parse(name).is_ok_and(|name| name.digest() == Some(digest)))
        };
        let mut found = collect(images, has);
        // The image is meant, whatever it is called.
        found.iter_mut().for_each(|chosen| chosen.names.clear());
        return found;
    }
    let reference = reference.with_default_tag();
    let is = |reference: &Reference, name: &str| Reference::parse(name).is_ok_and(|name| name.with_default_tag() == *reference);
    let found = collect(images, |_, name| is(&reference, name));
    let has_registry = wanted.split_once('/').is_some_and(|(first, _)| first == "localhost" || first.contains(['.', ':']));
    if !found.is_empty() || has_registry {
        return found;
    }
    // podman names what it builds and loads `localhost/…`, and finds it without.
    if let Ok(local) = Reference::parse(&format!("localhost/{wanted}")) {
        let local = local.with_default_tag();
        let found = collect(images, |_, name| is(&local, name));
        if !found.is_empty() {
            return found;
        }
    }
    let path = reference.path().trim_start_matches("library/");
    collect(images, |_, name| {
        let Ok(name) = Reference::parse(name).map(Reference::with_default_tag) else { return false };
        name.digest().is_none() && name.path() == path && name.tag() == reference.tag()
    })
}

fn collect(images: &[Listed], is: impl Fn(&Listed, &str) -> bool) -> Vec<Chosen> {
    let chosen = images.iter().enumerate().filter_map(|(at, image)| {
        let names: Vec<_> = image.names.iter().filter(|name| is(image, name)).collect();
        (!names.is_empty()).then(|| Chosen { at, names: names.into_iter().filter_map(|name| as_name(name)).collect() })
    });
    chosen.collect()
}

/// The images with this ID or the beginning of it, or with a manifest of this digest.
fn by_id(images: &[Listed], wanted: &str) -> Vec<usize> {
    let digest = wanted.parse::<Digest>().ok();
    let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    let is = |image: &Listed| {
        let stated = digest.is_some_and(|digest| image.digests.contains(&digest));
        stated || (is_id(digits) && digits.len() >= ID && image.id.starts_with(digits))
    };
    images.iter().enumerate().filter(|(_, image)| is(image)).map(|(at, _)| at).collect()
}

fn is_id(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Says that an image is not there, and what is.
fn absent(images: &[Listed], wanted: &str) -> Error {
    near::no_image(wanted, &names(images))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "82a6aa2118d0b880bcc56a97c65b207d13df21cca09638eea00e4b2302fbdffc";
    const TWO: &str = "82a6aa2118d0c880bcc56a97c65b207d13df21cca09638eea00e4b2302fbdffc";
    const MANIFEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn images() -> Vec<Listed> {
        let image = |id: &str, names: &[&str], digests: &[&str], hidden| Listed {
            id: id.to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            digests: digests.iter().map(|digest| digest.parse().unwrap()).collect(),
            hidden,
        };
        vec![
            image(ONE, &["kitchen:1", "example.com/team/kitchen:latest"], &[], false),
            image(TWO, &["localhost/pantry:1", "docker.io/library/pantry:2"], &[MANIFEST], false),
            image(&"c".repeat(64), &[], &[], true),
            image(&"d".repeat(64), &[&format!("quay.io/a/cellar@{MANIFEST}"), "quay.io/a/cellar:1"], &[], false),
        ]
    }

    fn chosen(reference: Option<&str>) -> String {
        match choose(&images(), reference) {
            Ok(chosen) => {
                let shown =
                    |chosen: &Chosen| format!("{}:{}", chosen.at, chosen.names.iter().map(Name::to_string).collect::<Vec<_>>().join(","));
                chosen.iter().map(shown).collect::<Vec<_>>().join(" ")
            }
            Err(error) => format!("{error}{}", error.hint_text().map_or_else(String::new, |hint| format!(" ({hint})"))),
        }
    }

    #[test]
    fn references() {
        for (reference, expected) in [
            ("kitchen:1", "0:kitchen:1"),
            ("docker.io/library/kitchen:1", "0:kitchen:1"),
            ("example.com/team/kitchen", "0:example.com/team/kitchen:latest"),
            ("team/kitchen", "0:example.com/team/kitchen:latest"),
            ("pantry:1", "1:localhost/pantry:1"),
            ("pantry:2", "1:pantry:2"),
            ("a/cellar:1", "3:quay.io/a/cellar:1"),
            (&format!("quay.io/a/cellar@{MANIFEST}"), "3:"),
            (&format!("pantry@{MANIFEST}"), "1:"),
            (&format!("kitchen:1@{ONE}"), "0:kitchen:1"),
            (&format!("@{MANIFEST}"), "1:localhost/pantry:1,pantry:2"),
            (ONE, "0:kitchen:1,example.com/team/kitchen:latest"),
            (&format!("sha256:{ONE}"), "0:kitchen:1,example.com/team/kitchen:latest"),
            (&format!("@sha256:{TWO}"), "1:localhost/pantry:1,pantry:2"),
            ("82a6aa2118d0b", "0:kitchen:1,example.com/team/kitchen:latest"),
            ("cccccccccccc", "2:"),
            ("@1", "1:localhost/pantry:1,pantry:2"),
            ("@2", "3:quay.io/a/cellar:1"),
            ("82a6aa2118d0", &format!("2 images are called 82a6aa2118d0 (choose one by its ID: {ONE}, {TWO})")),
            (
                "82a6aa21",
                "there is no image 82a6aa21 (there are kitchen:1, example.com/team/kitchen:latest, localhost/pantry:1, pantry:2, quay.io/a/cellar:1)",
            ),
            ("kitchen:2", "there is no image kitchen:2 (did you mean kitchen:1 or example.com/team/kitchen:latest?)"),
            ("kichen", "there is no image kichen (did you mean example.com/team/kitchen:latest or kitchen:1?)"),
            (
                &format!("kitchen:1@{TWO}"),
                &format!("there is no image kitchen:1@{TWO} (did you mean kitchen:1 or example.com/team/kitchen:latest?)"),
            ),
            (
                "@3",
                "there is no image @3 (there are kitchen:1, example.com/team/kitchen:latest, localhost/pantry:1, pantry:2, quay.io/a/cellar:1)",
            ),
        ] {
            assert_eq!(chosen(Some(reference)), expected, "{reference}");
        }
        assert_eq!(chosen(None), "0:kitchen:1,example.com/team/kitchen:latest 1:localhost/pantry:1,pantry:2 3:quay.io/a/cellar:1");
    }
}

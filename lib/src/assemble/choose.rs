//! Which images of a source are meant.

use super::Options;
use crate::catalog::{Catalog, Image, ImageId, Root, best, list};
use crate::error::{Error, Result};
use crate::source::Source;
use crate::spec::Platform;

/// The images to change, with their platforms: those of the one entry of a catalog, or those that are wanted of them. Where one platform is
/// wanted, the catalog keeps no other: what it becomes need not be what was asked for.
pub(super) fn chosen(catalog: &mut Catalog, options: &Options) -> Result<Vec<(ImageId, Platform)>> {
    let images = the_entry(catalog)?;
    let wanted = match options.platforms.as_slice() {
        [] => return Ok(images),
        [only] => only,
        // A conversion filters them; what is not wanted stays as it is.
        several => {
            let is_wanted = |(_, platform): &(ImageId, Platform)| several.iter().any(|wanted| platform.score(wanted).is_some());
            return Ok(images.into_iter().filter(is_wanted).collect());
        }
    };
    let mut picked = None;
    for mut root in std::mem::take(&mut catalog.roots) {
        let candidates = catalog.candidates(&root.node);
        if let Some(found) = best(&candidates, wanted) {
            catalog.warnings.extend(root.lost_annotations());
            picked = Some((found.id, found.platform.clone()));
            root.node = found.node.clone();
        } else if !candidates.is_empty() {
            return Err(absent(wanted, candidates.iter().map(|candidate| &candidate.platform)));
        }
        catalog.roots.push(root);
    }
    Ok(picked.into_iter().collect())
}

/// The images of the one entry of a catalog, each once.
fn the_entry(catalog: &Catalog) -> Result<Vec<(ImageId, Platform)>> {
    let mut entries = catalog.entries();
    entries.retain(|roots| roots.iter().any(|root| !root.node.images().is_empty()));
    match entries.as_slice() {
        [] => Err(Error::not_found("it holds no image")),
        [roots] => {
            let mut images: Vec<(ImageId, Platform)> = Vec::new();
            for candidate in roots.iter().flat_map(|root| catalog.candidates(&root.node)) {
                if !images.iter().any(|(id, _)| *id == candidate.id) {
                    images.push((candidate.id, candidate.platform));
                }
            }
            Ok(images)
        }
        several => {
            let names: Vec<_> = several.iter().filter_map(|roots| roots.first()).map(ToString::to_string).collect();
            let error = Error::invalid(format_args!("it holds {} images, and one is needed", several.len()));
            Err(error.hint(format_args!("choose one with :REF; there are {}", names.join(", "))))
        }
    }
}

/// The image that is wanted of a source; without a wish the only one, or else what runs on the host.
pub(super) fn one_image<'a>(source: &'a dyn Source, wanted: Option<&Platform>, options: &Options) -> Result<&'a Image> {
    let catalog = source.catalog();
    let pick = || {
        if let ([(only, _)], None) = (the_entry(catalog)?.as_slice(), wanted) {
            return Ok(catalog.image(*only));
        }
        let wanted = wanted.unwrap_or(&options.host);
        let candidates: Vec<_> = catalog.roots.iter().flat_map(|root: &Root| catalog.candidates(&root.node)).collect();
        let found = best(&candidates, wanted).map(|found| catalog.image(found.id));
        found.ok_or_else(|| absent(wanted, candidates.iter().map(|candidate| &candidate.platform)))
    };
    pick().map_err(|error: Error| error.frame(source.describe()))
}

/// The image of a base, which must be for the same platform.
pub(super) fn like<'a>(source: &'a dyn Source, platform: &Platform, options: &Options) -> Result<&'a Image> {
    let image = one_image(source, Some(platform), options)?;
    let is = image.platform();
    if (is.os.as_str(), is.normalized().architecture) != (platform.os.as_str(), platform.normalized().architecture) {
        return Err(Error::mismatch(format_args!("it is for {is}, and the image for {platform}")).frame(source.describe()));
    }
    Ok(image)
}

fn absent<'a>(wanted: &Platform, known: impl Iterator<Item = &'a Platform>) -> Error {
    Error::not_found(format_args!("there is no image for {wanted}")).hint(format_args!("there are {}", list(known)))
}

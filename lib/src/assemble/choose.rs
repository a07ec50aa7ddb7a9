//! Which images of a source are meant.

use super::Options;
use crate::catalog::{Catalog, Image, ImageId, best};
use crate::error::{Error, Result};
use crate::source::{self, Source, absent, the_entry};
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

/// The image that is wanted of a source; without a wish the only one, or else what runs on the host.
pub(super) fn one_image<'a>(source: &'a dyn Source, wanted: Option<&Platform>, options: &Options) -> Result<&'a Image> {
    source::one_image(source, wanted, &options.host).map(|id| source.catalog().image(id))
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

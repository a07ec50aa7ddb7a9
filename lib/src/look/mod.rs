//! Looking into layers: what is in an image or in one of its layers, what differs between two images, what nobody sees.
//!
//! All of it is read from the headers of layers; contents are read only where two files could be the same or not. Nothing is verified against
//! digests here, as `check` does: files of layers with the same diff ID are taken to be the same. A listing is kept in memory, with about 200
//! bytes an entry and what its names and attributes take.

mod config;
mod content;
mod diff;
mod item;
mod list;
mod waste;

pub use config::ValueChange;
pub use diff::{Aspect, DiffOptions, Difference, FileChange, FileChanges, LayerChange, LayerSide, diff};
pub use item::{Item, ItemKind, Owner, rfc3339};
pub use list::{Listing, list};
pub use waste::{HiddenFile, LayerWaste, Waste, waste};

use crate::catalog::ImageId;
use crate::context::Context;
use crate::error::{Context as _, Error, Result};
use crate::layer::tree::EntryId;
use crate::plan::MergePlan;
use crate::run::layers::Layers;
use crate::source::Source;

/// All layers of an image, to be read.
fn plan_of(source: &dyn Source, image: ImageId) -> Result<MergePlan> {
    let catalog = source.catalog();
    MergePlan::of(catalog, catalog.image(image), 0, None).context(|| source.describe())
}

fn layers<'a>(plan: &'a MergePlan, source: &'a dyn Source, ctx: &'a Context) -> Layers<'a> {
    Layers { plan, source, ctx, cancel: &ctx.cancel, task: 0 }
}

/// Counts the entries of layers that are read one after another.
#[derive(Debug, Default)]
struct Numbers {
    next: Option<EntryId>,
}

impl Numbers {
    /// The next entry, which is one of `layer`.
    fn next(&mut self, layer: usize) -> Result<EntryId> {
        let layer = u16::try_from(layer).map_err(Error::limit)?;
        let id = self.next.filter(|next| next.layer == layer).unwrap_or(EntryId { layer, ordinal: 0 });
        let ordinal = id.ordinal.checked_add(1).ok_or_else(|| Error::limit("more than 4 billion entries in a layer"))?;
        self.next = Some(EntryId { layer, ordinal });
        Ok(id)
    }
}

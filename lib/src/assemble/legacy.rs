//! The v1 JSON that Bazel's archives have beside the image, for programs of 2013 (`--metadata` and `--legacy_base` of its `create_image`).

use super::Options;
use super::choose::one_image;
use crate::catalog::{Layer, LegacyLayer};
use crate::digest::DiffId;
use crate::error::{Context as _, Error, Result};
use crate::source::Source;
use crate::spec::{Json, Object};

/// The v1 JSON of the layer that is added, and of the layers of its base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyMembers {
    top: LegacyLayer,
    /// Base first.
    base: Vec<(LegacyLayer, DiffId)>,
}

impl LegacyMembers {
    /// Reads the v1 JSON of the layer that is added. The layers below it are those of `base`, an archive with nothing but v1 JSON.
    ///
    /// # Errors
    /// When the JSON names no ID, or another parent than the top of `base`, or `base` has no v1 JSON.
    pub fn new(metadata: Vec<u8>, base: Option<&dyn Source>, options: &Options) -> Result<Self> {
        let object = Object::parse(&metadata)?;
        let text = |key: &str| object.get(key).map(Json::of).filter(|value| !value.is_null()).map(Json::string).transpose();
        let id = text("id")?.filter(|id| super::layers::is_member_name(id));
        let id = id.ok_or_else(|| Error::invalid("it has no id, which names the folder of the layer"))?;
        let parent = text("parent")?;
        let base = base.map(|base| v1_layers(base, options).context(|| base.describe())).transpose()?.unwrap_or_default();
        if let Some((top, _)) = base.last().filter(|(top, _)| parent.as_ref() != Some(&top.id)) {
            let parent = parent.as_deref().unwrap_or("nothing");
            return Err(Error::mismatch(format_args!("its parent is {parent}, and the top of the base is {}", top.id)));
        }
        Ok(Self { top: LegacyLayer { id, json: metadata.into() }, base })
    }

    /// The v1 JSON of an image with these layers, of which the first `lower` are the base's.
    pub(super) fn of(&self, layers: &[Layer], lower: usize) -> Result<Vec<LegacyLayer>> {
        if layers.len() != lower + 1 {
            return Err(Error::invalid(format_args!("v1 metadata is of one layer, and {} are added", layers.len() - lower)));
        }
        let same = self.base.len() == lower && self.base.iter().zip(layers).all(|((_, diff_id), layer)| *diff_id == layer.diff_id);
        if !self.base.is_empty() && !same {
            return Err(Error::mismatch("the legacy base has other layers than the base"));
        }
        Ok(self.base.iter().map(|(layer, _)| layer).chain([&self.top]).cloned().collect())
    }
}

fn v1_layers(base: &dyn Source, options: &Options) -> Result<Vec<(LegacyLayer, DiffId)>> {
    let image = one_image(base, options.platforms.first(), options)?;
    let legacy = image.legacy.as_ref().filter(|legacy| legacy.layers.len() == image.layers.len()).ok_or_else(|| {
        Error::unsupported("it is no archive of layers with v1 JSON alone").hint("make one: longshore copy SRC base-v1.tar --dialect v1")
    })?;
    Ok(legacy.layers.iter().cloned().zip(image.layers.iter().map(|layer| layer.diff_id)).collect())
}

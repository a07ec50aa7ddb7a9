//! One fuzz target for all views.

use super::{ArchiveManifest, Config, Descriptor, Index, JsonLimits, Manifest, Object, OciLayout, Platform, Raw, Repositories, Validate};

/// Reads whatever comes as the view that the first byte picks. What is read survives an edit of another key.
pub fn fuzz_spec(data: &[u8]) {
    let Some((&kind, text)) = data.split_first() else { return };
    match kind % 7 {
        0 => read_twice::<Manifest>(text),
        1 => read_twice::<Index>(text),
        2 => read_twice::<Config>(text),
        3 => read_twice::<ArchiveManifest>(text),
        4 => read_twice::<Repositories>(text),
        5 => read_twice::<OciLayout>(text),
        _ => descriptor(text),
    }
}

fn read_twice<T: Validate + PartialEq + std::fmt::Debug>(text: &[u8]) {
    let limits = JsonLimits { bytes: 1 << 20, depth: 100 };
    let raw = match Raw::<T>::parse(text, &limits) {
        Ok(raw) => raw,
        Err(error) => return assert!(crate::Error::from(error).to_string().len() < 16_384),
    };
    assert_eq!(raw.bytes(), text);
    let Ok(mut object) = Object::parse(text) else { return };
    if !object.contains("org.longshore.fuzz") {
        object.set("org.longshore.fuzz", [1]).remove("org.longshore.fuzz");
        let again = Raw::<T>::parse(object.to_vec(), &limits).expect("only blanks were removed");
        assert_eq!(again.view(), raw.view());
    }
}

fn descriptor(text: &[u8]) {
    let Ok(descriptor) = serde_json::from_slice::<Descriptor>(text) else { return };
    let again = Descriptor::try_from(&descriptor.edit()).expect("only blanks were removed");
    assert_eq!((again.digest, again.size, &again.media_type), (descriptor.digest, descriptor.size, &descriptor.media_type));
    if let Some(platform) = &descriptor.platform {
        assert!(platform.matches(platform));
        assert_eq!(platform.normalized(), platform.normalized().normalized());
        let _ = Platform::parse(&platform.to_string()).map(|parsed| parsed.score(platform));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_go_in(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            fuzz_spec(&data);
        }

        #[test]
        fn odd_documents_go_in(
            kind in any::<u8>(),
            text in r#"\{("(schemaVersion|manifests|config|layers|rootfs|size|digest|mediaType|annotations|platform)":(null|2|\[\]|\{\}|"x"|\[null\]|\{"type":"layers"\}),?){0,5}\}"#,
        ) {
            let mut data = vec![kind];
            data.extend_from_slice(text.as_bytes());
            fuzz_spec(&data);
        }
    }
}

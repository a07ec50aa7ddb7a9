//! What could have been meant by a name that is not there.

use crate::error::Error;
use crate::reference::Reference;

/// Longer names are far from all others: to compare two takes the product of their lengths.
const LONG: usize = 128;

/// Names that a message lists.
const SHOWN: usize = 20;

/// Says that an image is not there, and which could be meant, or else which there are.
pub(crate) fn no_image(wanted: &str, names: &[String]) -> Error {
    let error = Error::not_found(format_args!("there is no image {}", wanted.escape_debug()));
    let near = self::names(wanted, names.iter().map(String::as_str));
    if !near.is_empty() {
        return error.hint(format_args!("did you mean {}?", near.join(" or ")));
    }
    match names.len() {
        0 => error,
        more if more > SHOWN => error.hint(format_args!("there are {} and {} more", names[..SHOWN].join(", "), more - SHOWN)),
        _ => error.hint(format_args!("there are {}", names.join(", "))),
    }
}

/// The names that are most like `wanted`, the nearest first: other tags of its repository, and those a few letters away.
pub(crate) fn names<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    const MOST: usize = 5;
    // A digest says nothing about what is like it.
    let wanted = wanted.split_once('@').map_or(wanted, |(name, _)| name);
    let repository = |text: &str| Reference::parse(text).map_or_else(|_| text.to_owned(), |reference| reference.path().to_owned());
    let last = |text: &str| text.rsplit('/').next().unwrap_or(text).to_owned();
    let (wanted_path, wanted_last) = (repository(wanted), last(&repository(wanted)));
    let mut scored: Vec<(usize, String)> = Vec::new();
    for name in names {
        let path = repository(name);
        let score = if path == wanted_path {
            0
        } else if last(&path) == wanted_last {
            1
        } else {
            let distance = distance(last(&path).as_bytes(), wanted_last.as_bytes());
            // Where nothing is the same, it is another name, however short.
            if distance < wanted_last.len() { distance + 1 } else { continue }
        };
        if score <= 1 + (wanted_last.len() / 3).clamp(1, 3) {
            scored.push((score, name.to_owned()));
        }
    }
    scored.sort();
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.into_iter().take(MOST).map(|(_, name)| name).collect()
}

/// In how many places two names differ: bytes more, less or other, whatever the case of letters.
pub(crate) fn distance(a: &[u8], b: &[u8]) -> usize {
    if a.len().max(b.len()) > LONG {
        return usize::MAX;
    }
    strsim::generic_levenshtein(&a.to_ascii_lowercase(), &b.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "", 0), ("", "abc", 3), ("Kitchen", "kichen", 1), ("kitten", "sitting", 3), ("abc", "ABC", 0)] {
            assert_eq!((distance(a.as_bytes(), b.as_bytes()), distance(b.as_bytes(), a.as_bytes())), (expected, expected), "{a} {b}");
        }
        assert_eq!(distance(&[b'a'; LONG + 1], &[b'a'; LONG + 1]), usize::MAX);
    }

    #[test]
    fn what_is_said_of_an_image_that_is_not_there() {
        let many: Vec<_> = (0..23).map(|at| format!("garage-{at}:1")).collect();
        let few = ["a:1".to_owned(), "kitchen:1".to_owned()];
        for (wanted, names, expected) in [
            ("kitchn:7", &few[..], Some("did you mean kitchen:1?")),
            ("a:2", &few, Some("did you mean a:1?")),
            ("b", &few, Some("there are a:1, kitchen:1")),
            ("@7", &few, Some("there are a:1, kitchen:1")),
            ("@sha256:00", &few, Some("there are a:1, kitchen:1")),
            ("kitchen", &[], None),
        ] {
            let error = no_image(wanted, names);
            assert_eq!((error.to_string(), error.hint_text()), (format!("there is no image {wanted}"), expected));
        }
        let error = no_image("kitchen", &many);
        assert!(error.hint_text().unwrap().ends_with(", garage-19:1 and 3 more"), "{error:?}");
        assert_eq!(no_image("a\n", &[]).to_string(), "there is no image a\\n");
    }

    #[test]
    fn names_that_could_be_meant() {
        let long = "a".repeat(1000);
        let longer = "a".repeat(1001);
        let known = ["kitchen:1", "localhost/kitchen:2", "kitten:1", "garage:1", "example.com/a/b:c", &longer];
        for (wanted, expected) in [
            ("kitchen:3", &["kitchen:1", "localhost/kitchen:2", "kitten:1"][..]),
            ("kichten", &["kitchen:1", "kitten:1", "localhost/kitchen:2"]),
            ("x/y/garag:1", &["garage:1"]),
            ("garage@sha256:00", &["garage:1"]),
            ("zzzzzzzz", &[]),
            (&long, &[]),
        ] {
            assert_eq!(names(wanted, known), expected, "{wanted}");
        }
    }
}

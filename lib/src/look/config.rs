//! What differs between two JSON documents, value by value.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

/// A value that two documents do not have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ValueChange {
    /// Where it is: `config.Env[2]`, `config.Labels["org.example.x"]`. A place in a list is that in the first document, or in the second for
    /// what is added.
    pub path: String,
    /// What the first document has there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What the second document has there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// The values that differ: keys of both documents in the order of the first, then those that the second adds. `skip` names a path of no
/// interest. Documents are nested no deeper than limits allow.
pub(super) fn compare(a: &Value, b: &Value, skip: &str) -> Vec<ValueChange> {
    let mut found = Vec::new();
    at("", Some(a), Some(b), skip, &mut found);
    found
}

fn at(path: &str, a: Option<&Value>, b: Option<&Value>, skip: &str, found: &mut Vec<ValueChange>) {
    if a == b || path == skip {
        return;
    }
    match (a, b) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for (key, value) in a {
                at(&member(path, key), Some(value), b.get(key), skip, found);
            }
            for (key, value) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                at(&member(path, key), None, Some(value), skip, found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => list(path, a, b, skip, found),
        _ => found.push(ValueChange { path: path.to_owned(), before: a.cloned(), after: b.cloned() }),
    }
}

/// What two lists have in common at their ends stays; between, one is compared with one.
fn list(path: &str, a: &[Value], b: &[Value], skip: &str, found: &mut Vec<ValueChange>) {
    let first = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[first..], &b[first..]);
    let last = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[..a.len() - last], &b[..b.len() - last]);
    for place in 0..a.len().max(b.len()) {
        at(&format!("{path}[{}]", first + place), a.get(place), b.get(place), skip, found);
    }
}

fn member(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-');
    let mut member = path.to_owned();
    let written = match (plain, path.is_empty()) {
        (true, true) => write!(member, "{key}"),
        (true, false) => write!(member, ".{key}"),
        (false, _) => write!(member, "[{}]", Value::from(key)),
    };
    written.expect("writing to a String cannot fail");
    member
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_value_has_its_path() {
        let a = json!({"os": "linux", "config": {"Env": ["A=1", "B=2", "C=3"], "Labels": {"a.b": "1"}, "User": null}, "n": 1, "same": [1, {"x": 2}]});
        let b = json!({"same": [1, {"x": 2}], "config": {"Env": ["A=1", "B=3", "C=3"], "Labels": {"a.b": "2", "": 1}}, "n": [1], "new": {}, "os": "linux"});
        let found = compare(&a, &b, "n");
        let shown: Vec<_> = found
            .iter()
            .map(|c| format!("{}: {} -> {}", c.path, c.before.clone().unwrap_or("none".into()), c.after.clone().unwrap_or("none".into())))
            .collect();
        assert_eq!(
            shown,
            [
                "config.Env[1]: \"B=2\" -> \"B=3\"",
                "config.Labels[\"a.b\"]: \"1\" -> \"2\"",
                "config.Labels[\"\"]: \"none\" -> 1",
                "config.User: null -> \"none\"",
                "new: \"none\" -> {}"
            ]
        );
    }

    #[test]
    fn lists_are_compared_from_both_ends() {
        let paths = |a: Value, b: Value| {
            compare(&a, &b, "no").into_iter().map(|c| (c.path, c.before.is_some(), c.after.is_some())).collect::<Vec<_>>()
        };
        assert_eq!(paths(json!([1, 2, 3]), json!([1, 9, 2, 3])), [("[1]".to_owned(), false, true)]);
        assert_eq!(paths(json!([1, 2, 3]), json!([3])), [("[0]".to_owned(), true, false), ("[1]".to_owned(), true, false)]);
        assert_eq!(paths(json!([1, 1]), json!([1, 1, 1])), [("[2]".to_owned(), false, true)]);
    }
}

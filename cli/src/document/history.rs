//! Which step of a build made which layer, and how a step is shown.

use longshore::spec::History;

/// The layer that each step made; none for steps that made none. Absent as a whole when there is not exactly one step for every layer.
///
/// The image-spec: history "describes the history of each layer", and tools that squash or append layers often leave it behind.
pub(super) fn layers_of(history: &[History], layers: usize) -> Option<Vec<Option<usize>>> {
    let made = history.iter().filter(|entry| !entry.empty_layer).count();
    if made != layers {
        return None;
    }
    let mut next = 0;
    let steps = history.iter().map(|entry| {
        let layer = (!entry.empty_layer).then_some(next);
        next += usize::from(!entry.empty_layer);
        layer
    });
    Some(steps.collect())
}

/// A command as its Dockerfile has it: the classic builder runs `/bin/sh -c`, and marks what it does not run with `#(nop)`; BuildKit adds
/// a comment of its own.
pub(super) fn command(created_by: &str) -> String {
    let text = created_by.trim();
    let text = text.strip_suffix("# buildkit").unwrap_or(text).trim_end();
    let classic = text.strip_prefix("/bin/sh -c ");
    match classic.map(|rest| (rest.trim_start().strip_prefix("#(nop)"), rest)) {
        Some((Some(instruction), _)) => instruction.trim().to_owned(),
        Some((None, run)) => format!("RUN {}", run.trim()),
        None => match text.strip_prefix("RUN /bin/sh -c ") {
            Some(run) => format!("RUN {}", run.trim()),
            None => text.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(empty: &[bool]) -> Vec<History> {
        empty.iter().map(|&empty_layer| History { empty_layer, ..History::default() }).collect()
    }

    #[test]
    fn steps_that_made_a_layer_take_the_layers_in_order() {
        assert_eq!(layers_of(&history(&[false, true, false, true]), 2), Some(vec![Some(0), None, Some(1), None]));
        assert_eq!(layers_of(&[], 0), Some(vec![]));
        assert_eq!(layers_of(&history(&[true]), 0), Some(vec![None]));
    }

    #[test]
    fn a_history_that_does_not_match_says_nothing() {
        assert_eq!(layers_of(&[], 1), None);
        assert_eq!(layers_of(&history(&[false]), 2), None);
        assert_eq!(layers_of(&history(&[false, false]), 1), None);
    }

    #[test]
    fn commands_look_as_in_a_dockerfile() {
        for (created_by, expected) in [
            ("/bin/sh -c #(nop)  CMD [\"sh\"]", "CMD [\"sh\"]"),
            ("/bin/sh -c apt-get update", "RUN apt-get update"),
            ("RUN /bin/sh -c apt-get update # buildkit", "RUN apt-get update"),
            ("COPY /a /b # buildkit", "COPY /a /b"),
            ("RUN |1 A=1 /bin/sh -c make # buildkit", "RUN |1 A=1 /bin/sh -c make"),
            ("bazel build ...", "bazel build ..."),
            ("", ""),
        ] {
            assert_eq!(command(created_by), expected);
        }
    }
}

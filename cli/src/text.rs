//! Numbers, texts from outside and tables, as people read them.

use std::fmt::Write as _;
use std::time::Duration;

/// Bytes in powers of 1000 with one decimal: `281.4 MB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    // Tenths of the unit, rounded to the nearest, in whole numbers: the same on every machine.
    let tenths = |unit: u32| (u128::from(count) + 50 * 1000_u128.pow(unit)) / (100 * 1000_u128.pow(unit));
    let last = UNITS.len() - 1;
    let at = (0..last).find(|at| tenths(*at as u32) < 10_000).unwrap_or(last);
    let tenths = tenths(at as u32);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[at])
}

/// `1 layer`, `7 layers`, `7 entries`.
pub(crate) fn count(number: impl TryInto<u64>, noun: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    let plural = match (noun.strip_suffix('x'), noun.strip_suffix("ry")) {
        (Some(stem), _) => format!("{stem}xes"),
        (_, Some(stem)) => format!("{stem}ries"),
        _ => format!("{noun}s"),
    };
    if number == 1 { format!("1 {noun}") } else { format!("{number} {plural}") }
}

/// `41 ms`, `2.1 s`, `3 min 05 s`.
pub(crate) fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    match whole {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        _ => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

/// Bytes a second: `378 MB/s`. Nothing for a time too short to say.
pub(crate) fn rate(count: u64, time: Duration) -> Option<String> {
    let seconds = time.as_secs_f64();
    if seconds < 0.05 || count == 0 {
        return None;
    }
    Some(format!("{}/s", bytes((count as f64 / seconds) as u64)))
}

/// A text from outside on one line: what a terminal would obey, or would not show, is escaped.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// The first `max` characters of a text, and an ellipsis if there are more.
pub(crate) fn shortened(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(max.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// Where the text of a column begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows in columns two blanks apart, every line after `indent`, without blanks at the end.
pub(crate) fn table(indent: &str, columns: &[Align], rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = indent.to_owned();
        for (column, cell) in row.iter().enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let width = widths[column];
            let written = match columns[column] {
                Align::Left => write!(line, "{gap}{cell:<width$}"),
                Align::Right => write!(line, "{gap}{cell:>width$}"),
            };
            written.expect("writing to a String cannot fail");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_to_the_nearest_tenth() {
        for (count, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1049, "1.0 kB"),
            (1050, "1.1 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (281_443_328, "281.4 MB"),
            (1_000_000_000, "1.0 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(count), expected, "{count}");
        }
    }

    #[test]
    fn one_is_singular() {
        assert_eq!(
            (count(1_usize, "layer"), count(0_usize, "layer"), count(2_usize, "index")),
            ("1 layer".into(), "0 layers".into(), "2 indexes".into())
        );
    }

    #[test]
    fn times_and_rates() {
        assert_eq!(seconds(Duration::from_millis(41)), "41 ms");
        assert_eq!(seconds(Duration::from_millis(2149)), "2.1 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 05 s");
        assert_eq!(rate(795_000_000, Duration::from_secs(2)).as_deref(), Some("397.5 MB/s"));
        assert_eq!(rate(5, Duration::ZERO), None);
    }

    #[test]
    fn nothing_from_outside_reaches_the_terminal_raw() {
        assert_eq!(shown("a \"b\" \\ 'c' ü\n\x1b[31m\u{202e}"), "a \"b\" \\ 'c' ü\\n\\u{1b}[31m\\u{202e}");
    }

    #[test]
    fn tables_line_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned(), "x".to_owned()], vec!["bb".to_owned(), "22".to_owned(), String::new()]];
        assert_eq!(table("  ", &[Align::Left, Align::Right, Align::Left], &rows), "  a    1  x\n  bb  22\n");
        assert_eq!((shortened("abc", 3), shortened("abcd", 3)), ("abc".into(), "ab…".into()));
    }
}

//! What commands print for people: aligned columns, sizes and times as people read them.

use terrace_cache::units::ByteSize;
use terrace_catalog::ledger::day_of;

/// Rows under a head, with each column as wide as its widest cell. The last column is not padded.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        let head = head.iter().map(|cell| (*cell).to_owned()).collect();
        Self { rows: vec![head] }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The text, with a line feed behind each row.
    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{:<width$}  ", printable(cell)));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The text without characters that would steer a terminal: names come from others.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '?' } else { c };
    text.chars().map(shown).collect()
}

/// A size with its unit.
pub(super) fn size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}

/// A number, or a dash.
pub(super) fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A time as `2026-11-20 12:34:56` (UTC), or a dash.
pub(super) fn utc(ms: Option<i64>) -> String {
    let Some(ms) = ms else {
        return "-".to_owned();
    };
    let rest = ms.div_euclid(1000).rem_euclid(86_400);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{} {hour:02}:{minute:02}:{second:02}", day_of(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a date in a list of versions could be off by a day around leap years.
    #[test]
    fn times_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01 00:00:00"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (1_709_251_199_999, "2024-02-29 23:59:59"),
            (4_107_542_400_000, "2100-03-01 00:00:00"),
            (-1, "1969-12-31 23:59:59"),
        ];
        for (ms, expected) in cases {
            assert_eq!(utc(Some(ms)), expected);
        }
        assert_eq!(utc(None), "-");
    }

    // Without it a path with escape codes could rewrite what the user reads.
    #[test]
    fn tables_are_aligned_and_harmless() {
        let mut table = Table::new(&["NAME", "FILES"]);
        table.row(vec!["ads.clicks".into(), "3".into()]);
        table.row(vec!["x\u{1b}[2J".into(), "12".into()]);
        let expected = "NAME        FILES\nads.clicks  3\nx?[2J       12\n";
        assert_eq!(table.render(), expected);
    }
}

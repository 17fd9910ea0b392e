//! The first rows of one file, for people to look at.
//!
//! Read through the store by small ranges, as inference does; cells are cut at [`CELL_MAX`]. Formats
//! without rows (archives, images, logs that only name files) have none here.

use serde_json::Value;

use super::sniff::Head;
use super::types::{Field, FileFormat};
use super::{Problem, parquet, text};
use crate::upstream::{UpFile, Upstream};

/// Bytes of a text file that are looked at.
const HEAD: u64 = 256 << 10;

/// Most characters of a cell.
pub const CELL_MAX: usize = 1000;

/// Rows of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// The columns, in the order of the file.
    pub fields: Vec<Field>,
    /// A value for each column; null where there is none.
    pub rows: Vec<Vec<Value>>,
    /// What is not shown, and why.
    pub note: Option<String>,
}

/// Reads at most `limit` rows from the start of a file. None when files of the format have no rows that
/// are read here. `Damaged` when the file is not what its format says.
pub async fn first_rows(
    upstream: &dyn Upstream,
    file: &UpFile,
    format: FileFormat,
    limit: usize,
) -> Result<Option<Rows>, Problem> {
    let read = match format {
        FileFormat::Parquet | FileFormat::Delta | FileFormat::Iceberg => {
            parquet::first_rows(upstream, file, limit).await?
        }
        FileFormat::Csv | FileFormat::Jsonl => {
            let end = file.size.min(HEAD);
            let head = Head {
                path: file.path.to_string(),
                bytes: upstream.read(file, 0..end).await?,
                whole: end == file.size,
            };
            let found = match format {
                FileFormat::Csv => text::csv_rows(&head, limit),
                _ => text::json_rows(&head, limit),
            };
            let what = || format!("its start is not {}", format.as_str());
            found.ok_or_else(|| Problem::damaged(&file.path, what()))?
        }
        _ => return Ok(None),
    };
    let rows = read.rows.into_iter();
    Ok(Some(Rows {
        rows: rows.map(|row| row.into_iter().map(cut).collect()).collect(),
        ..read
    }))
}

/// A cell that is not longer than a person would read: lists and objects become a text when they are.
fn cut(value: Value) -> Value {
    let text = match value {
        Value::String(text) => text,
        Value::Array(_) | Value::Object(_) => {
            let text = value.to_string();
            if text.len() <= CELL_MAX {
                return value;
            }
            text
        }
        other => return other,
    };
    match text.char_indices().nth(CELL_MAX) {
        Some((at, _)) => Value::String(format!("{}…", &text[..at])),
        None => Value::String(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One cell with a whole document in it would make the answer as large as the file.
    #[test]
    fn long_cells_are_cut() {
        let long = "ä".repeat(CELL_MAX + 1);
        let Value::String(text) = cut(Value::String(long)) else {
            panic!("a text stays a text");
        };
        assert_eq!(text.chars().count(), CELL_MAX + 1);
        assert!(text.ends_with('…'));
        let list = Value::Array(vec![Value::from(1); CELL_MAX]);
        assert!(cut(list).is_string());
        assert_eq!(cut(Value::from(vec![1, 2])), Value::from(vec![1, 2]));
    }
}

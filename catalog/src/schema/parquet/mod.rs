//! Footers of Parquet files, read lazily: one ranged read of the file's end, rarely two.
//!
//! ```text
//! file = "PAR1" ... footer  length of the footer (u32 LE)  "PAR1"
//! ```
//!
//! Written here and not taken from the `parquet` crate: even without features that crate costs every
//! build minutes (docs/decisions/0002-dependencies.md), and this needs a dozen fields of the footer.
//! They come from the format's specification (`parquet.thrift`); real writers are held against this
//! reader in the tests.
//!
//! ```text
//! footer   columns, rows, ranges, and where the first row group's columns lie
//! rows     the first rows, for people: fetch a few pages of each column, decode, assemble
//!   page       headers, compression, levels         assemble   entries of columns into values
//!   values     what encodings hold                  hybrid, delta   their integers
//! column   whole columns, for programs: checkpoints of Delta tables
//! ```

mod assemble;
pub(crate) mod column;
mod columns;
mod delta;
mod footer;
mod hybrid;
mod page;
mod rows;
mod thrift;
mod values;

pub(in crate::schema) use rows::first_rows;

use bytes::Bytes;

use super::Problem;
use super::types::{ColumnRange, Schema};
use crate::upstream::{UpFile, Upstream};

/// The first read of a file's end: holds the footer of nearly every file.
const TAIL: u64 = 64 << 10;
/// Longest footer that is read.
const FOOTER_MAX: u64 = 64 << 20;

/// What a file says about itself at its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Footer {
    /// Its columns.
    pub schema: Schema,
    /// Its rows.
    pub rows: u64,
    /// Ranges of its columns, over all row groups.
    pub ranges: Vec<ColumnRange>,
    /// Whether its columns have numbers, which readers of tables trust more than names.
    pub numbered: bool,
}

/// Reads the footer of a file. `Damaged` for whatever is not a complete Parquet file.
pub(super) async fn read_footer(upstream: &dyn Upstream, file: &UpFile) -> Result<Footer, Problem> {
    let damaged = |reason: &str| Problem::damaged(&file.path, reason);
    let meta = read_meta(upstream, file).await?;
    let rows = u64::try_from(meta.rows).map_err(|_| damaged("its footer cannot be read"))?;
    let schema = columns::schema(&meta.elements)
        .ok_or_else(|| damaged("the columns in its footer contradict each other"))?;
    Ok(Footer {
        schema,
        rows,
        ranges: meta.ranges,
        // The first element is the root, whose number means nothing.
        numbered: meta.elements.iter().skip(1).any(|one| one.numbered),
    })
}

async fn read_meta(upstream: &dyn Upstream, file: &UpFile) -> Result<footer::Meta, Problem> {
    let bytes = footer_bytes(upstream, file).await?;
    footer::parse(&bytes).map_err(|_| Problem::damaged(&file.path, "its footer cannot be read"))
}

/// The bytes of a footer.
async fn footer_bytes(upstream: &dyn Upstream, file: &UpFile) -> Result<Bytes, Problem> {
    let damaged = |reason: &str| Problem::damaged(&file.path, reason);
    if file.size < 12 {
        return Err(damaged("too short for a Parquet file"));
    }
    let start = file.size.saturating_sub(TAIL);
    let tail = upstream.read(file, start..file.size).await?;
    let Some((rest, end)) = tail.split_last_chunk::<8>() else {
        return Err(damaged("the store sent too few bytes"));
    };
    match &end[4..] {
        b"PAR1" => {}
        b"PARE" => return Err(damaged("its footer is encrypted")),
        _ => {
            return Err(damaged(
                "does not end as a Parquet file does: incomplete or damaged",
            ));
        }
    }
    let length = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
    if length + 12 > file.size || length > FOOTER_MAX {
        return Err(damaged("its footer has an impossible length"));
    }
    match rest.len().checked_sub(length as usize) {
        Some(at) => Ok(tail.slice(at..rest.len())),
        None => {
            let end = file.size - 8;
            Ok(upstream.read(file, end - length..end).await?)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        // A footer comes from whoever can write to the store: no bytes may panic or blow up.
        #[test]
        fn any_footer_is_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(meta) = footer::parse(&bytes) {
                let _ = columns::schema(&meta.elements);
            }
        }
    }

    // Nesting without end would overflow the stack of the process that reads it.
    #[test]
    fn nesting_has_an_end() {
        assert!(footer::parse(&vec![0x1c; 1 << 20]).is_err());
        assert!(footer::parse(&vec![0x19; 1 << 20]).is_err());
    }
}

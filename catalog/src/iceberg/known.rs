//! What is known of the columns of one file: what it told itself, and what holds for all of its partition.
//!
//! ```text
//! details of the files (schema::told)   bounds and absent values of this file
//! note "ranges" of the partition        bounds of all its files; of columns of which the file told nothing
//! ```
//!
//! A bound that is wrong hides rows, one that is missing costs a look into a file. Invariant: what stands here
//! holds for the file, whoever told it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::columns::{Columns, Numbered};
use super::shape::Primitive;
use super::value::Datum;
use crate::discovery::NOTE_RANGES;
use crate::manifest::{FileEntry, Manifest, ManifestError, Partition};
use crate::schema::{ColumnRange, Names, Scalar};

/// What is known of a column in a file.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Number of the column.
    pub(super) id: u32,
    /// Rows without a value.
    pub(super) absent: Option<u64>,
    pub(super) min: Option<Datum>,
    pub(super) max: Option<Datum>,
}

/// A column directly in the table, by its number and type.
type Found = (u32, Primitive);

/// Those who tell about the files of one partition.
#[derive(Debug)]
pub(super) struct Tellers<'a> {
    manifest: &'a Manifest,
    partition: &'a Partition,
    /// Of every file.
    all: Vec<Known>,
    names: Option<Names>,
    /// The columns behind the names.
    found: Vec<Option<Found>>,
    /// What the files of the page that was turned to told.
    told: HashMap<Arc<str>, Bytes>,
}

impl<'a> Tellers<'a> {
    pub(super) fn of(manifest: &'a Manifest, columns: &Columns, partition: &'a Partition) -> Self {
        let names = partition.details();
        let names = names.and_then(|(_, text)| Names::from_text(text));
        let found = names.iter().flat_map(|names| names.iter());
        let found = found.map(|name| find(columns, name)).collect();
        Self {
            manifest,
            partition,
            all: of_all(columns, partition),
            found,
            names,
            told: HashMap::new(),
        }
    }

    /// Reads what the files of a page told; `after` is the file before its first one.
    pub(super) async fn turn(
        &mut self,
        after: Option<&str>,
        files: &[FileEntry],
    ) -> Result<(), ManifestError> {
        self.told.clear();
        if let (Some(_), Some(last)) = (&self.names, files.last()) {
            let told = self.manifest.details_of(self.partition, after, &last.path);
            self.told.extend(told.await?);
        }
        Ok(())
    }

    /// What is known of a file of the page.
    pub(super) fn known(&self, file: &FileEntry) -> Vec<Known> {
        let own = self.told.get(&file.path).zip(self.names.as_ref());
        let told = own.map(|(value, names)| names.decode(file.size, value));
        let own = told.into_iter().flatten().filter_map(|told| {
            let found = self.found.get(told.number).copied().flatten()?;
            Some(known(
                found,
                told.min.as_ref(),
                told.max.as_ref(),
                told.nulls,
            ))
        });
        let mut all: Vec<Known> = own.collect();
        let rest = self.all.iter();
        let rest = rest.filter(|one| all.iter().all(|own| own.id != one.id));
        let rest: Vec<Known> = rest.cloned().collect();
        all.extend(rest);
        all
    }
}

fn find(columns: &Columns, name: &str) -> Option<Found> {
    let column = columns.columns.iter().find(|one| one.name == name)?;
    match column.kind {
        Numbered::Primitive(kind) => Some((column.id, kind)),
        _ => None,
    }
}

fn known(
    (id, kind): Found,
    min: Option<&Scalar>,
    max: Option<&Scalar>,
    absent: Option<u64>,
) -> Known {
    let bound = |scalar: Option<&Scalar>| Datum::bound(kind, scalar?);
    Known {
        id,
        absent,
        min: bound(min),
        max: bound(max),
    }
}

/// What discovery has noted about all files of a partition, for columns directly in the table.
fn of_all(columns: &Columns, partition: &Partition) -> Vec<Known> {
    let mut notes = partition.notes.iter();
    let note = notes.find(|(name, _)| &**name == NOTE_RANGES);
    let ranges: Vec<ColumnRange> = note
        .and_then(|(_, text)| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let all = ranges.iter().filter_map(|range| {
        let found = find(columns, &range.name)?;
        // Absent values are counted over all files.
        let nulls = range.nulls;
        let absent = nulls.filter(|nulls| *nulls == 0 || partition.files == 1);
        let known = known(found, range.min.as_ref(), range.max.as_ref(), absent);
        // A range without bounds may be that of a part with the same spelling.
        (known.min.is_some() || known.max.is_some()).then_some(known)
    });
    all.collect()
}

//! Checkpoints of a Delta log: its state at a version, as a Parquet file, so that older files of the log may
//! be cleaned away.
//!
//! ```text
//! <version>.checkpoint.parquet                            whole
//! <version>.checkpoint.<part>.<parts>.parquet             in parts, ten digits each
//! add.path  add.size  add.stats  add.deletionVector.*     a row for each file of the table
//! metaData.schemaString  metaData.configuration           one row
//! ```
//!
//! Checkpoints of the second form (named by a UUID, with their files in `_sidecars`) are not read: such a
//! log is followed from version 0 while that is there, and refused with its reason when it is not.

use std::collections::BTreeMap;

use super::{Add, COLUMN_MAPPING, DELETION_VECTORS, DeltaLog, number};
use crate::schema::Problem;
use crate::schema::parquet::column::{Cell, Cells, Table};
use crate::upstream::{UpFile, Upstream};

/// The files of one checkpoint, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Version whose state it is.
    pub(crate) version: u64,
    /// Its parts in order.
    pub(crate) parts: Vec<UpFile>,
}

/// The complete checkpoints among the files of a log, oldest first. `name` of a file is what follows
/// `_delta_log/`.
pub(crate) fn checkpoints<'a>(
    files: impl Iterator<Item = (&'a str, &'a UpFile)>,
) -> Vec<Checkpoint> {
    // Version and number of parts -> part -> file: a log may have both forms of one version.
    let mut found: BTreeMap<(u64, u32), BTreeMap<u32, &UpFile>> = BTreeMap::new();
    for (name, file) in files {
        if let Some((version, part, parts)) = place(name) {
            let known = found.entry((version, parts)).or_default();
            known.insert(part, file);
        }
    }
    let complete = found.into_iter().filter(|((_, parts), known)| {
        let last = known.keys().next_back();
        known.len() == *parts as usize && last == Some(parts)
    });
    complete
        .map(|((version, _), known)| Checkpoint {
            version,
            parts: known.into_values().cloned().collect(),
        })
        .collect()
}

/// Version, part and number of parts of a checkpoint file's name.
fn place(name: &str) -> Option<(u64, u32, u32)> {
    let (version, rest) = name.split_once(".checkpoint.")?;
    let version = number(version, 20)?;
    if rest == "parquet" {
        return Some((version, 1, 1));
    }
    let (part, parts) = rest.strip_suffix(".parquet")?.split_once('.')?;
    let (part, parts) = (number(part, 10)?, number(parts, 10)?);
    let (part, parts) = (u32::try_from(part).ok()?, u32::try_from(parts).ok()?);
    (1..=parts)
        .contains(&part)
        .then_some((version, part, parts))
}

/// Reads a checkpoint. `Damaged` for one that cannot be followed; the reason is shown by `why`.
pub(crate) async fn read(
    upstream: &dyn Upstream,
    checkpoint: &Checkpoint,
) -> Result<DeltaLog, Problem> {
    let mut log = DeltaLog {
        next: checkpoint.version + 1,
        ..DeltaLog::default()
    };
    for file in &checkpoint.parts {
        let table = Table::open(upstream, file).await?;
        for group in 0..table.groups() {
            let rows = Rows::read(upstream, file, &table, group).await?;
            let refused = |reason: String| Problem::damaged(&file.path, reason);
            rows.apply(&mut log).map_err(refused)?;
        }
    }
    Ok(log)
}

/// The columns of one row group that are asked for.
struct Rows {
    path: Cells,
    size: Cells,
    stats: Cells,
    /// Any column of the deletion vectors.
    vectors: Cells,
    schema: Cells,
    /// The table's settings: names and values, of all rows together.
    settings: (Cells, Cells),
    sidecars: Cells,
}

impl Rows {
    async fn read(
        upstream: &dyn Upstream,
        file: &UpFile,
        table: &Table,
        group: usize,
    ) -> Result<Self, Problem> {
        let column = async |wanted: &[&str]| {
            let found = table.values(upstream, file, group, |path| path == wanted);
            found.await.map(Option::unwrap_or_default)
        };
        // A map's middle group and its parts have had several names.
        let setting = async |names: [&str; 2]| {
            let found = table.values(upstream, file, group, |path| {
                let last = path.last().is_some_and(|last| names.contains(last));
                path.starts_with(&["metaData", "configuration"]) && last
            });
            found.await.map(Option::unwrap_or_default)
        };
        Ok(Self {
            path: column(&["add", "path"]).await?,
            size: column(&["add", "size"]).await?,
            stats: column(&["add", "stats"]).await?,
            vectors: column(&["add", "deletionVector", "storageType"]).await?,
            schema: column(&["metaData", "schemaString"]).await?,
            settings: (
                setting(["key", "keys"]).await?,
                setting(["value", "values"]).await?,
            ),
            sidecars: column(&["sidecar", "path"]).await?,
        })
    }

    fn apply(self, log: &mut DeltaLog) -> Result<(), String> {
        if self.sidecars.iter().any(Option::is_some) {
            return Err("its checkpoint has sidecars, which are not read".to_owned());
        }
        if self.vectors.iter().any(Option::is_some) {
            return Err(DELETION_VECTORS.to_owned());
        }
        let (names, values) = &self.settings;
        let mut settings = names.iter().zip(values);
        let mapping = settings.find(|(name, _)| text(name.as_ref()) == Some(COLUMN_MAPPING));
        let mapping = mapping.and_then(|(_, value)| text(value.as_ref()));
        for columns in self.schema.iter().flatten() {
            let columns = text(Some(columns)).unwrap_or_default();
            log.describe(columns, mapping)?;
        }
        for (row, path) in self.path.iter().enumerate() {
            let Some(path) = text(path.as_ref()) else {
                continue;
            };
            let Some(Some(Cell::Number(size))) = self.size.get(row) else {
                return Err(format!("{path}: the checkpoint has no size of it"));
            };
            let size = u64::try_from(*size).map_err(|_| format!("{path}: a negative size"))?;
            let stats = text(self.stats.get(row).and_then(Option::as_ref));
            log.add(Add {
                path: path.to_owned(),
                size,
                stats: stats.map(str::to_owned),
                deletion_vector: None,
            })?;
        }
        Ok(())
    }
}

fn text(cell: Option<&Cell>) -> Option<&str> {
    match cell? {
        Cell::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
        Cell::Number(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn file(name: &str) -> UpFile {
        UpFile {
            path: Arc::from(name),
            size: 1,
            mtime_ms: 0,
            token: Arc::from("t"),
        }
    }

    // Half of a checkpoint is a table without half of its files.
    #[test]
    fn only_complete_checkpoints_count() {
        let names = [
            "00000000000000000010.checkpoint.parquet",
            "00000000000000000020.checkpoint.0000000001.0000000002.parquet",
            "00000000000000000020.checkpoint.0000000002.0000000002.parquet",
            "00000000000000000030.checkpoint.0000000001.0000000002.parquet",
            "00000000000000000040.checkpoint.0000000003.0000000002.parquet",
            "00000000000000000050.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.parquet",
            "00000000000000000060.json",
            "_last_checkpoint",
        ];
        let files = names.map(file);
        let found = checkpoints(names.into_iter().zip(&files));
        let versions = found.iter().map(|one| (one.version, one.parts.len()));
        let versions: Vec<_> = versions.collect();
        assert_eq!(versions, [(10, 1), (20, 2)]);
    }
}

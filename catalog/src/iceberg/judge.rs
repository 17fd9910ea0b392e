//! Which partitions of a version its table has: those whose files can be read as the table's columns.
//!
//! A partition is left out when a column of its files changed in a way that the format does not know
//! (`schema::history`), or when its directory names a value that is none of the column's type. It stays
//! readable by path; how many there are stands in the table's properties and in the version's detail.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::columns::shapes;
use super::shape::{Primitive, Shape, shape};
use super::value::{Datum, is_readable};
use crate::manifest::{Header, Manifest, ManifestError, Partition};
use crate::schema::history::{History, Own};

/// Partitions that are read at a time.
pub(super) const PAGE: usize = 1024;

/// What a table leaves out of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Partitions.
    pub partitions: u64,
    /// Their files.
    pub files: u64,
    /// One of them and why, for people.
    pub example: Option<String>,
}

/// Decides about the partitions of one version.
#[derive(Debug)]
pub(super) struct Judge {
    shapes: BTreeMap<String, Shape>,
    history: History,
    /// Columns that partitions are made of, in the order of the spec.
    partition: Vec<(Arc<str>, Primitive)>,
}

impl Judge {
    pub(super) fn new(header: &Header) -> Self {
        let shapes: BTreeMap<String, Shape> = shapes(header).0.into_iter().collect();
        let partition = header
            .columns
            .iter()
            .filter_map(|(name, _)| match shapes.get(&**name) {
                Some(Shape::Primitive(kind)) if is_readable(*kind) => {
                    Some((Arc::clone(name), *kind))
                }
                _ => None,
            });
        Self {
            partition: partition.collect(),
            history: History::of(&header.notes),
            shapes,
        }
    }

    /// Whether some partition may be left out.
    pub(super) fn may_refuse(&self) -> bool {
        let told = |kind: &Primitive| *kind != Primitive::String;
        !self.history.is_empty() || self.partition.iter().any(|(_, kind)| told(kind))
    }

    /// The partition's values, in the order of the spec; or why the table does not have it.
    pub(super) fn values(&self, partition: &Partition) -> Result<Vec<Option<Datum>>, String> {
        if !self.history.is_empty() {
            self.check_types(partition)?;
        }
        let value = |(name, kind): &(Arc<str>, Primitive)| {
            let found = partition.values.iter().find(|(own, _)| own == name);
            let Some((_, Some(text))) = found else {
                return Ok(None);
            };
            let value = Datum::read(*kind, text);
            let refused = || format!("{name}={text} is no value of type {kind}");
            value.map(Some).ok_or_else(refused)
        };
        self.partition.iter().map(value).collect()
    }

    fn check_types(&self, partition: &Partition) -> Result<(), String> {
        let own = match self.history.own(&partition.notes) {
            Own::Types(own) => own,
            Own::Mixed => return Err("its files have several types of one column".to_owned()),
            Own::Numbered => {
                return Err("columns of its files have numbers that are not the table's".to_owned());
            }
        };
        for (name, own) in own {
            let Some(table) = self.shapes.get(&name) else {
                continue;
            };
            let fits = shape(&own).is_some_and(|shape| shape.reads_as(table));
            if !fits {
                let own = serde_json::to_string(&own).unwrap_or_default();
                let table = table.kind();
                return Err(format!(
                    "column {name} is {own} in its files and {table} now"
                ));
            }
        }
        Ok(())
    }
}

impl LeftOut {
    pub(super) fn add(&mut self, partition: &Partition, why: String) {
        self.partitions += 1;
        self.files += partition.files;
        let path = &partition.path;
        self.example.get_or_insert_with(|| format!("{path}: {why}"));
    }
}

/// What the table of a version leaves out. Reads the partitions only where something can be.
pub async fn left_out(manifest: &Manifest) -> Result<LeftOut, ManifestError> {
    let judge = Judge::new(manifest.header());
    let mut left_out = LeftOut::default();
    if !judge.may_refuse() {
        return Ok(left_out);
    }
    let mut after: Option<Arc<str>> = None;
    loop {
        let page = manifest.partitions(after.as_deref(), PAGE).await?;
        for partition in &page {
            if let Err(why) = judge.values(partition) {
                left_out.add(partition, why);
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(Arc::clone(&last.path)),
            _ => return Ok(left_out),
        }
    }
}

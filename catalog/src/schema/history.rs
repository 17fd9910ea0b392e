//! Which types the files of each partition have, when they are not those of the table.
//!
//! ```text
//! note of the header     "retyped.000001"  {"x":"int32"}   types that columns had before the first change
//!                        "retyped.000002"  ...             before the second, and so on
//!                        "retyped.000000"  {}              some partition has a note "types"
//! note of a partition    "epoch"           "1"             it was published behind the first change
//!                        "types"           {"x":"int32"}   types of its files that are others than the
//!                                                          table's of that time; "mixed": several of one
//!                                                          column; "numbered": see [`NUMBERED`]
//! ```
//!
//! So a table whose columns never changed has none of these, and a change of one column costs the
//! manifest one note, however many partitions there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::types::{Schema, Type};
use crate::manifest::MAX_TEXT;

/// Partition's note: how many changes were behind it.
pub(crate) const EPOCH: &str = "epoch";
/// Partition's note: types of its files.
pub(crate) const TYPES: &str = "types";
/// What [`TYPES`] says when the files of one partition contradict each other.
pub(crate) const MIXED: &str = "mixed";
/// What [`TYPES`] says when columns of the files have numbers: readers that find some take them for
/// those of the table, whatever the names are.
pub(crate) const NUMBERED: &str = "numbered";
/// How the header's notes begin.
const RETYPED: &str = "retyped.";

/// Notes of a header or of a partition.
type Notes = [(Arc<str>, Arc<str>)];

/// What the header says about types of before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// Number of the change -> the types before it.
    changes: BTreeMap<u64, BTreeMap<String, Type>>,
}

/// Types of a partition's files that may be others than the table's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// By column; all others are the table's.
    Types(BTreeMap<String, Type>),
    /// Some column has several types.
    Mixed,
    /// Its columns have numbers.
    Numbered,
}

impl History {
    /// Reads a header's notes. What cannot be read is no change.
    pub(crate) fn of(notes: &Notes) -> Self {
        let changes = notes.iter().filter_map(|(name, text)| {
            let number = name.strip_prefix(RETYPED)?.parse().ok()?;
            Some((number, serde_json::from_str(text).ok()?))
        });
        Self {
            changes: changes.collect(),
        }
    }

    /// Whether every partition's files have the types of the table.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The number of the last change.
    pub(crate) fn epoch(&self) -> u64 {
        self.changes.keys().next_back().copied().unwrap_or(0)
    }

    /// Notes that the columns are to be `new` from now on.
    pub(crate) fn change(&mut self, old: &Schema, new: &Schema) {
        let changed = old.fields.iter().filter(|field| {
            let now = new.field(&field.name);
            now.is_none_or(|now| now.data_type != field.data_type)
        });
        let before: BTreeMap<String, Type> = changed
            .map(|field| (field.name.clone(), field.data_type.clone()))
            .collect();
        if !before.is_empty() {
            self.changes.insert(self.epoch() + 1, before);
        }
    }

    /// Notes that some partition has a note of its own.
    pub(crate) fn mark(&mut self) {
        self.changes.entry(0).or_default();
    }

    /// Replaces what a header's notes say, in order.
    pub(crate) fn write(&self, notes: &mut Vec<(Arc<str>, Arc<str>)>) {
        notes.retain(|(name, _)| !name.starts_with(RETYPED));
        for (number, before) in &self.changes {
            let text = serde_json::to_string(before).unwrap_or_default();
            notes.push((format!("{RETYPED}{number:06}").into(), text.into()));
        }
        notes.sort();
    }

    /// The types of a partition's files, by its notes.
    pub(crate) fn own(&self, notes: &Notes) -> Own {
        let note = |wanted: &str| {
            let found = notes.iter().find(|(name, _)| &**name == wanted);
            found.map(|(_, text)| &**text)
        };
        let epoch: u64 = note(EPOCH).and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut types: BTreeMap<String, Type> = BTreeMap::new();
        let behind = (std::ops::Bound::Excluded(epoch), std::ops::Bound::Unbounded);
        for before in self.changes.range(behind).map(|(_, before)| before) {
            for (name, data_type) in before {
                // The first change behind the partition tells what its files have.
                let own = types.entry(name.clone());
                own.or_insert_with(|| data_type.clone());
            }
        }
        match note(TYPES) {
            None => {}
            Some(MIXED) => return Own::Mixed,
            Some(NUMBERED) => return Own::Numbered,
            Some(text) => match serde_json::from_str::<BTreeMap<String, Type>>(text) {
                Ok(own) => types.extend(own),
                Err(_) => return Own::Mixed,
            },
        }
        Own::Types(types)
    }
}

/// The note [`TYPES`] of a partition with columns `own` in a table with columns `table`; none when it
/// needs none.
pub(crate) fn types_note(own: &Schema, table: &Schema) -> Option<String> {
    let others = own.fields.iter().filter(|field| {
        let of_table = table.field(&field.name);
        of_table.is_some_and(|of_table| of_table.data_type != field.data_type)
    });
    let others: BTreeMap<&str, &Type> = others
        .map(|field| (field.name.as_str(), &field.data_type))
        .collect();
    if others.is_empty() {
        return None;
    }
    let text = serde_json::to_string(&others).unwrap_or_default();
    Some(match text.len() {
        1..=MAX_TEXT => text,
        _ => MIXED.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Field;

    fn schema(fields: &[(&str, Type)]) -> Schema {
        let field = |(name, data_type): &(&str, Type)| Field {
            name: (*name).to_owned(),
            data_type: data_type.clone(),
            nullable: true,
        };
        Schema {
            fields: fields.iter().map(field).collect(),
        }
    }

    fn notes(pairs: &[(&str, &str)]) -> Vec<(Arc<str>, Arc<str>)> {
        let note = |(name, text): &(&str, &str)| (Arc::from(*name), Arc::from(*text));
        pairs.iter().map(note).collect()
    }

    // A partition that is believed to have the columns of today is read as what it is not.
    #[test]
    fn a_partition_has_the_types_of_its_time() {
        let mut history = History::default();
        assert!(history.is_empty());
        history.change(
            &schema(&[("x", Type::Int32), ("y", Type::Date)]),
            &schema(&[("x", Type::Int64), ("y", Type::Date)]),
        );
        history.change(
            &schema(&[("x", Type::Int64), ("y", Type::Date)]),
            &schema(&[("x", Type::String)]),
        );
        let mut header = notes(&[("confidence", "certain")]);
        history.write(&mut header);
        let history = History::of(&header);
        assert_eq!((history.epoch(), header.len()), (2, 3));

        let own = |pairs: &[(&str, &str)]| match history.own(&notes(pairs)) {
            Own::Mixed | Own::Numbered => None,
            Own::Types(types) => Some(types.into_iter().collect::<Vec<_>>()),
        };
        let (x, y) = ("x".to_owned(), "y".to_owned());
        let first = vec![(x.clone(), Type::Int32), (y.clone(), Type::Date)];
        assert_eq!(own(&[]), Some(first));
        let second = vec![(x.clone(), Type::Int64), (y, Type::Date)];
        assert_eq!(own(&[(EPOCH, "1")]), Some(second));
        assert_eq!(own(&[(EPOCH, "2")]), Some(Vec::new()));
        let told = own(&[(EPOCH, "2"), (TYPES, r#"{"x":"int8"}"#)]);
        assert_eq!(told, Some(vec![(x, Type::Int8)]));
        assert_eq!(own(&[(TYPES, MIXED)]), None);
        assert_eq!(own(&[(TYPES, "{")]), None);
        let numbered = history.own(&notes(&[(TYPES, NUMBERED)]));
        assert_eq!(numbered, Own::Numbered);
    }

    // A note that is too long for the manifest would keep the partition from being published.
    #[test]
    fn a_long_note_is_cut_to_a_warning() {
        let long: String = "x".repeat(MAX_TEXT);
        let own = schema(&[(&long, Type::Int32)]);
        assert_eq!(types_note(&own, &own), None);
        let table = schema(&[(&long, Type::String)]);
        assert_eq!(types_note(&own, &table).as_deref(), Some(MIXED));
    }
}

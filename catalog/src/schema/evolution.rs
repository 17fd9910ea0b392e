//! What a new version may change about the columns, by the dataset's policy.
//!
//! | change | compatible |
//! | --- | --- |
//! | a column is added | yes, when it may be absent |
//! | a number becomes wider, required becomes optional | yes |
//! | a column is dropped, or its type changes otherwise | no |
//! | an added column is required | no: older files do not have it |
//!
//! Under [`Policy::Warn`], the default, an incompatible version is published and says what changed;
//! under [`Policy::Refuse`] it is not, and `why` says what changed.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::types::{Field, Schema, Type};

/// What happens to an incompatible change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = EvolutionPolicy)]
pub enum Policy {
    /// Publish, and say so.
    #[default]
    Warn,
    /// Do not publish.
    Refuse,
}

/// One difference between the columns of two versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// A new column.
    Added {
        /// The column.
        column: String,
        /// Whether it may be absent.
        nullable: bool,
    },
    /// A column that is gone.
    Dropped {
        /// The column.
        column: String,
    },
    /// A column with another type.
    Retyped {
        /// The column.
        column: String,
        /// Its type before.
        from: Type,
        /// Its type now.
        to: Type,
    },
    /// A column that may now be absent, or may no longer.
    Nullability {
        /// The column.
        column: String,
        /// Whether it may be absent now.
        nullable: bool,
    },
}

/// The differences from `old` to `new`, in the order of the columns.
pub fn changes(old: &Schema, new: &Schema) -> Vec<Change> {
    let mut found = Vec::new();
    for field in &old.fields {
        let column = field.name.clone();
        match new.field(&field.name) {
            None => found.push(Change::Dropped { column }),
            Some(now) => compare(field, now, &mut found),
        }
    }
    let added = new
        .fields
        .iter()
        .filter(|field| old.field(&field.name).is_none());
    found.extend(added.map(|field| Change::Added {
        column: field.name.clone(),
        nullable: field.nullable,
    }));
    found
}

fn compare(old: &Field, new: &Field, found: &mut Vec<Change>) {
    if old.data_type != new.data_type {
        found.push(Change::Retyped {
            column: old.name.clone(),
            from: old.data_type.clone(),
            to: new.data_type.clone(),
        });
    }
    if old.nullable != new.nullable {
        found.push(Change::Nullability {
            column: old.name.clone(),
            nullable: new.nullable,
        });
    }
}

/// The columns that files with either schema can be read by: new columns are added as optional ones,
/// columns that some files lack become optional, wider numbers win.
pub fn union(old: &Schema, new: &Schema) -> Schema {
    let mut fields: Vec<Field> = old
        .fields
        .iter()
        .map(|field| match new.field(&field.name) {
            None => Field {
                nullable: true,
                ..field.clone()
            },
            Some(now) => Field {
                name: field.name.clone(),
                data_type: if widens(&now.data_type, &field.data_type) {
                    field.data_type.clone()
                } else {
                    now.data_type.clone()
                },
                nullable: field.nullable || now.nullable,
            },
        })
        .collect();
    let added = new
        .fields
        .iter()
        .filter(|field| old.field(&field.name).is_none());
    fields.extend(added.map(|field| Field {
        nullable: true,
        ..field.clone()
    }));
    Schema { fields }
}

impl Change {
    /// Whether no one type reads the files of before and of now.
    pub(crate) fn mixes_types(&self) -> bool {
        match self {
            Self::Retyped { from, to, .. } => !widens(from, to) && !widens(to, from),
            _ => false,
        }
    }

    /// Whether readers of the old columns can read the new files.
    pub fn is_compatible(&self) -> bool {
        match self {
            Self::Added { nullable, .. } => *nullable,
            Self::Dropped { .. } => false,
            Self::Retyped { from, to, .. } => widens(from, to),
            Self::Nullability { .. } => true,
        }
    }
}

/// Whether every value of `from` is one of `to`.
fn widens(from: &Type, to: &Type) -> bool {
    use Type::{Date, Decimal, Float32, Float64, Int8, Int16, Int32, Int64, Timestamp, Unknown};
    match (from, to) {
        (from, to) if from == to => true,
        (Int8, Int16 | Int32 | Int64) | (Int16, Int32 | Int64) | (Int32, Int64) => true,
        (Float32, Float64) | (Date, Timestamp) | (Unknown(_), _) => true,
        (
            Decimal {
                precision: p,
                scale: s,
            },
            Decimal { precision, scale },
        ) => s == scale && p <= precision,
        (Type::List(from), Type::List(to)) => widens(&from.data_type, &to.data_type),
        (Type::Struct(from), Type::Struct(to)) => {
            let same = |old: &Field| {
                to.iter()
                    .any(|new| new.name == old.name && widens(&old.data_type, &new.data_type))
            };
            from.iter().all(same)
        }
        _ => false,
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added {
                column,
                nullable: true,
            } => write!(f, "column {column} is new"),
            Self::Added { column, .. } => write!(f, "column {column} is new and required"),
            Self::Dropped { column } => write!(f, "column {column} is gone"),
            Self::Retyped { column, from, to } => {
                let text = |data_type: &Type| serde_json::to_string(data_type).unwrap_or_default();
                write!(f, "column {column} was {} and is {}", text(from), text(to))
            }
            Self::Nullability {
                column,
                nullable: true,
            } => write!(f, "column {column} may be absent now"),
            Self::Nullability { column, .. } => write!(f, "column {column} is required now"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(fields: &[(&str, Type, bool)]) -> Schema {
        let field = |(name, data_type, nullable): &(&str, Type, bool)| Field {
            name: (*name).to_owned(),
            data_type: data_type.clone(),
            nullable: *nullable,
        };
        Schema {
            fields: fields.iter().map(field).collect(),
        }
    }

    // A change that is called compatible and is not breaks the next training run in the middle.
    #[test]
    fn each_change_is_judged() {
        let old = schema(&[("a", Type::Int32, false), ("b", Type::String, true)]);
        let check = |new: &[(&str, Type, bool)], expected: &[bool]| {
            let found = changes(&old, &schema(new));
            let judged: Vec<bool> = found.iter().map(Change::is_compatible).collect();
            assert_eq!(judged, expected, "{found:?}");
        };
        let (a, b) = (("a", Type::Int32, false), ("b", Type::String, true));
        check(&[a.clone(), b.clone()], &[]);
        check(&[b.clone(), a.clone()], &[]);
        check(&[("a", Type::Int64, false), b.clone()], &[true]);
        check(&[("a", Type::Int16, false), b.clone()], &[false]);
        check(&[("a", Type::String, false), b.clone()], &[false]);
        check(std::slice::from_ref(&a), &[false]);
        check(&[a.clone(), b.clone(), ("c", Type::Date, true)], &[true]);
        check(&[a, b, ("c", Type::Date, false)], &[false]);
    }

    // Columns of the table must read the files of before and of now.
    #[test]
    fn the_union_reads_both() {
        let old = schema(&[("a", Type::Int32, false), ("b", Type::String, false)]);
        let new = schema(&[("a", Type::Int64, false), ("c", Type::Date, false)]);
        let expected = schema(&[
            ("a", Type::Int64, false),
            ("b", Type::String, true),
            ("c", Type::Date, true),
        ]);
        assert_eq!(union(&old, &new), expected);
        assert_eq!(
            union(&new, &old).field("a").map(|field| &field.data_type),
            Some(&Type::Int64)
        );
    }
}

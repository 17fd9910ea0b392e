//! The columns of a table with their numbers, as metadata writes them.
//!
//! ```text
//! path   name, or the path above "." and one of: a part's name, "element", "key", "value";
//!        "\" and "." in a name are written "\\" and "\."
//! ```
//!
//! Every column may be absent: files of before it was added do not have it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::shape::{Primitive, Shape, shape};
use crate::ledger::ColumnIds;
use crate::manifest::Header;
use crate::schema::Schema;

/// A column with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) kind: Numbered,
}

/// A type whose parts have numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Numbered {
    Primitive(Primitive),
    List(Box<Column>),
    Map(Box<Column>, Box<Column>),
    Struct(Vec<Column>),
}

/// A column that partitions are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartitionColumn {
    /// Number of the column.
    pub(super) source: u32,
    /// As directories name it.
    pub(super) name: Arc<str>,
    pub(super) kind: Primitive,
}

/// What the versions of a table with the same columns have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) columns: Vec<Column>,
    pub(super) partition: Vec<PartitionColumn>,
    /// Columns of the files that the format has no type for.
    pub(super) left_out: u64,
}

/// Shapes of a version's columns by name, those of its directories behind those of its files.
pub(super) fn shapes(header: &Header) -> (Vec<(String, Shape)>, u64) {
    let schema = header.schema.as_deref().and_then(Schema::from_text);
    let fields = schema.map(|schema| schema.fields).unwrap_or_default();
    let mut left_out = 0;
    let mut shapes: Vec<(String, Shape)> = Vec::new();
    for field in &fields {
        let known = shapes.iter().any(|(name, _)| *name == field.name);
        match shape(&field.data_type) {
            Some(shape) if !known => shapes.push((field.name.clone(), shape)),
            _ => left_out += 1,
        }
    }
    for (name, _) in &header.columns {
        if !shapes.iter().any(|(known, _)| **known == **name) {
            shapes.push((name.to_string(), Shape::Primitive(Primitive::String)));
        }
    }
    (shapes, left_out)
}

/// Gives numbers to the columns that have none.
pub(super) fn give(ids: &mut ColumnIds, header: &Header) {
    for (name, shape) in &shapes(header).0 {
        give_one(ids, escaped(name), shape);
    }
}

fn give_one(ids: &mut ColumnIds, path: String, shape: &Shape) {
    if ids.find(&path, |kind| shape.is_kind(kind)).is_none() {
        ids.give(&path, &shape.kind());
    }
    match shape {
        Shape::Primitive(_) => {}
        Shape::List(element) => give_one(ids, format!("{path}.element"), element),
        Shape::Map(key, value) => {
            give_one(ids, format!("{path}.key"), key);
            give_one(ids, format!("{path}.value"), value);
        }
        Shape::Struct(parts) => {
            for (name, part) in parts {
                give_one(ids, format!("{path}.{}", escaped(name)), part);
            }
        }
    }
}

impl Columns {
    /// The columns of a version; those without a number are left out (see [`give`]).
    pub(super) fn new(ids: &ColumnIds, header: &Header) -> Self {
        let (shapes, mut left_out) = shapes(header);
        let mut columns = Vec::with_capacity(shapes.len());
        for (name, shape) in &shapes {
            match numbered(ids, &escaped(name), name, shape) {
                Some(column) => columns.push(column),
                None => left_out += 1,
            }
        }
        let partition = header.columns.iter().filter_map(|(name, _)| {
            let column = columns.iter().find(|column| column.name == **name)?;
            let Numbered::Primitive(kind) = column.kind else {
                return None;
            };
            super::value::is_readable(kind).then(|| PartitionColumn {
                source: column.id,
                name: Arc::clone(name),
                kind,
            })
        });
        Self {
            partition: partition.collect(),
            columns,
            left_out,
        }
    }

    /// The greatest number among them.
    pub(super) fn last_id(&self) -> u32 {
        let mut last = 0;
        visit(&self.columns, &mut |column| last = last.max(column.id));
        last
    }

    /// The schema under the number that snapshots name it by.
    pub(super) fn schema(&self) -> Value {
        json!({"type": "struct", "schema-id": self.schema_id(), "fields": fields(&self.columns)})
    }

    /// That number.
    pub(super) fn schema_id(&self) -> u32 {
        number(&fields(&self.columns))
    }

    /// The partition spec under the number that manifests name it by.
    pub(super) fn spec(&self) -> Value {
        json!({"spec-id": self.spec_id(), "fields": self.spec_fields()})
    }

    /// That number; 0 for a table without partitions.
    pub(super) fn spec_id(&self) -> u32 {
        match self.partition.as_slice() {
            [] => 0,
            _ => number(&self.spec_fields()),
        }
    }

    /// The fields of the partition spec.
    pub(super) fn spec_fields(&self) -> Value {
        let field = |column: &PartitionColumn| {
            json!({
                "source-id": column.source,
                "field-id": partition_id(column),
                "transform": "identity",
                "name": &*column.name,
            })
        };
        self.partition.iter().map(field).collect()
    }

    /// Path of every column with its number.
    pub(super) fn paths(&self) -> BTreeMap<String, u32> {
        let mut paths = BTreeMap::new();
        collect(&self.columns, "", &mut paths);
        paths
    }
}

/// Names to numbers, for files that have no numbers in them. The same path has the same number in all
/// of `tables`.
pub(super) fn name_mapping<'a>(tables: impl IntoIterator<Item = &'a Columns>) -> Value {
    let mut all = Vec::new();
    for table in tables {
        join(&mut all, &table.columns);
    }
    mapping(&all)
}

/// Adds the columns, and the parts of columns, that are not there.
fn join(all: &mut Vec<Column>, more: &[Column]) {
    for column in more {
        let Some(known) = all.iter_mut().find(|known| known.name == column.name) else {
            all.push(column.clone());
            continue;
        };
        match (&mut known.kind, &column.kind) {
            (Numbered::Struct(parts), Numbered::Struct(more)) => join(parts, more),
            (Numbered::List(part), Numbered::List(more)) => join_one(part, more),
            (Numbered::Map(key, value), Numbered::Map(more_key, more_value)) => {
                join_one(key, more_key);
                join_one(value, more_value);
            }
            _ => {}
        }
    }
}

fn join_one(known: &mut Box<Column>, more: &Column) {
    let mut one = vec![known.as_ref().clone()];
    join(&mut one, std::slice::from_ref(more));
    if let Some(joined) = one.pop() {
        **known = joined;
    }
}

/// A number for a schema or a spec that depends on nothing else, so that the files of a version say the
/// same whatever versions there are beside it.
fn number(of: &Value) -> u32 {
    crc32c::crc32c(of.to_string().as_bytes()) & 0x7fff_ffff
}

/// Number of a partition field: of its own range, and as lasting as that of its column.
pub(super) fn partition_id(column: &PartitionColumn) -> u32 {
    // The specification lets these begin at 1000.
    column.source.saturating_add(1000)
}

fn numbered(ids: &ColumnIds, path: &str, name: &str, shape: &Shape) -> Option<Column> {
    let id = ids.find(path, |kind| shape.is_kind(kind))?;
    let part = |name: &str, shape: &Shape| {
        let path = format!("{path}.{}", escaped(name));
        numbered(ids, &path, name, shape)
    };
    let kind = match shape {
        Shape::Primitive(primitive) => Numbered::Primitive(*primitive),
        Shape::List(element) => Numbered::List(Box::new(part("element", element)?)),
        Shape::Map(key, value) => {
            Numbered::Map(Box::new(part("key", key)?), Box::new(part("value", value)?))
        }
        Shape::Struct(parts) => {
            let parts = parts.iter().map(|(name, shape)| part(name, shape));
            Numbered::Struct(parts.collect::<Option<_>>()?)
        }
    };
    let name = name.to_owned();
    Some(Column { id, name, kind })
}

fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('.', "\\.")
}

fn parts(column: &Column) -> Vec<&Column> {
    match &column.kind {
        Numbered::Primitive(_) => Vec::new(),
        Numbered::List(element) => vec![element],
        Numbered::Map(key, value) => vec![key, value],
        Numbered::Struct(parts) => parts.iter().collect(),
    }
}

fn visit<'a>(columns: impl IntoIterator<Item = &'a Column>, each: &mut impl FnMut(&'a Column)) {
    let mut rest: Vec<&Column> = columns.into_iter().collect();
    while let Some(column) = rest.pop() {
        each(column);
        rest.extend(parts(column));
    }
}

fn collect(columns: &[Column], above: &str, paths: &mut BTreeMap<String, u32>) {
    for column in columns {
        let path = format!("{above}{}", escaped(&column.name));
        let below = parts(column).into_iter().cloned().collect::<Vec<_>>();
        collect(&below, &format!("{path}."), paths);
        paths.insert(path, column.id);
    }
}

fn fields(columns: &[Column]) -> Value {
    let field = |column: &Column| {
        json!({
            "id": column.id,
            "name": column.name,
            "required": false,
            "type": type_json(&column.kind),
        })
    };
    columns.iter().map(field).collect()
}

fn type_json(kind: &Numbered) -> Value {
    match kind {
        Numbered::Primitive(primitive) => json!(primitive.to_string()),
        Numbered::List(element) => json!({
            "type": "list",
            "element-id": element.id,
            "element": type_json(&element.kind),
            "element-required": false,
        }),
        Numbered::Map(key, value) => json!({
            "type": "map",
            "key-id": key.id,
            "key": type_json(&key.kind),
            "value-id": value.id,
            "value": type_json(&value.kind),
            "value-required": false,
        }),
        Numbered::Struct(parts) => json!({"type": "struct", "fields": fields(parts)}),
    }
}

fn mapping(columns: &[Column]) -> Value {
    let one = |column: &Column| {
        let below: Vec<Column> = parts(column).into_iter().cloned().collect();
        let mut entry = json!({"field-id": column.id, "names": [column.name]});
        if !below.is_empty() {
            entry["fields"] = mapping(&below);
        }
        entry
    };
    columns.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::schema::{Field, Type};

    fn header(fields: &[(&str, Type)], partition: &[&str]) -> Header {
        let field = |(name, data_type): &(&str, Type)| Field {
            name: (*name).to_owned(),
            data_type: data_type.clone(),
            nullable: true,
        };
        let schema = Schema {
            fields: fields.iter().map(field).collect(),
        };
        Header {
            schema: Some(schema.to_text().into()),
            columns: partition
                .iter()
                .map(|name| (Arc::from(*name), Arc::from("string")))
                .collect(),
            ..Header::default()
        }
    }

    fn id(columns: &Columns, name: &str) -> u32 {
        columns.paths()[name]
    }

    // A number that moves to another column makes a query read that column instead.
    #[test]
    fn numbers_stay_and_are_never_given_again() {
        let mut ids = ColumnIds::default();
        let element = Field {
            name: "element".into(),
            data_type: Type::String,
            nullable: true,
        };
        let first = header(
            &[("a", Type::Int32), ("tags", Type::List(Box::new(element)))],
            &["dt"],
        );
        give(&mut ids, &first);
        let one = Columns::new(&ids, &first);
        assert_eq!(one.paths().len(), 4);
        assert_eq!(one.last_id(), 4);

        let added = header(&[("b", Type::Date), ("a", Type::Int64)], &["dt"]);
        give(&mut ids, &added);
        let two = Columns::new(&ids, &added);
        assert_eq!(id(&two, "a"), id(&one, "a"));
        assert_eq!(id(&two, "dt"), id(&one, "dt"));
        assert_eq!(id(&two, "b"), 5);

        let another = header(&[("a", Type::String), ("b.c", Type::Date)], &["dt"]);
        give(&mut ids, &another);
        let three = Columns::new(&ids, &another);
        assert_eq!((id(&three, "a"), id(&three, "b\\.c")), (6, 7));
        let before = ids.clone();
        for header in [&first, &added, &another] {
            give(&mut ids, header);
        }
        assert_eq!(ids, before);
        assert_eq!(Columns::new(&ids, &first), one);
    }

    // A partition column that the files hold too is one column, of the files' type.
    #[test]
    fn a_column_of_directories_is_in_the_table_once() {
        let mut ids = ColumnIds::default();
        let both = header(&[("x", Type::Uint64), ("dt", Type::Date)], &["dt", "hour"]);
        give(&mut ids, &both);
        let columns = Columns::new(&ids, &both);
        assert_eq!(columns.left_out, 1);
        let kinds: Vec<Primitive> = columns.partition.iter().map(|one| one.kind).collect();
        assert_eq!(kinds, [Primitive::Date, Primitive::String]);
        let fields = columns.spec_fields();
        assert_eq!(fields[0]["source-id"], id(&columns, "dt"));
        assert_eq!(fields.as_array().unwrap().len(), 2);
    }
}

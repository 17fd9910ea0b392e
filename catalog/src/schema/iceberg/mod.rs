//! Iceberg tables that others write: which files their current snapshot has.
//!
//! ```text
//! metadata/00007-<uuid>.metadata.json, v7.metadata.json     the highest number counts
//!   current snapshot -> list of manifests (Avro) -> manifests (Avro) -> data files
//! ```
//!
//! Only tables whose plain files show exactly the table's rows are followed: delete files, other formats
//! than Parquet and files outside the table's directory are refused with their reason. Versions 1 and 2 of
//! the specification.

mod avro;

use serde::Deserialize;
use serde_json::Value as Json;

use super::types::{Field, Schema, Type};

/// Deepest nesting of columns that is followed.
const DEPTH_MAX: usize = 64;

/// Status of an entry whose file the snapshot does not have any more.
const DELETED: i64 = 2;

/// What the metadata of a table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// Where the table is, as its writer spells it.
    location: String,
    /// The current snapshot and its list of manifests.
    pub(crate) snapshot: Option<(i64, String)>,
    /// The columns.
    pub(crate) schema: Option<Schema>,
}

/// A data file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DataFile {
    /// Its path below the table.
    pub(crate) path: String,
    /// Bytes.
    pub(crate) size: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawMetadata {
    format_version: u64,
    location: String,
    current_snapshot_id: Option<i64>,
    #[serde(default)]
    snapshots: Vec<RawSnapshot>,
    schema: Option<Json>,
    #[serde(default)]
    schemas: Vec<Json>,
    current_schema_id: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawSnapshot {
    snapshot_id: i64,
    manifest_list: Option<String>,
}

/// The number of a metadata file, by its name in the directory of metadata.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let stem = name.strip_suffix(".metadata.json")?;
    let stem = stem.strip_prefix('v').unwrap_or(stem);
    let digits = stem.split('-').next().unwrap_or_default();
    digits.parse().ok()
}

impl Metadata {
    /// Reads a metadata file. The error is shown by `why`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw: RawMetadata = serde_json::from_slice(bytes)
            .map_err(|error| format!("the Iceberg metadata cannot be read: {error}"))?;
        if !(1..=2).contains(&raw.format_version) {
            let version = raw.format_version;
            return Err(format!(
                "the Iceberg table has format version {version}: 1 and 2 are read"
            ));
        }
        let current = raw.current_snapshot_id.filter(|id| *id >= 0);
        let snapshot = match current {
            None => None,
            Some(id) => {
                let mut snapshots = raw.snapshots.into_iter();
                let found = snapshots.find(|snapshot| snapshot.snapshot_id == id);
                let list = found.and_then(|snapshot| snapshot.manifest_list);
                let missing = || format!("the Iceberg metadata has no list of manifests of {id}");
                Some((id, list.ok_or_else(missing)?))
            }
        };
        let schemas = raw.schemas.into_iter();
        let wanted = raw.current_schema_id;
        let newest = schemas
            .filter(|schema| schema.get("schema-id").and_then(Json::as_i64) == wanted)
            .chain(raw.schema)
            .next();
        Ok(Self {
            location: raw.location,
            snapshot,
            schema: newest
                .and_then(|schema| fields(&schema, 0))
                .map(|fields| Schema { fields }),
        })
    }

    /// The path below the table of a file that metadata names by a URL.
    pub(crate) fn below(&self, url: &str) -> Result<String, String> {
        let location = plain(&self.location);
        let path = plain(url);
        let below = path.strip_prefix(location.trim_end_matches('/'));
        let below = below.and_then(|rest| rest.strip_prefix('/'));
        let outside =
            || format!("the Iceberg table names a file outside its directory: {url:.200}");
        let below = below.ok_or_else(outside)?;
        match below.split('/').any(|part| matches!(part, "" | "." | "..")) {
            true => Err(outside()),
            false => Ok(below.to_owned()),
        }
    }

    /// The paths of the manifests that a list names.
    pub(crate) fn manifests(&self, list: &[u8]) -> Result<Vec<String>, String> {
        let records = read(list, "the list of manifests")?;
        let path = |record: &avro::Value| {
            if record
                .part("content")
                .long()
                .is_some_and(|content| content != 0)
            {
                return Err(
                    "the Iceberg table has delete files: its plain files would show \
                            deleted rows"
                        .to_owned(),
                );
            }
            let path = record.part("manifest_path").text();
            self.below(path.ok_or("the list of manifests names no path")?)
        };
        records.iter().map(path).collect()
    }

    /// The data files of a manifest.
    pub(crate) fn files(&self, manifest: &[u8]) -> Result<Vec<DataFile>, String> {
        let records = read(manifest, "a manifest")?;
        let live = records
            .iter()
            .filter(|record| record.part("status").long() != Some(DELETED));
        live.map(|record| self.file(record.part("data_file")))
            .collect()
    }

    fn file(&self, file: &avro::Value) -> Result<DataFile, String> {
        if file
            .part("content")
            .long()
            .is_some_and(|content| content != 0)
        {
            return Err("the Iceberg table has delete files".to_owned());
        }
        let format = file.part("file_format").text().unwrap_or_default();
        if !format.eq_ignore_ascii_case("parquet") {
            return Err(format!(
                "the Iceberg table has {format:.20} files: only Parquet is followed"
            ));
        }
        let size = file.part("file_size_in_bytes").long();
        let size = size.and_then(|size| u64::try_from(size).ok());
        Ok(DataFile {
            path: self.below(file.part("file_path").text().unwrap_or_default())?,
            size: size.ok_or("a manifest tells no size of a file")?,
        })
    }
}

fn read(bytes: &[u8], what: &str) -> Result<Vec<avro::Value>, String> {
    avro::read(bytes).map_err(|error| format!("{what} of the Iceberg table {error}"))
}

/// One spelling for the ways in which writers spell the same place.
fn plain(url: &str) -> String {
    let (scheme, rest) = url.split_once(':').unwrap_or(("file", url));
    match scheme {
        "file" => format!("/{}", rest.trim_start_matches('/')),
        "s3a" | "s3n" => format!("s3:{rest}"),
        _ => url.to_owned(),
    }
}

/// The columns of a structure in metadata; none when they cannot be understood.
fn fields(of: &Json, depth: usize) -> Option<Vec<Field>> {
    if depth > DEPTH_MAX {
        return None;
    }
    let fields = of.get("fields")?.as_array()?.iter().map(|field| {
        let nullable = !field.get("required")?.as_bool()?;
        let name = field.get("name")?.as_str()?.to_owned();
        let data_type = data_type(field.get("type")?, depth + 1)?;
        Some(Field {
            name,
            data_type,
            nullable,
        })
    });
    fields.collect()
}

fn data_type(of: &Json, depth: usize) -> Option<Type> {
    if depth > DEPTH_MAX {
        return None;
    }
    let part = |name: &str, of_type: &str, required: &str| {
        Some(Box::new(Field {
            name: name.to_owned(),
            data_type: data_type(of.get(of_type)?, depth + 1)?,
            nullable: !of.get(required).and_then(Json::as_bool).unwrap_or(true),
        }))
    };
    if let Some(name) = of.as_str() {
        return Some(primitive(name));
    }
    match of.get("type")?.as_str()? {
        "struct" => fields(of, depth).map(Type::Struct),
        "list" => part("element", "element", "element-required").map(Type::List),
        "map" => Some(Type::Map {
            key: part("key", "key", "key-required")?,
            value: part("value", "value", "value-required")?,
        }),
        _ => None,
    }
}

fn primitive(name: &str) -> Type {
    let digits = |text: &str| {
        let (precision, scale) = text.split_once(',')?;
        let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
        Some(Type::Decimal { precision, scale })
    };
    let within = |head: &str, end: char| name.strip_prefix(head)?.strip_suffix(end);
    match name {
        "boolean" => Type::Boolean,
        "int" => Type::Int32,
        "long" => Type::Int64,
        "float" => Type::Float32,
        "double" => Type::Float64,
        "date" => Type::Date,
        "time" => Type::Time,
        "timestamp" => Type::Timestamp,
        "timestamptz" => Type::Timestamptz,
        "string" => Type::String,
        "binary" => Type::Binary,
        "uuid" => Type::Uuid,
        other => within("decimal(", ')')
            .and_then(digits)
            .or_else(|| within("fixed[", ']')?.parse().ok().map(Type::Fixed))
            .unwrap_or_else(|| Type::Unknown(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;

    // The wrong metadata file is another state of the table.
    #[test]
    fn metadata_files_have_numbers() {
        for (name, number) in [
            ("00012-8a1c.metadata.json", Some(12)),
            ("v3.metadata.json", Some(3)),
            ("snap-1.avro", None),
            ("v3.gz.metadata.json", None),
            (".metadata.json", None),
        ] {
            assert_eq!(number_of(name), number, "{name}");
        }
    }

    // Files beside delete files show rows that the table has deleted.
    #[test]
    fn deletes_and_other_formats_are_refused() {
        let metadata = br#"{"format-version":2,"location":"/t"}"#;
        let table = Metadata::parse(metadata).unwrap();
        let list = |content: u8| {
            let schema = r#"{"type":"record","name":"manifest_file","fields":[
                {"name":"manifest_path","type":"string"},{"name":"content","type":"int"}]}"#;
            avro::write(
                schema,
                &[12, b'/', b't', b'/', b'm', b'/', b'a', content * 2],
                1,
            )
        };
        assert_eq!(table.manifests(&list(0)).unwrap(), ["m/a"]);
        assert!(
            table
                .manifests(&list(1))
                .unwrap_err()
                .contains("delete files")
        );
        let manifest = |status: u8, format: &[u8; 3]| {
            let schema = r#"{"type":"record","name":"manifest_entry","fields":[
                {"name":"status","type":"int"},{"name":"data_file","type":{"type":"record",
                "name":"r2","fields":[{"name":"file_path","type":"string"},
                {"name":"file_format","type":"string"},
                {"name":"file_size_in_bytes","type":"long"}]}}]}"#;
            let head = [status * 2, 8, b'/', b't', b'/', b'a', 6];
            avro::write(schema, &[&head[..], format, &[20]].concat(), 1)
        };
        assert!(table.files(&manifest(2, b"ORC")).unwrap().is_empty());
        let refused = table.files(&manifest(1, b"ORC")).unwrap_err();
        assert!(refused.contains("ORC"), "{refused}");
    }

    // A path that leads out of the table would publish a file of somebody else.
    #[test]
    fn files_stay_below_the_table() {
        let metadata = |location: &str| {
            let text = json!({"format-version": 2, "location": location,
                "current-snapshot-id": 7, "current-schema-id": 1,
                "snapshots": [{"snapshot-id": 7, "manifest-list": "x"}],
                "schemas": [{"schema-id": 1, "fields": [
                    {"name": "id", "required": true, "type": "long"},
                    {"name": "price", "required": false, "type": "decimal(9, 2)"}]}]});
            Metadata::parse(text.to_string().as_bytes()).unwrap()
        };
        let table = metadata("s3a://lake/t/");
        assert_eq!(table.snapshot, Some((7, "x".to_owned())));
        let fields = table.schema.as_ref().unwrap();
        assert_eq!(
            fields.fields[1].data_type,
            Type::Decimal {
                precision: 9,
                scale: 2
            }
        );
        assert_eq!(
            table.below("s3://lake/t/data/a.parquet").unwrap(),
            "data/a.parquet"
        );
        for outside in [
            "s3://lake/t2/a",
            "s3://lake/t/../a",
            "s3://lake/t",
            "t/a",
            "",
        ] {
            assert!(table.below(outside).is_err(), "{outside}");
        }
        assert_eq!(
            metadata("file:///w/t").below("file:/w/t/d/a").unwrap(),
            "d/a"
        );
        assert!(Metadata::parse(br#"{"format-version":3,"location":"x"}"#).is_err());
        let gone = br#"{"format-version":2,"location":"x","current-snapshot-id":7}"#;
        assert!(Metadata::parse(gone).is_err());
    }
}

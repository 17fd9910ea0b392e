//! Delta tables: their log says exactly which files a version has.
//!
//! ```text
//! _delta_log/00000000000000000007.json                 one action per line: metaData, add, remove, ...
//! _delta_log/00000000000000000010.checkpoint.parquet   the state at version 10 (also in parts)
//! ```
//!
//! The log is replayed from its newest checkpoint that can be read, or from version 0. Tables whose plain
//! files show more rows than the table has (deletion vectors) or other columns (mapped names) are refused
//! with their reason: nothing that is published may be wrong.

mod checkpoint;

use std::collections::BTreeMap;

pub(crate) use checkpoint::{Checkpoint, checkpoints, read as read_checkpoint};
use serde::Deserialize;

use super::types::{Field, Schema, Type};

/// The setting that gives columns other names than their files do.
const COLUMN_MAPPING: &str = "delta.columnMapping.mode";

const DELETION_VECTORS: &str =
    "the Delta table has deletion vectors: its plain files would show deleted rows";

/// What a Delta log says.
#[derive(Debug, Default)]
pub(crate) struct DeltaLog {
    /// The version to replay next.
    pub(crate) next: u64,
    /// Path below the table -> size and rows.
    pub(crate) files: BTreeMap<String, (u64, Option<u64>)>,
    /// The columns.
    pub(crate) schema: Option<Schema>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Action {
    add: Option<Add>,
    remove: Option<Remove>,
    meta_data: Option<MetaData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Add {
    path: String,
    size: u64,
    stats: Option<String>,
    deletion_vector: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Remove {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetaData {
    schema_string: String,
    #[serde(default)]
    configuration: BTreeMap<String, String>,
}

/// The version of a log file's name.
pub(crate) fn version_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json")?;
    number(digits, 20)
}

/// A number of exactly so many digits, as names in a log have them, and small enough to count on from.
fn number(text: &str, digits: usize) -> Option<u64> {
    let all = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = all.then(|| text.parse().ok()).flatten();
    number.filter(|number| *number < u64::MAX / 2)
}

impl DeltaLog {
    /// Version of the table; 0 before anything was replayed, too.
    pub(crate) fn version(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Replays one log file. `version` must be the one behind the last. The text is shown by `why`.
    pub(crate) fn apply(&mut self, version: u64, bytes: &[u8]) -> Result<(), String> {
        self.next = version + 1;
        for line in bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let action: Action = serde_json::from_slice(line).map_err(|error| {
                format!("version {version} of the Delta log cannot be read: {error}")
            })?;
            if let Some(remove) = action.remove {
                self.files.remove(&decode(&remove.path)?);
            }
            if let Some(add) = action.add {
                self.add(add)?;
            }
            if let Some(meta) = action.meta_data {
                let mapping = meta.configuration.get(COLUMN_MAPPING);
                self.describe(&meta.schema_string, mapping.map(String::as_str))?;
            }
        }
        Ok(())
    }

    /// Takes in what the table says about its columns.
    fn describe(&mut self, columns: &str, mapping: Option<&str>) -> Result<(), String> {
        if mapping.is_some_and(|mode| mode != "none") {
            let text = "the Delta table maps column names, which its plain files do not";
            return Err(text.to_owned());
        }
        self.schema = schema(columns);
        Ok(())
    }

    fn add(&mut self, add: Add) -> Result<(), String> {
        if add.deletion_vector.is_some_and(|vector| !vector.is_null()) {
            return Err(DELETION_VECTORS.to_owned());
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Stats {
            num_records: Option<u64>,
        }
        let stats = add
            .stats
            .and_then(|stats| serde_json::from_str::<Stats>(&stats).ok());
        let rows = stats.and_then(|stats| stats.num_records);
        self.files.insert(decode(&add.path)?, (add.size, rows));
        Ok(())
    }
}

/// A path of the log: relative, percent-encoded as in a URI.
fn decode(path: &str) -> Result<String, String> {
    if path.starts_with('/') || path.contains("://") {
        return Err(format!(
            "the Delta table names a file outside its directory: {}",
            crate::name::shortened(path)
        ));
    }
    let hex = |digit: u8| char::from(digit).to_digit(16);
    let bytes = path.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let pair = bytes
            .get(at + 1)
            .copied()
            .and_then(hex)
            .zip(bytes.get(at + 2).copied().and_then(hex));
        match (bytes[at], pair) {
            (b'%', Some((high, low))) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).map_err(|_| "the Delta table names a file that is not UTF-8".to_owned())
}

/// The schema string of a Delta table: Spark's JSON of a struct.
fn schema(text: &str) -> Option<Schema> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    match data_type(&value) {
        Type::Struct(fields) => Some(Schema { fields }),
        _ => None,
    }
}

fn data_type(value: &serde_json::Value) -> Type {
    if let Some(name) = value.as_str() {
        return primitive(name);
    }
    let nullable = |key: &str| value[key].as_bool().unwrap_or(true);
    let part = |name: &str, key: &str, nullable: bool| {
        let data_type = data_type(&value[key]);
        Box::new(Field {
            name: name.to_owned(),
            data_type,
            nullable,
        })
    };
    match value["type"].as_str() {
        Some("struct") => {
            let fields = value["fields"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            let field = |field: &serde_json::Value| Field {
                name: field["name"].as_str().unwrap_or_default().to_owned(),
                data_type: data_type(&field["type"]),
                nullable: field["nullable"].as_bool().unwrap_or(true),
            };
            Type::Struct(fields.iter().map(field).collect())
        }
        Some("array") => Type::List(part("element", "elementType", nullable("containsNull"))),
        Some("map") => Type::Map {
            key: part("key", "keyType", false),
            value: part("value", "valueType", nullable("valueContainsNull")),
        },
        other => Type::Unknown(other.unwrap_or_default().to_owned()),
    }
}

fn primitive(name: &str) -> Type {
    match name {
        "boolean" => Type::Boolean,
        "byte" => Type::Int8,
        "short" => Type::Int16,
        "integer" => Type::Int32,
        "long" => Type::Int64,
        "float" => Type::Float32,
        "double" => Type::Float64,
        "string" => Type::String,
        "binary" => Type::Binary,
        "date" => Type::Date,
        "timestamp" => Type::Timestamptz,
        "timestamp_ntz" => Type::Timestamp,
        other => decimal(other).unwrap_or_else(|| Type::Unknown(other.to_owned())),
    }
}

fn decimal(name: &str) -> Option<Type> {
    let (precision, scale) = name
        .strip_prefix("decimal(")?
        .strip_suffix(')')?
        .split_once(',')?;
    Some(Type::Decimal {
        precision: precision.trim().parse().ok()?,
        scale: scale.trim().parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    // A removed file that stays, or an added one that is missing, is a wrong version.
    #[test]
    fn the_log_is_replayed() {
        let mut log = DeltaLog::default();
        let schema = r#"{\"type\":\"struct\",\"fields\":[{\"name\":\"id\",\"type\":\"long\",\"nullable\":false},{\"name\":\"p\",\"type\":\"decimal(9,2)\",\"nullable\":true}]}"#;
        let first = format!(
            "{{\"protocol\":{{\"minReaderVersion\":1}}}}\n{{\"metaData\":{{\"schemaString\":\"{schema}\"}}}}\n\
             {{\"add\":{{\"path\":\"dt=1/a%20b.parquet\",\"size\":3,\"stats\":\"{{\\\"numRecords\\\":7}}\"}}}}\n\
             {{\"add\":{{\"path\":\"c.parquet\",\"size\":4}}}}"
        );
        log.apply(0, first.as_bytes()).unwrap();
        log.apply(1, b"{\"remove\":{\"path\":\"c.parquet\"}}\n")
            .unwrap();
        assert_eq!(
            log.files.into_iter().collect::<Vec<_>>(),
            [("dt=1/a b.parquet".to_owned(), (3, Some(7)))]
        );
        let fields = log.schema.unwrap().fields;
        assert_eq!(fields[0].data_type, Type::Int64);
        assert_eq!(
            fields[1].data_type,
            Type::Decimal {
                precision: 9,
                scale: 2
            }
        );
    }

    // Plain files of such tables show rows that the table does not have.
    #[test]
    fn what_plain_files_cannot_show_is_refused() {
        for bad in [
            r#"{"add":{"path":"a","size":1,"deletionVector":{"storageType":"u"}}}"#,
            r#"{"add":{"path":"s3://other/a","size":1}}"#,
            r#"{"add":{"path":"/etc/passwd","size":1}}"#,
            r#"{"metaData":{"schemaString":"","configuration":{"delta.columnMapping.mode":"name"}}}"#,
            "{",
        ] {
            assert!(
                DeltaLog::default().apply(0, bad.as_bytes()).is_err(),
                "{bad}"
            );
        }
        assert_eq!(version_of("00000000000000000012.json"), Some(12));
        assert_eq!(version_of("00000000000000000012.checkpoint.parquet"), None);
    }

    proptest! {
        // The bytes are a stranger's.
        #[test]
        fn any_log_is_answered(text in any::<String>()) {
            let _ = DeltaLog::default().apply(0, text.as_bytes());
            let _ = (decode(&text), schema(&text));
        }
    }
}

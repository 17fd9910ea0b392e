//! Columns and their types, as the catalog writes them into a manifest: JSON, one object per column.
//!
//! ```text
//! {"fields":[{"name":"id","type":"int64","nullable":false},
//!            {"name":"tags","type":{"list":{"name":"element","type":"string","nullable":true}},"nullable":true}]}
//! ```

use serde::{Deserialize, Serialize};

/// The columns of a table, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// The columns.
    pub fields: Vec<Field>,
}

/// A column, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub data_type: Type,
    /// Whether it may have no value.
    pub nullable: bool,
}

/// Type of a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the usual ones of these types")]
pub enum Type {
    Boolean,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Float16,
    Float32,
    Float64,
    Decimal {
        precision: u32,
        scale: i32,
    },
    Date,
    /// Time of day.
    Time,
    /// Without a time zone.
    Timestamp,
    /// A moment in UTC.
    Timestamptz,
    String,
    Binary,
    /// That many bytes.
    Fixed(u32),
    Uuid,
    List(Box<Field>),
    Map {
        key: Box<Field>,
        value: Box<Field>,
    },
    Struct(Vec<Field>),
    /// A type that this program does not name.
    Unknown(String),
}

/// Format of the files, by the names that descriptors use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the usual ones of these formats")]
pub enum FileFormat {
    Iceberg,
    Delta,
    Parquet,
    Orc,
    Arrow,
    Jsonl,
    Csv,
    Tfrecord,
    Webdataset,
    Images,
    Audio,
    /// No known format.
    Files,
}

/// How sure inference is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// By names or a sample of text.
    Guess,
    /// By several signs that agree.
    Likely,
    /// By a checksum, a footer or a log.
    Certain,
    /// A person said so.
    Told,
}

/// A value of a statistic.
#[derive(Clone, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Scalar {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

/// What the files' statistics say about a column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnRange {
    /// Name of the column; parts of nested columns are joined with dots.
    pub name: String,
    /// Least value, when every part of the file tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Scalar>,
    /// Greatest value, when every part of the file tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Scalar>,
    /// Values that are absent, when known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nulls: Option<u64>,
}

impl Schema {
    /// Its text in a manifest.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the text of a manifest; none when it is not a schema.
    pub fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The column of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl FileFormat {
    /// The format of this name; none for a text that names none.
    pub fn from_name(name: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::from(name)).ok()
    }

    /// Whether its files tell their rows and columns at their end.
    pub fn has_footer(self) -> bool {
        matches!(
            self,
            Self::Parquet | Self::Orc | Self::Delta | Self::Iceberg
        )
    }

    /// As descriptors and manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Iceberg => "iceberg",
            Self::Delta => "delta",
            Self::Parquet => "parquet",
            Self::Orc => "orc",
            Self::Arrow => "arrow",
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Tfrecord => "tfrecord",
            Self::Webdataset => "webdataset",
            Self::Images => "images",
            Self::Audio => "audio",
            Self::Files => "files",
        }
    }
}

impl ColumnRange {
    /// Joins what two files or row groups say; what one does not tell is not known of both.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.min = pick(self.min.take(), other.min.clone(), |one, two| one <= two);
        self.max = pick(self.max.take(), other.max.clone(), |one, two| one >= two);
        self.nulls = self
            .nulls
            .zip(other.nulls)
            .map(|(one, two)| one.saturating_add(two));
    }
}

fn pick(
    one: Option<Scalar>,
    two: Option<Scalar>,
    first: impl Fn(&Scalar, &Scalar) -> bool,
) -> Option<Scalar> {
    let (one, two) = one.zip(two)?;
    one.partial_cmp(&two)?;
    Some(if first(&one, &two) { one } else { two })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // The text is stored for ever in manifests: another spelling would be another schema.
    #[test]
    fn the_text_is_fixed() {
        let schema = Schema {
            fields: vec![
                Field {
                    name: "id".into(),
                    data_type: Type::Int64,
                    nullable: false,
                },
                Field {
                    name: "price".into(),
                    data_type: Type::Decimal {
                        precision: 9,
                        scale: 2,
                    },
                    nullable: true,
                },
            ],
        };
        let text = r#"{"fields":[{"name":"id","type":"int64","nullable":false},{"name":"price","type":{"decimal":{"precision":9,"scale":2}},"nullable":true}]}"#;
        assert_eq!(schema.to_text(), text);
        assert_eq!(Schema::from_text(text).unwrap(), schema);
        assert!(Schema::from_text("{").is_none());
    }

    // A bound that only one of two files tells is no bound of both.
    #[test]
    fn ranges_merge_to_what_both_tell() {
        let range = |min: Option<i64>, max: i64| ColumnRange {
            name: "x".into(),
            min: min.map(Scalar::Int),
            max: Some(Scalar::Int(max)),
            nulls: Some(1),
        };
        let mut merged = range(Some(3), 5);
        merged.merge(&range(Some(1), 4));
        assert_eq!(
            merged,
            ColumnRange {
                nulls: Some(2),
                ..range(Some(1), 5)
            }
        );
        merged.merge(&range(None, 9));
        assert_eq!((merged.min, merged.max), (None, Some(Scalar::Int(9))));
    }
}

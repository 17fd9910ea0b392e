//! Text to descriptor and back.
//!
//! Three steps, each with the path of what is wrong: YAML to a tree of values (twice the same key and
//! hostile nesting are refused there), keys against the table of known ones, values against types and
//! rules. The text is bounded before anything is parsed.

use std::time::Duration;

use serde_json::Value;

use super::raw::{
    KEYS, RawAccess, RawCompletion, RawDescriptor, RawFormat, RawKind, RawLayout, RawMetadata,
    RawServe, RawSpec, RawStorage, RawSync, RawTier, RawVersions, RawWarm,
};
use super::units::{parse_duration, print_duration};
use super::{
    Completion, Descriptor, Format, Kind, Layout, Serve, Storage, Sync, Versions, Warm, WarmTier,
};

/// The one version of the file.
const API_VERSION: &str = "terrace.io/v1";
/// Most bytes of a file: what one value of the key-value store takes, with room to spare.
const MAX_FILE: usize = 128 << 10;
/// Longest description and longest URL, in bytes.
const MAX_TEXT: usize = 4096;
/// Most entries of a list or of labels.
const MAX_ENTRIES: usize = 256;

/// Why a text is not a descriptor: where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// Larger than 128 KiB.
    #[error("a descriptor of {0} bytes is too large")]
    TooLarge(usize),
    /// Neither YAML nor JSON.
    #[error("not YAML: {0}")]
    Syntax(String),
    /// A key that nobody reads.
    #[error("unknown key {path}{}", suggestion.as_ref().map_or(String::new(), |near| format!(", did you mean {near:?}?")))]
    UnknownKey {
        /// Where, as `spec.sync.quietfor`.
        path: String,
        /// The known key that is nearest, if one is near.
        suggestion: Option<String>,
    },
    /// A value that is not allowed there.
    #[error("{path}: {reason}")]
    Value {
        /// Where, as `spec.sync.quietFor`.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

fn wrong(path: &str, reason: impl Into<String>) -> DescriptorError {
    DescriptorError::Value {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

impl Descriptor {
    /// Parses YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, DescriptorError> {
        if text.len() > MAX_FILE {
            return Err(DescriptorError::TooLarge(text.len()));
        }
        let syntax = |error: serde_saphyr::Error| DescriptorError::Syntax(shorten(&error));
        let value: Value = serde_saphyr::from_str(text).map_err(syntax)?;
        Self::from_value(value)
    }

    /// The same from a tree of JSON values.
    pub fn from_value(value: Value) -> Result<Self, DescriptorError> {
        check_keys("", &value)?;
        let raw: RawDescriptor = serde_path_to_error::deserialize(value)
            .map_err(|error| wrong(&error.path().to_string(), shorten(error.inner())))?;
        from_raw(raw)
    }

    /// The tree of JSON values that [`Descriptor::from_value`] takes. Defaults are written out.
    pub fn to_value(&self) -> Value {
        // Plain structs of texts and numbers: serializing them cannot fail.
        serde_json::to_value(to_raw(self)).unwrap_or_default()
    }

    /// YAML that [`Descriptor::parse`] takes. Defaults are written out.
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(&to_raw(self)).unwrap_or_default()
    }
}

/// One line of at most 300 characters.
fn shorten(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(300).collect()
}

/// Refuses keys that are not in the table.
fn check_keys(path: &str, value: &Value) -> Result<(), DescriptorError> {
    let Some((_, known)) = KEYS.iter().find(|(known, _)| *known == path) else {
        return Ok(());
    };
    let Value::Object(object) = value else {
        return Ok(());
    };
    for (key, value) in object {
        let whole = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        if !known.contains(&"*") && !known.contains(&key.as_str()) {
            let path = whole.chars().take(200).collect();
            let suggestion = nearest(key, known);
            return Err(DescriptorError::UnknownKey { path, suggestion });
        }
        check_keys(&whole, value)?;
    }
    Ok(())
}

/// The known key that is meant, when few letters are different.
fn nearest(key: &str, known: &[&str]) -> Option<String> {
    let key: Vec<char> = key.to_lowercase().chars().take(64).collect();
    let distances = known.iter().map(|known| (distance(&key, known), known));
    let (distance, nearest) = distances.min()?;
    (distance <= 1 + nearest.len() / 4).then(|| (*nearest).to_owned())
}

/// Letters to insert, remove or replace.
fn distance(one: &[char], other: &str) -> usize {
    let mut row: Vec<usize> = (0..=one.len()).collect();
    for (at, letter) in other.to_lowercase().chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for column in 0..one.len() {
            let replaced = diagonal + usize::from(one[column] != letter);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[one.len()]
}

fn from_raw(raw: RawDescriptor) -> Result<Descriptor, DescriptorError> {
    if raw.api_version != API_VERSION {
        return Err(wrong("apiVersion", format!("write {API_VERSION}")));
    }
    let name = raw.metadata.name.parse();
    let name = name.map_err(|error: crate::NameError| wrong("metadata.name", error.to_string()))?;
    let kind = match raw.kind {
        RawKind::Dataset => Kind::Dataset,
        RawKind::Model => Kind::Model,
    };
    let spec = raw.spec;
    let source = spec.source.unwrap_or_default();
    check_source(kind, &source)?;
    let mut descriptor = Descriptor::new(kind, name, &source);
    check_texts(&raw.metadata)?;
    descriptor.description = raw.metadata.description;
    descriptor.labels = raw.metadata.labels;
    if let Some(format) = spec.format {
        descriptor.format = format.into();
    }
    if let Some(layout) = spec.layout {
        descriptor.layout = layout.into();
    }
    if let Some(storage) = spec.storage {
        descriptor.storage = storage.into();
    }
    if let Some(sync) = spec.sync {
        descriptor.sync = sync_from(sync)?;
    }
    if let Some(versions) = spec.versions {
        if versions.keep == Some(0) {
            return Err(wrong("spec.versions.keep", "write at least 1"));
        }
        let keep_for = duration("spec.versions.keepFor", versions.keep_for)?;
        descriptor.versions = Versions {
            keep: versions.keep,
            keep_for,
        };
    }
    if let Some(access) = spec.access {
        if let Some(read) = access.read {
            descriptor.access.read = principals("spec.access.read", read)?;
        }
        if let Some(publish) = access.publish {
            descriptor.access.publish = principals("spec.access.publish", publish)?;
        }
    }
    if let Some(serve) = spec.serve {
        let Serve { sql, huggingface } = descriptor.serve;
        descriptor.serve = Serve {
            sql: serve.sql.unwrap_or(sql),
            huggingface: serve.huggingface.unwrap_or(huggingface),
        };
    }
    if let Some(warm) = spec.warm {
        let Warm { tier, pin } = descriptor.warm;
        descriptor.warm = Warm {
            tier: warm.tier.map_or(tier, WarmTier::from),
            pin: warm.pin.unwrap_or(pin),
        };
    }
    Ok(descriptor)
}

fn check_source(kind: Kind, source: &str) -> Result<(), DescriptorError> {
    let refuse = |reason: &str| Err(wrong("spec.source", reason));
    if source.is_empty() {
        return match kind {
            Kind::Model => Ok(()),
            Kind::Dataset => refuse("missing: write where the files are, such as s3://bucket/path"),
        };
    }
    if source.len() > MAX_TEXT || source.chars().any(char::is_control) {
        return refuse("not a URL");
    }
    match source.split_once("://") {
        Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() => {
            if rest
                .split('/')
                .next()
                .is_some_and(|host| host.contains('@'))
            {
                return refuse("credentials do not belong into a descriptor");
            }
            Ok(())
        }
        _ => refuse("not a URL, such as s3://bucket/path"),
    }
}

fn check_texts(metadata: &RawMetadata) -> Result<(), DescriptorError> {
    if metadata.description.len() > MAX_TEXT {
        return Err(wrong("metadata.description", "longer than 4096 bytes"));
    }
    if metadata.labels.len() > MAX_ENTRIES {
        return Err(wrong("metadata.labels", "more than 256"));
    }
    let long = |(key, value): (&String, &String)| key.is_empty() || key.len() + value.len() > 512;
    if metadata.labels.iter().any(long) {
        return Err(wrong(
            "metadata.labels",
            "a label is empty or longer than 512 bytes",
        ));
    }
    Ok(())
}

fn sync_from(raw: RawSync) -> Result<Sync, DescriptorError> {
    let mut sync = Sync::default();
    if let Some(completion) = raw.completion {
        sync.completion = completion.into();
    }
    if let Some(marker) = raw.marker {
        let bad = matches!(marker.as_str(), "" | "." | "..")
            || marker.len() > 255
            || marker.contains(['/', '\0']);
        if bad {
            return Err(wrong("spec.sync.marker", "not the name of a file"));
        }
        sync.marker = marker;
    }
    if let Some(quiet_for) = duration("spec.sync.quietFor", raw.quiet_for)? {
        sync.quiet_for = quiet_for;
    }
    if let Some(interval) = duration("spec.sync.interval", raw.interval)? {
        if interval < Duration::from_secs(1) {
            return Err(wrong("spec.sync.interval", "write at least 1s"));
        }
        sync.interval = interval;
    }
    Ok(sync)
}

fn duration(path: &str, text: Option<String>) -> Result<Option<Duration>, DescriptorError> {
    let Some(text) = text else {
        return Ok(None);
    };
    let parsed = parse_duration(&text);
    let refused = || wrong(path, "not a time: write a number and ms, s, m, h or d");
    parsed.map(Some).ok_or_else(refused)
}

fn principals(path: &str, names: Vec<String>) -> Result<Vec<String>, DescriptorError> {
    if names.len() > MAX_ENTRIES {
        return Err(wrong(path, "more than 256 names"));
    }
    let bad =
        |name: &String| name.is_empty() || name.len() > 255 || name.contains(char::is_control);
    match names.iter().any(bad) {
        true => Err(wrong(path, "an empty or unprintable name")),
        false => Ok(names),
    }
}

fn to_raw(descriptor: &Descriptor) -> RawDescriptor {
    let source = Some(descriptor.source.clone()).filter(|source| !source.is_empty());
    RawDescriptor {
        api_version: API_VERSION.to_owned(),
        kind: match descriptor.kind {
            Kind::Dataset => RawKind::Dataset,
            Kind::Model => RawKind::Model,
        },
        metadata: RawMetadata {
            name: descriptor.name.to_string(),
            description: descriptor.description.clone(),
            labels: descriptor.labels.clone(),
        },
        spec: RawSpec {
            source,
            format: Some(descriptor.format.into()),
            layout: Some(descriptor.layout.into()),
            sync: Some(RawSync {
                completion: Some(descriptor.sync.completion.into()),
                marker: Some(descriptor.sync.marker.clone()),
                quiet_for: Some(print_duration(descriptor.sync.quiet_for)),
                interval: Some(print_duration(descriptor.sync.interval)),
            }),
            storage: Some(descriptor.storage.into()),
            versions: Some(RawVersions {
                keep: descriptor.versions.keep,
                keep_for: descriptor.versions.keep_for.map(print_duration),
            }),
            access: Some(RawAccess {
                read: Some(descriptor.access.read.clone()),
                publish: Some(descriptor.access.publish.clone()),
            }),
            serve: Some(RawServe {
                sql: Some(descriptor.serve.sql),
                huggingface: Some(descriptor.serve.huggingface),
            }),
            warm: Some(RawWarm {
                tier: Some(descriptor.warm.tier.into()),
                pin: Some(descriptor.warm.pin),
            }),
        },
    }
}

macro_rules! same {
    ($raw:ident, $own:ident: $($name:ident)*) => {
        impl From<$raw> for $own {
            fn from(raw: $raw) -> Self {
                match raw { $($raw::$name => Self::$name,)* }
            }
        }
        impl From<$own> for $raw {
            fn from(own: $own) -> Self {
                match own { $($own::$name => Self::$name,)* }
            }
        }
    };
}

same!(RawFormat, Format: Auto Parquet Orc Arrow Csv Jsonl Tfrecord Webdataset Images Audio Iceberg Delta Files);
same!(RawLayout, Layout: Hive Flat);
same!(RawCompletion, Completion: SuccessFile PartitionMarker Call Quiescence Manifest);
same!(RawStorage, Storage: Reference Managed);
same!(RawTier, WarmTier: None Metadata Full);

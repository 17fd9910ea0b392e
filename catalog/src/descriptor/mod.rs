//! The resource file that describes a dataset or a model: what a person writes, parsed once, strict.
//!
//! ```yaml
//! apiVersion: terrace.io/v1
//! kind: Dataset                     # or Model
//! metadata:
//!   name: ads.clicks
//!   description: Clicks as the web servers log them.
//!   labels: {team: ads}
//! spec:
//!   source: hdfs://nn/warehouse/ads.db/clicks
//!   format: auto                    # auto parquet orc arrow csv jsonl tfrecord webdataset images
//!                                   # audio iceberg delta files
//!   layout: hive                    # hive flat
//!   sync:
//!     completion: success-file      # success-file partition-marker call quiescence manifest
//!     marker: _SUCCESS              # name of the marker file
//!     quietFor: 10m                 # quiescence: no change for so long
//!     interval: 5m                  # a full look at least this often
//!   storage: reference              # reference: files stay where they are; managed: copied or pinned
//!   versions: {keep: 100, keepFor: 90d}
//!   access: {read: ["*"], publish: [etl]}
//!   serve: {sql: true, huggingface: true}
//!   warm: {tier: none, pin: false}  # tier: none metadata full
//! ```
//!
//! JSON is YAML. Everything has a default but `apiVersion`, `kind`, `metadata.name` and, for a dataset,
//! `spec.source`. An unknown key is refused with its path and what may have been meant. `raw.rs` holds
//! the types that are read and written; those here are computed with, and valid by construction.

mod parse;
mod raw;
mod units;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

pub use parse::DescriptorError;

use crate::name::DatasetName;

/// What is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Files that a sync system writes; versions come and, by policy, go.
    Dataset,
    /// Files that were saved on purpose: no policy and no ordinary call deletes them.
    Model,
}

/// Format of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Inferred from the files.
    Auto,
    /// Apache Parquet.
    Parquet,
    /// Apache ORC.
    Orc,
    /// Apache Arrow IPC.
    Arrow,
    /// Comma-separated values.
    Csv,
    /// JSON lines.
    Jsonl,
    /// TensorFlow records.
    Tfrecord,
    /// Tar archives of samples.
    Webdataset,
    /// Folders of images.
    Images,
    /// Folders of audio files.
    Audio,
    /// An Iceberg table.
    Iceberg,
    /// A Delta table.
    Delta,
    /// Files of no known format.
    Files,
}

/// How directories become partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `column=value` directories are partitions.
    Hive,
    /// No partitions.
    Flat,
}

/// What says that a partition is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Completion {
    /// The table's marker file, newer than every data file.
    SuccessFile,
    /// A marker file in each partition.
    PartitionMarker,
    /// Only a call that names the batch.
    Call,
    /// Nothing has changed for a while.
    Quiescence,
    /// A file that lists the files.
    Manifest,
}

/// Where the bytes of a version are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Storage {
    /// Where the sync system wrote them; an old version may lose files that are overwritten.
    Reference,
    /// Copied, or pinned in their store: old versions stay readable.
    Managed,
}

/// What is brought near before anybody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WarmTier {
    /// Nothing.
    None,
    /// Lists of files.
    Metadata,
    /// Every byte.
    Full,
}

/// When a partition is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// What says that it is complete.
    pub completion: Completion,
    /// Name of the marker file; no `/`.
    pub marker: String,
    /// How long nothing may have changed, for `Quiescence`.
    pub quiet_for: Duration,
    /// A full look at least this often.
    pub interval: Duration,
}

/// Which versions stay. A version that is tagged, held or the latest always does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// At least so many, the newest; none: all.
    pub keep: Option<u64>,
    /// And those that are not older than this; none: no age saves a version.
    pub keep_for: Option<Duration>,
}

/// Who may do what: names of principals, `*` for everybody who may list the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Who may read.
    pub read: Vec<String>,
    /// Who may publish versions.
    pub publish: Vec<String>,
}

/// Which faces show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    /// The Iceberg REST face.
    pub sql: bool,
    /// The Hugging Face cache tree.
    pub huggingface: bool,
}

/// What happens when a version is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warm {
    /// What is brought near.
    pub tier: WarmTier,
    /// Whether it stays near.
    pub pin: bool,
}

/// A resource file. See the module text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Dataset or model.
    pub kind: Kind,
    /// `namespace.table`.
    pub name: DatasetName,
    /// For people; at most 4 KiB.
    pub description: String,
    /// For people and searches.
    pub labels: BTreeMap<String, String>,
    /// Where the files are: a URL without a trailing slash. Empty for a model that is only saved.
    pub source: String,
    /// Format of the files.
    pub format: Format,
    /// How directories become partitions.
    pub layout: Layout,
    /// When a partition is published.
    pub sync: Sync,
    /// Where the bytes of a version are.
    pub storage: Storage,
    /// Which versions stay.
    pub versions: Versions,
    /// Who may do what.
    pub access: Access,
    /// Which faces show it.
    pub serve: Serve,
    /// What happens when a version is committed.
    pub warm: Warm,
}

impl Descriptor {
    /// A descriptor with every default. `source` is empty for a model.
    pub fn new(kind: Kind, name: DatasetName, source: &str) -> Self {
        Self {
            kind,
            name,
            description: String::new(),
            labels: BTreeMap::new(),
            source: source.trim_end_matches('/').to_owned(),
            format: Format::Auto,
            layout: Layout::Hive,
            sync: Sync::default(),
            storage: Storage::Reference,
            versions: Versions {
                keep: None,
                keep_for: None,
            },
            access: Access {
                read: vec!["*".to_owned()],
                publish: Vec::new(),
            },
            serve: Serve {
                sql: true,
                huggingface: true,
            },
            warm: Warm {
                tier: WarmTier::None,
                pin: false,
            },
        }
    }

    /// What a search looks at besides the name: the description and the labels, in lower case.
    pub fn search_text(&self) -> String {
        let labels = self
            .labels
            .iter()
            .map(|(key, value)| format!(" {key}={value}"));
        let text = labels.fold(self.description.clone(), |text, label| text + &label);
        text.to_lowercase()
    }
}

impl Default for Sync {
    fn default() -> Self {
        Self {
            completion: Completion::SuccessFile,
            marker: "_SUCCESS".to_owned(),
            quiet_for: Duration::from_secs(600),
            interval: Duration::from_secs(300),
        }
    }
}

impl Kind {
    /// `dataset` or `model`, as URLs and records spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dataset => "dataset",
            Self::Model => "model",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

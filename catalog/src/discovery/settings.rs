//! What applies to one table: its descriptor's word, else its root's.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::completeness::Rule;
use super::layout::Layout;
use super::root::{FoundTable, RootSpec, location};
use super::shape::Shape;
use crate::descriptor::{self, Descriptor, Kind, Storage};
use crate::schema::FileFormat;
use crate::schema::evolution::Policy;

/// What says that a partition is complete. A manifest file and an announced batch always do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = CompletionSignal)]
pub enum CompletionSpec {
    /// A marker file of the table or of the partition, newer than the data.
    #[default]
    SuccessFile,
    /// A marker file in each partition.
    PartitionMarker,
    /// Only a call that names the batch.
    Call,
    /// Nothing has changed for a while; markers count too.
    Quiescence,
    /// Only a manifest file.
    Manifest,
}

/// The settings of one table.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) rule: Rule,
    pub(crate) shape: Shape,
    pub(crate) told: Option<FileFormat>,
    pub(crate) evolution: Policy,
    pub(crate) settle: Duration,
    pub(crate) managed: bool,
}

impl Settings {
    pub(crate) fn of(spec: &RootSpec, descriptor: &Descriptor) -> Self {
        let sync = &descriptor.sync;
        let markers = |partition, table| Rule {
            partition_markers: partition,
            table_marker: table,
            quiet_seconds: None,
        };
        let rule = match sync.completion {
            descriptor::Completion::SuccessFile => markers(true, true),
            descriptor::Completion::PartitionMarker => markers(true, false),
            descriptor::Completion::Call | descriptor::Completion::Manifest => {
                markers(false, false)
            }
            descriptor::Completion::Quiescence => Rule {
                quiet_seconds: Some(sync.quiet_for.as_secs()),
                ..markers(true, true)
            },
        };
        let layout = match descriptor.layout {
            descriptor::Layout::Hive => Layout::Hive,
            descriptor::Layout::Flat => Layout::Flat,
        };
        Self {
            rule,
            shape: Shape {
                layout,
                marker: sync.marker.as_str().into(),
            },
            told: told(descriptor.format),
            evolution: spec.evolution,
            settle: Duration::from_secs(spec.settle_seconds),
            managed: descriptor.storage == Storage::Managed,
        }
    }
}

/// The descriptor of a table that is found and not registered yet.
pub(crate) fn descriptor_of(spec: &RootSpec, url: &str, found: &FoundTable) -> Descriptor {
    let source = location(url, &found.directory);
    if let Some(descriptor) = &found.descriptor {
        return Descriptor {
            source,
            ..descriptor.clone()
        };
    }
    let mut descriptor = Descriptor::new(Kind::Dataset, found.name.clone(), &source);
    descriptor.layout = match spec.layout {
        Layout::Flat => descriptor::Layout::Flat,
        Layout::Hive | Layout::Descriptor => descriptor::Layout::Hive,
    };
    descriptor.sync.completion = match spec.completion {
        CompletionSpec::SuccessFile => descriptor::Completion::SuccessFile,
        CompletionSpec::PartitionMarker => descriptor::Completion::PartitionMarker,
        CompletionSpec::Call => descriptor::Completion::Call,
        CompletionSpec::Quiescence => descriptor::Completion::Quiescence,
        CompletionSpec::Manifest => descriptor::Completion::Manifest,
    };
    descriptor.sync.marker.clone_from(&spec.marker);
    descriptor.sync.quiet_for = Duration::from_secs(spec.quiet_seconds);
    descriptor.sync.interval = Duration::from_secs(spec.interval_seconds);
    descriptor
}

fn told(format: descriptor::Format) -> Option<FileFormat> {
    Some(match format {
        descriptor::Format::Auto => return None,
        descriptor::Format::Parquet => FileFormat::Parquet,
        descriptor::Format::Orc => FileFormat::Orc,
        descriptor::Format::Arrow => FileFormat::Arrow,
        descriptor::Format::Csv => FileFormat::Csv,
        descriptor::Format::Jsonl => FileFormat::Jsonl,
        descriptor::Format::Tfrecord => FileFormat::Tfrecord,
        descriptor::Format::Webdataset => FileFormat::Webdataset,
        descriptor::Format::Images => FileFormat::Images,
        descriptor::Format::Audio => FileFormat::Audio,
        descriptor::Format::Iceberg => FileFormat::Iceberg,
        descriptor::Format::Delta => FileFormat::Delta,
        descriptor::Format::Files => FileFormat::Files,
    })
}

//! A root: one location of a store whose tables are found and watched.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::layout::{self, DEFAULT_NAMESPACE, Layout, Place};
use super::manifest_file::join;
use super::names::{self, DESCRIPTOR_FILES, Refusal, Role};
use super::settings::CompletionSpec;
use crate::descriptor::Descriptor;
use crate::name::DatasetName;
use crate::schema::evolution::Policy;
use crate::upstream::{Listed, UpFile, Upstream, UpstreamError, read_small};

/// How deep descriptor files are looked for below a root.
const DESCRIPTOR_DEPTH: usize = 6;
/// Longest descriptor file, bytes.
const DESCRIPTOR_MAX: u64 = 1 << 20;

/// What a person says about a root. Everything has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RootSpec {
    /// Namespace of every table found; none: the database's name, or `default`.
    pub namespace: Option<String>,
    /// How tables lie below it.
    pub layout: Layout,
    /// What says that a partition is complete, for tables without a descriptor of their own.
    pub completion: CompletionSpec,
    /// Name of the marker file.
    pub marker: String,
    /// How long nothing may have changed, for `quiescence`. Seconds.
    pub quiet_seconds: u64,
    /// A full look at everything at least this often, seconds: what no signal told is found then.
    /// More often, down to `active_seconds`, while such looks take little time.
    pub interval_seconds: u64,
    /// Tables that are being written are looked at this often, seconds.
    pub active_seconds: u64,
    /// How long files that nobody announced as deleted must stay away before a version leaves them
    /// out. Seconds.
    pub settle_seconds: u64,
    /// What happens to incompatible changes of columns.
    pub evolution: Policy,
}

impl Default for RootSpec {
    fn default() -> Self {
        Self {
            namespace: None,
            layout: Layout::Hive,
            completion: CompletionSpec::SuccessFile,
            marker: "_SUCCESS".to_owned(),
            quiet_seconds: 600,
            interval_seconds: 30,
            active_seconds: 2,
            settle_seconds: 60,
            evolution: Policy::Warn,
        }
    }
}

/// A table that was found below a root.
#[derive(Clone, Debug)]
pub(crate) struct FoundTable {
    pub(crate) name: DatasetName,
    /// Below the root; empty when the root is the table.
    pub(crate) directory: Arc<str>,
    /// Its resource file.
    pub(crate) descriptor: Option<Descriptor>,
}

/// What is below a root.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) tables: BTreeMap<DatasetName, FoundTable>,
    /// Directories that are no table, and why.
    pub(crate) refused: BTreeMap<String, Refusal>,
    /// Descriptor files that cannot be used, and why.
    pub(crate) broken: BTreeMap<String, String>,
}

impl RootSpec {
    /// Refuses settings that cannot work; the text says which.
    pub fn check(&self) -> Result<(), String> {
        if let Some(namespace) = &self.namespace {
            crate::name::check_segment(namespace).map_err(|error| error.to_string())?;
        }
        if self.marker.is_empty() || self.marker.contains('/') {
            return Err(format!(
                "marker {:?} is not the name of a file",
                self.marker
            ));
        }
        if self.interval_seconds == 0 || self.active_seconds == 0 {
            return Err("interval_seconds and active_seconds begin at 1".to_owned());
        }
        Ok(())
    }

    /// Lists a root. An error means that nothing is known, not that nothing is there.
    pub(crate) async fn find(&self, upstream: &dyn Upstream) -> Result<Found, UpstreamError> {
        let mut found = Found::default();
        match self.layout {
            Layout::Hive => self.find_hive(upstream, &mut found).await?,
            Layout::Flat => self.find_flat(upstream, &mut found).await?,
            Layout::Descriptor => self.find_descriptors(upstream, &mut found).await?,
        }
        // Of two directories with one name neither is right: nobody could say which.
        let twice: Vec<DatasetName> = found
            .tables
            .keys()
            .filter(|name| found.refused.contains_key(name.as_str()))
            .cloned()
            .collect();
        for name in twice {
            found.tables.remove(&name);
        }
        Ok(found)
    }

    async fn find_hive(
        &self,
        upstream: &dyn Upstream,
        found: &mut Found,
    ) -> Result<(), UpstreamError> {
        let namespace = self.namespace.as_deref();
        for directory in directories(upstream, "").await? {
            match layout::hive_place(own_name(&directory), namespace) {
                Ok(Place::Table(name)) => found.add(name, &directory, None),
                Ok(Place::Database(database)) => {
                    for directory in directories(upstream, &directory).await? {
                        match layout::table_name(own_name(&directory), &database) {
                            Ok(name) => found.add(name, &directory, None),
                            Err(refusal) => found.refuse(&directory, refusal),
                        }
                    }
                }
                Err(refusal) => found.refuse(&directory, refusal),
            }
        }
        Ok(())
    }

    async fn find_flat(
        &self,
        upstream: &dyn Upstream,
        found: &mut Found,
    ) -> Result<(), UpstreamError> {
        let namespace = self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        for directory in directories(upstream, "").await? {
            match layout::table_name(own_name(&directory), namespace) {
                Ok(name) => found.add(name, &directory, None),
                Err(refusal) => found.refuse(&directory, refusal),
            }
        }
        Ok(())
    }

    /// Looks for descriptor files, breadth first; a directory that has one is not entered.
    async fn find_descriptors(
        &self,
        upstream: &dyn Upstream,
        found: &mut Found,
    ) -> Result<(), UpstreamError> {
        let mut level = vec![Arc::from("")];
        for _ in 0..=DESCRIPTOR_DEPTH {
            let mut next = Vec::new();
            for directory in level {
                let (files, below) = entries(upstream, &directory).await?;
                let is_descriptor =
                    |file: &&UpFile| DESCRIPTOR_FILES.contains(&own_name(&file.path));
                match files.iter().find(is_descriptor) {
                    Some(file) => {
                        self.read_descriptor(upstream, &directory, file, found)
                            .await?
                    }
                    None => next.extend(below),
                }
            }
            level = next;
        }
        Ok(())
    }

    async fn read_descriptor(
        &self,
        upstream: &dyn Upstream,
        directory: &Arc<str>,
        file: &UpFile,
        found: &mut Found,
    ) -> Result<(), UpstreamError> {
        let bytes = read_small(upstream, file, DESCRIPTOR_MAX).await?;
        let parsed = std::str::from_utf8(&bytes)
            .map_err(|error| error.to_string())
            .and_then(|text| Descriptor::parse(text).map_err(|error| error.to_string()));
        match parsed {
            Ok(descriptor)
                if self
                    .namespace
                    .as_deref()
                    .is_some_and(|own| own != descriptor.name.namespace()) =>
            {
                let text = format!("{} is outside the root's namespace", descriptor.name);
                found.broken.insert(file.path.to_string(), text);
            }
            Ok(descriptor) => found.add(descriptor.name.clone(), directory, Some(descriptor)),
            Err(text) => {
                found.broken.insert(file.path.to_string(), text);
            }
        }
        Ok(())
    }
}

impl Found {
    fn add(&mut self, name: DatasetName, directory: &Arc<str>, descriptor: Option<Descriptor>) {
        if self.tables.contains_key(&name) {
            self.refused
                .insert(name.to_string(), Refusal::Twice(name.to_string()));
            return;
        }
        let directory = Arc::clone(directory);
        self.tables.insert(
            name.clone(),
            FoundTable {
                name,
                directory,
                descriptor,
            },
        );
    }

    fn refuse(&mut self, directory: &str, refusal: Refusal) {
        self.refused
            .insert(crate::name::shortened(directory), refusal);
    }
}

async fn entries(
    upstream: &dyn Upstream,
    directory: &str,
) -> Result<(Vec<UpFile>, Vec<Arc<str>>), UpstreamError> {
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    let mut listing = upstream.list(directory);
    while let Some(entry) = listing.next().await {
        match entry? {
            Listed::File(file) => files.push(file),
            Listed::Directory(path) => directories.push(path),
        }
    }
    // The store's order is its own; which of two tables is met first must not depend on it.
    directories.sort();
    directories.dedup();
    directories.retain(|path| names::role(own_name(path), false) == Role::Data);
    Ok((files, directories))
}

async fn directories(
    upstream: &dyn Upstream,
    directory: &str,
) -> Result<Vec<Arc<str>>, UpstreamError> {
    Ok(entries(upstream, directory).await?.1)
}

fn own_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The URL of a directory below a root.
pub(crate) fn location(url: &str, directory: &str) -> String {
    join(url.trim_end_matches('/'), directory)
}

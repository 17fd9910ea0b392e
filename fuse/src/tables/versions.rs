//! The snapshots of versions: opened when somebody looks into them, fetched once for all who wait.
//!
//! A snapshot file is named by its manifest, so it is never out of date; versions with the same files
//! share it. What was opened stays mapped for a bounded number of versions; opening a file again takes
//! milliseconds.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::catalog::{ManifestId, TableVersion, Tables};
use super::file_list::FileList;
use super::reach::Reach;
use crate::live::bounded::Bounded;
use crate::live::flight::Flights;
use crate::namespace::FsError;
use crate::ownership::Ownership;
use crate::snapshot::{Snapshot, SnapshotError};

/// Versions kept mapped; the kernel allows 65,530 mappings for each process.
const OPEN: usize = 4096;

/// The files of a version.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) snapshot: Snapshot,
    list: OnceLock<FileList>,
}

impl Opened {
    /// Its list of files. Made at first use, which reads the whole snapshot.
    pub(super) fn list(&self) -> Result<&FileList, FsError> {
        if let Some(list) = self.list.get() {
            return Ok(list);
        }
        let made = FileList::new(&self.snapshot)?;
        Ok(self.list.get_or_init(|| made))
    }

    /// Whether the list was made.
    pub(super) fn has_list(&self) -> bool {
        self.list.get().is_some()
    }
}

/// Opened versions of one mount.
pub(super) struct Versions {
    tables: Arc<dyn Tables>,
    ownership: Ownership,
    open: Mutex<Bounded<ManifestId, Arc<Opened>>>,
    flights: Flights<ManifestId, Result<Arc<Opened>, FsError>>,
}

impl fmt::Debug for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Versions").finish_non_exhaustive()
    }
}

impl Versions {
    pub(super) fn new(tables: Arc<dyn Tables>, ownership: Ownership) -> Self {
        Self {
            tables,
            ownership,
            open: Mutex::new(Bounded::new(OPEN)),
            flights: Flights::new(),
        }
    }

    /// The files of a version, from memory.
    pub(super) fn remembered(&self, manifest: &ManifestId) -> Option<Arc<Opened>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(manifest).map(|opened| Arc::clone(opened))
    }

    /// The files of a version, from memory or from this node's disk.
    ///
    /// Errors: `Io` of kind `NotFound` when they were never fetched, or were removed since.
    pub(super) fn local(&self, manifest: &ManifestId) -> Result<Arc<Opened>, SnapshotError> {
        if let Some(opened) = self.remembered(manifest) {
            return Ok(opened);
        }
        let snapshot = Snapshot::open(&self.tables.file(manifest), self.ownership)?;
        self.tables.announce(manifest, &snapshot);
        let opened = Arc::new(Opened {
            snapshot,
            list: OnceLock::new(),
        });
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(*manifest, Arc::clone(&opened));
        Ok(opened)
    }

    /// The files of a version that was shown before, for questions that must not wait.
    pub(super) fn shown(&self, manifest: &ManifestId) -> Result<Arc<Opened>, FsError> {
        self.local(manifest).map_err(|error| match error {
            SnapshotError::Io(error) if error.kind() == io::ErrorKind::NotFound => FsError::Stale,
            other => other.into(),
        })
    }

    /// The files of a version, fetched when they are not here. Cancelled by dropping: the fetch ends
    /// when nobody waits for it any more.
    pub(super) async fn fetched(
        self: &Arc<Self>,
        reach: &Arc<Reach>,
        version: &TableVersion,
    ) -> Result<Arc<Opened>, FsError> {
        match self.local(&version.manifest) {
            Ok(opened) => return Ok(opened),
            Err(SnapshotError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            // Damaged, or of another release: what the catalog has is as good.
            Err(error) => {
                let path = self.tables.file(&version.manifest);
                tracing::warn!(%error, path = %path.display(), "a snapshot is fetched again");
                std::fs::remove_file(&path).ok();
            }
        }
        let (versions, reach, asked) = (Arc::clone(self), Arc::clone(reach), version.clone());
        let fetch = move || async move {
            reach.ask(None, versions.tables.fetch(&asked)).await?;
            Ok(versions.local(&asked.manifest)?)
        };
        self.flights.join(version.manifest, fetch).await
    }
}

//! Which versions a mount has files of, and which of them somebody reads: for whoever tells others.

use std::collections::HashSet;

use super::catalog::TableVersion;
use super::slot::Slot;
use super::tree::TableTree;
use crate::namespace::Ino;

impl TableTree {
    /// The version that a file or directory is in; none for names above versions.
    pub fn version_of(&self, ino: Ino) -> Option<TableVersion> {
        match self.inner.at(ino).ok()?.1.as_deref() {
            Some(Slot::Version(_, version) | Slot::Link(_, version)) => Some(version.clone()),
            _ => None,
        }
    }

    /// Versions whose lists of files are on this node, those shown last first; at most `limit`. Looks
    /// at the disk once for each version.
    pub fn local_versions(&self, limit: usize) -> Vec<TableVersion> {
        let mut seen = HashSet::new();
        let shown = self.inner.slots.versions();
        let distinct = shown
            .into_iter()
            .filter(|version| seen.insert((version.dataset.clone(), version.number)));
        let local = distinct.filter(|version| self.inner.tables.file(&version.manifest).exists());
        local.take(limit).collect()
    }
}

//! After a crash: the number of owners of each object is read from its file again.
//!
//! A process that is killed between a link and the record of its owner leaves an object that could
//! be evicted although a tree keeps its bytes, so that no space comes back; between an unlink and
//! its record, one that could never be evicted. Part of the sweep, which looks at every file of the
//! tier after an unclean end.

use std::fs::DirEntry;
use std::os::unix::fs::MetadataExt as _;

use super::files;
use crate::hot::error::HotError;
use crate::hot::shared::Shared;
use crate::identity::Digest;

impl Shared {
    /// Compares the owners of an object with the link count of its data file `entry`.
    pub(in crate::hot) fn mend_owners(
        &self,
        digest: &Digest,
        entry: &DirEntry,
    ) -> Result<(), HotError> {
        // No link of it is made or removed meanwhile.
        let changed = self.links.shard(digest);
        let Ok(metadata) = entry.metadata() else {
            return Ok(()); // evicted meanwhile
        };
        self.correct(digest, files::owners(metadata.nlink()), &changed)
    }

    /// Takes the owners from objects that are not there: nothing of them can be held.
    pub(in crate::hot) fn mend_absent(&self) -> Result<(), HotError> {
        let owned: Vec<Digest> = {
            let catalogue = self.catalogue();
            let owned = catalogue.pins.iter().filter(|(_, pins)| pins.owners > 0);
            let absent = owned.filter(|(digest, _)| catalogue.table.get(digest).is_none());
            absent.map(|(digest, _)| *digest).collect()
        };
        for digest in owned {
            let changed = self.links.shard(&digest);
            let absent = self.catalogue().table.get(&digest).is_none();
            if absent {
                self.correct(&digest, 0, &changed)?;
            }
        }
        Ok(())
    }

    fn correct(
        &self,
        digest: &Digest,
        owners: u32,
        changed: &super::Changed,
    ) -> Result<(), HotError> {
        let recorded = self
            .catalogue()
            .pins
            .get(digest)
            .map_or(0, |pins| pins.owners);
        if recorded == owners {
            return Ok(());
        }
        tracing::info!(%digest, recorded, owners, "the owners of an object are corrected");
        self.set_owners(digest, owners, changed)
    }
}

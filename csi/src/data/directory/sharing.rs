//! Whether file systems can share blocks between files, so that directories can be copied at once.
//!
//! It is found by trying it on two small files, once for each file system, and never by its name: some that
//! could are made without it, and some that are not on any list can.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::Bases;
use crate::scratch::copy::reflinks;

/// What was found so far, by device number. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Sharing(Arc<Mutex<HashMap<u64, bool>>>);

impl Sharing {
    /// Whether the file system of a directory can. One that does not answer, or may not be written, cannot, and
    /// is asked again. Blocks for as long as it does.
    pub fn is_possible(&self, below: &Path) -> bool {
        let Ok(found) = std::fs::metadata(below) else {
            return false;
        };
        let known = self.lock().get(&found.dev()).copied();
        known.unwrap_or_else(|| match reflinks(below) {
            Ok(possible) => {
                self.lock().insert(found.dev(), possible);
                possible
            }
            Err(error) => {
                tracing::debug!(%error, "whether files can share blocks is not known");
                false
            }
        })
    }

    /// Whether one of the directories that the driver may serve lies on a file system that can.
    pub fn is_anywhere(&self, bases: &Bases) -> bool {
        bases.0.iter().any(|base| self.is_possible(base))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

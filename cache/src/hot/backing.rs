//! A complete object's file, handed out for passthrough.
//!
//! While a [`Backing`] lives, the file it names is never written, truncated or punched by this
//! tier. It may be unlinked (evicted), and its bytes then stay in the budget as zombie bytes until
//! the last backing is dropped.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::data::DataFile;

/// A file for passthrough, and the proof that somebody uses it. A clone is another holder.
#[derive(Debug)]
pub struct Backing {
    data: Arc<DataFile>,
    idle: AtomicBool,
}

impl Backing {
    /// Counts a holder of `data`, which is filled and sealed.
    pub(super) fn new(data: Arc<DataFile>) -> Self {
        debug_assert!(data.sealed.load(Ordering::Acquire));
        data.holders.fetch_add(1, Ordering::AcqRel);
        Self {
            data,
            idle: AtomicBool::new(false),
        }
    }

    /// The open file. It must only be read.
    pub fn file(&self) -> &File {
        &self.data.file
    }

    /// Where the file lies in the hot directory; gone once [`Backing::is_evicted`].
    pub fn path(&self) -> PathBuf {
        self.data.path.clone()
    }

    /// Whether the file is exactly as it was when it was last known to be right: one fstat(2), to
    /// be called on every open. `false`: do not use it, ask the object again.
    pub fn check(&self) -> bool {
        self.data.is_untouched()
    }

    /// Whether the object was evicted meanwhile. Readers go on; a cache of backings should let go.
    pub fn is_evicted(&self) -> bool {
        self.data.is_buried()
    }

    /// Tells later whether the object was evicted, without holding its file.
    pub fn eviction(&self) -> Eviction {
        Eviction(Arc::clone(&self.data.buried))
    }

    /// Says that nobody has the file open now and the backing is only kept for the next open. An
    /// idle backing does not keep its object from being evicted; see `HotTier::on_evict`.
    pub fn set_idle(&self, idle: bool) {
        if self.idle.swap(idle, Ordering::AcqRel) == idle {
            return;
        }
        if idle {
            self.data.holders.fetch_sub(1, Ordering::AcqRel);
            self.data.ledger().add_idle();
        } else {
            self.data.holders.fetch_add(1, Ordering::AcqRel);
            self.data.ledger().remove_idle();
        }
    }
}

/// Whether the object of a [`Backing`] was evicted: for a list of idle backings, which is walked
/// often and must not hold what it lists.
#[derive(Clone, Debug)]
pub struct Eviction(Arc<AtomicBool>);

impl Eviction {
    /// Whether it happened.
    pub fn happened(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Clone for Backing {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.data))
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        self.set_idle(true);
        self.data.ledger().remove_idle();
    }
}

//! Who waits for which key. Owns the watches of one store in one process.
//!
//! A slot per watched key, shared by all who watch it, made by the first and removed when a later
//! call finds that nobody listens. Lock order: the one lock here is innermost.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::KvError;

/// Most keys that are watched at once.
const MAX_WATCHED: usize = 16 << 10;

/// A hint that a key may have changed.
#[derive(Debug)]
pub struct Watch {
    receiver: watch::Receiver<()>,
}

impl Watch {
    /// Returns after the key may have changed; at once if it may have since the last return. Errors
    /// with `Unavailable` when the store was closed. May be dropped and called again.
    pub async fn changed(&mut self) -> Result<(), KvError> {
        let closed = |_| KvError::Unavailable("it was closed".into());
        self.receiver.changed().await.map_err(closed)
    }
}

/// See the module text.
#[derive(Debug, Default)]
pub(super) struct Hub {
    slots: Mutex<HashMap<Bytes, watch::Sender<()>>>,
}

impl Hub {
    /// Watches a key from now on.
    pub(super) fn watch(&self, key: &[u8]) -> Result<Watch, KvError> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(key) {
            let receiver = slot.subscribe();
            return Ok(Watch { receiver });
        }
        if slots.len() >= MAX_WATCHED {
            slots.retain(|_, slot| slot.receiver_count() > 0);
        }
        if slots.len() >= MAX_WATCHED {
            return Err(KvError::limit("watched keys", slots.len() + 1, MAX_WATCHED));
        }
        let (sender, receiver) = watch::channel(());
        slots.insert(Bytes::copy_from_slice(key), sender);
        Ok(Watch { receiver })
    }

    /// Wakes those who watch one of these keys.
    pub(super) fn wake<'a>(&self, keys: impl Iterator<Item = &'a Bytes>) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.is_empty() {
            return;
        }
        for key in keys {
            let alone = slots.get(key).is_some_and(|slot| slot.send(()).is_err());
            if alone {
                slots.remove(key);
            }
        }
    }

    /// Wakes everybody: what changed is not known.
    pub(super) fn wake_all(&self) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| slot.send(()).is_ok());
    }

    /// Ends every watch with an error.
    pub(super) fn close(&self) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.clear();
    }
}

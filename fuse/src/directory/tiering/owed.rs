//! Files that a call has promised to the cold store and that are not there: what failed, until somebody
//! takes note, and when it is tried again.
//!
//! ```text
//! a call failed -> owed -> pause, try -> pause, try ... -> paid       (any later copy pays, too)
//!                    |                                       |
//!                    +-- its error stays --------------------+-- until it is acknowledged
//! ```
//! The call was told, so nothing depends on this: it is what the level tries on its own, for as long as
//! the worker lives. Bound: [`FILES`]; a failure beyond it is told to the call and not tried again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use nix::errno::Errno;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::DirectoryFs;
use super::super::spool::pause;
use super::super::sys::FileId;
use super::TierError;

/// Files that are remembered.
const FILES: usize = 10_000;

/// Files that are listed one by one at most.
const LISTED: usize = 1000;

/// A file that was to be in the cold store.
#[derive(Debug)]
struct Debt {
    file: FileId,
    name: String,
    /// The last failure, until it is acknowledged.
    error: Option<(String, SystemTime)>,
    attempts: u32,
    due: Instant,
    /// It is there, or there is nothing any more that could be.
    paid: bool,
}

/// See the module text. Files are known by their numbers.
#[derive(Debug, Default)]
pub(super) struct Debts {
    files: Mutex<BTreeMap<u64, Debt>>,
    changed: Notify,
    untracked: AtomicU64,
}

/// Files of level `cold` that are not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ColdDebts {
    /// How many there are.
    pub owed: u64,
    /// Files with a failure that nobody has acknowledged; they may be there by now.
    pub errors: u64,
    /// Failures of files that were too many to be remembered.
    pub untracked: u64,
    /// Some of them.
    pub list: Vec<OwedFile>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OwedFile {
    /// The kernel's number for it.
    pub node: u64,
    /// Where it was at the failure.
    pub name: String,
    /// It is not there yet, and will be tried again.
    pub owed: bool,
    /// Attempts that failed one after the other.
    pub attempts: u32,
    /// The last failure, until it is acknowledged.
    pub error: Option<String>,
    /// How long ago that was.
    pub error_seconds: Option<u64>,
}

impl Debts {
    /// Notes a failure.
    pub(super) fn owe(&self, (node, file): (u64, FileId), name: &str, error: &TierError) {
        let mut files = self.lock();
        if files.len() >= FILES && !files.contains_key(&node) {
            files.retain(|_, debt| !debt.paid);
            if files.len() >= FILES {
                self.untracked.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        let known = files.remove(&node).filter(|debt| debt.file == file);
        let attempts = known.map_or(1, |debt| debt.attempts.saturating_add(1));
        let debt = Debt {
            file,
            name: name.to_owned(),
            error: Some((error.to_string(), SystemTime::now())),
            attempts,
            due: Instant::now() + pause(attempts),
            paid: false,
        };
        files.insert(node, debt);
        drop(files);
        self.changed.notify_one();
    }

    /// The file is there.
    pub(super) fn paid(&self, node: u64, file: &FileId) {
        let mut files = self.lock();
        if let Some(debt) = files.get_mut(&node)
            && debt.file == *file
        {
            debt.paid = true;
            debt.attempts = 0;
            if debt.error.is_none() {
                files.remove(&node);
            }
        }
    }

    /// How many files are owed.
    pub(super) fn owed(&self) -> u64 {
        self.lock().values().filter(|debt| !debt.paid).count() as u64
    }

    /// Every file that is owed: number and file.
    pub(super) fn files(&self) -> Vec<(u64, FileId)> {
        let files = self.lock();
        let owed = files.iter().filter(|(_, debt)| !debt.paid);
        owed.map(|(node, debt)| (*node, debt.file.clone()))
            .collect()
    }

    /// Every file that something is known of: number and file.
    pub(super) fn known(&self) -> Vec<(u64, FileId)> {
        let files = self.lock();
        let known = files.iter();
        known
            .map(|(node, debt)| (*node, debt.file.clone()))
            .collect()
    }

    /// All of it, or only the files with these numbers.
    pub(super) fn status(&self, only: Option<&[u64]>) -> ColdDebts {
        let files = self.lock();
        let chosen = || {
            let all = files.iter();
            all.filter(|(node, _)| only.is_none_or(|only| only.contains(node)))
        };
        let passed = |at: &SystemTime| at.elapsed().map_or(0, |passed| passed.as_secs());
        let list = chosen().take(LISTED).map(|(node, debt)| OwedFile {
            node: *node,
            name: debt.name.clone(),
            owed: !debt.paid,
            attempts: debt.attempts,
            error: debt.error.as_ref().map(|(why, _)| why.clone()),
            error_seconds: debt.error.as_ref().map(|(_, at)| passed(at)),
        });
        ColdDebts {
            owed: chosen().filter(|(_, debt)| !debt.paid).count() as u64,
            errors: chosen().filter(|(_, debt)| debt.error.is_some()).count() as u64,
            untracked: self.untracked.load(Ordering::Relaxed),
            list: list.collect(),
        }
    }

    /// Forgets the failures of these files, or of all; returns how many there were.
    pub(super) fn acknowledge(&self, only: Option<&[u64]>) -> u64 {
        let mut known = 0;
        self.lock().retain(|node, debt| {
            if only.is_none_or(|only| only.contains(node)) {
                known += u64::from(debt.error.take().is_some());
            }
            debt.error.is_some() || !debt.paid
        });
        known
    }

    /// The next file to be tried, when its time has come.
    async fn due(&self) -> (u64, FileId) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before the look, so that no change in between is missed.
            changed.as_mut().enable();
            let first = {
                let files = self.lock();
                let owed = files.iter().filter(|(_, debt)| !debt.paid);
                let first = owed.min_by_key(|(_, debt)| debt.due);
                first.map(|(node, debt)| (*node, debt.file.clone(), debt.due))
            };
            match first {
                Some((node, file, due)) if due <= Instant::now() => return (node, file),
                Some((_, _, due)) => {
                    tokio::time::timeout_at(due, changed).await.ok();
                }
                None => changed.await,
            }
        }
    }

    /// Nothing under this lock is left half done by a panic.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Debt>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DirectoryFs {
    /// Tries files again that a call has promised to the cold store, one after the other, for as long as
    /// it is not dropped; ends at once without a cold store.
    pub async fn pay_debts(self: Arc<Self>) {
        let Ok(tiering) = self.cold().map(Arc::clone) else {
            return;
        };
        loop {
            let (node, file) = tiering.keeping.debts.due().await;
            self.pay(node, file).await.ok();
        }
    }

    /// Tries one of them once.
    pub(super) async fn pay(self: &Arc<Self>, node: u64, file: FileId) -> Result<u64, TierError> {
        let done = self.keep_cold(node, &file).await;
        let debts = &self.cold()?.keeping.debts;
        match &done {
            Ok(_) => {}
            // It was deleted: nobody wants its contents.
            Err(TierError::File(_, Errno::ESTALE | Errno::ENOENT)) => debts.paid(node, &file),
            Err(error) => {
                let name = self.name_of(&file).await;
                debts.owe((node, file), &name, error);
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: u8) -> FileId {
        FileId {
            kind: 1,
            bytes: [number].into(),
        }
    }

    // Without it a failure would be forgotten before anybody knew of it, or told for ever.
    #[tokio::test(start_paused = true)]
    async fn an_error_stays_until_it_is_acknowledged_and_a_debt_until_it_is_paid() {
        let debts = Debts::default();
        debts.owe((7, file(7)), "a", &TierError::Silent);
        debts.owe((8, file(8)), "b", &TierError::Restless);
        debts.paid(7, &file(9)); // another file has had the number
        assert_eq!(debts.owed(), 2);
        debts.paid(7, &file(7));
        let status = debts.status(None);
        assert_eq!((status.owed, status.errors), (1, 2));
        assert!(!status.list[0].owed && status.list[0].error.is_some());
        assert_eq!(debts.acknowledge(Some(&[8])), 1);
        assert_eq!(debts.acknowledge(None), 1);
        let status = debts.status(None);
        assert_eq!((status.owed, status.errors, status.list.len()), (1, 0, 1));
        assert_eq!(debts.due().await.0, 8);
        debts.owe((8, file(8)), "b", &TierError::Silent);
        assert_eq!(debts.status(None).list[0].attempts, 2);
        debts.paid(8, &file(8));
        debts.acknowledge(None);
        assert_eq!(debts.status(None), ColdDebts::default());
    }

    // Without it a store that is down for long would be a leak.
    #[test]
    fn what_is_remembered_has_an_end() {
        let debts = Debts::default();
        for number in 0..FILES as u64 + 5 {
            debts.owe((number, file(0)), "x", &TierError::Silent);
        }
        let status = debts.status(None);
        assert_eq!((status.owed, status.untracked), (FILES as u64, 5));
        assert_eq!(status.list.len(), LISTED);
        debts.paid(0, &file(0));
        debts.owe((u64::MAX, file(0)), "x", &TierError::Silent);
        assert_eq!(debts.owed(), FILES as u64);
    }
}

//! Bringing a tree to level `cold` because somebody asks, and what calls have promised and is not there.
//!
//! ```text
//! staged files into the directory -> all files that the store does not have -> copies
//!                                 -> or only those that are owed (owed.rs)
//! ```

use std::os::fd::AsFd;
use std::sync::Arc;

use nix::errno::Errno;
use tokio::sync::mpsc;

use super::super::durability::Level;
use super::super::spool::Flushed;
use super::super::{DirectoryFs, sys};
use super::copy::stat;
use super::demote::Target;
use super::job::{Action, Job, Report, Told};
use super::{ColdDebts, TierError, TierPolicy, blocking};

/// Messages on their way.
const AHEAD: usize = 16;

/// What of a tree is in the cold store, so far.
fn flushed(report: &Report, staged: &Flushed) -> Flushed {
    let missing = report.chosen.saturating_sub(report.moved);
    let bytes = report.chosen_bytes.saturating_sub(report.moved_bytes);
    let failed = report.failed + report.kept_open + report.kept_changed;
    let mut error = staged.error.clone();
    if error.is_empty() {
        error = report.error.clone().unwrap_or_default();
    }
    if error.is_empty() && failed > 0 {
        error = "a file that is being moved".to_owned();
    }
    Flushed {
        done: report.files.saturating_sub(missing),
        total: report.files,
        bytes: report.bytes.saturating_sub(bytes),
        failed: staged.failed + failed,
        error,
    }
}

impl DirectoryFs {
    /// Brings files at and below `path` to level `cold`: all, or only those that a call has promised and
    /// that are not there. `tell` hears how far it has come; it ends when nobody listens.
    ///
    /// Errors: the path, or a volume without a cold store. What cannot be brought there is told in the
    /// result.
    pub async fn flush_to_cold(
        self: &Arc<Self>,
        path: Vec<u8>,
        only_owed: bool,
        tell: &mpsc::Sender<Flushed>,
    ) -> Result<Flushed, TierError> {
        self.cold()?;
        let (fs, at, told) = (Arc::clone(self), path.clone(), tell.clone());
        let staged = blocking(move || {
            let mut say = |flushed: &Flushed| told.blocking_send(flushed.clone()).is_ok();
            let staged = fs.flush_below(&at, Level::Shared, &mut say);
            staged.map_err(|errno| TierError::File("find it", errno))
        });
        let staged = staged.await?;
        if only_owed {
            return self.pay_below(path, staged, tell).await;
        }
        let job = Job {
            action: Action::Copy,
            path,
            policy: TierPolicy::default(),
            dry_run: false,
        };
        let (told, mut heard) = mpsc::channel(AHEAD);
        let work = async {
            let done = self.run_job(job, &told).await;
            drop(told);
            done
        };
        let listen = async {
            while let Some(told) = heard.recv().await {
                if let Told::Sums(report) = told
                    && tell.send(flushed(&report, &staged)).await.is_err()
                {
                    break; // nobody listens: the work ends
                }
            }
            drop(heard);
        };
        let (report, ()) = tokio::join!(work, listen);
        Ok(flushed(&report?, &staged))
    }

    /// Tries what is owed below a path.
    async fn pay_below(
        self: &Arc<Self>,
        path: Vec<u8>,
        staged: Flushed,
        tell: &mpsc::Sender<Flushed>,
    ) -> Result<Flushed, TierError> {
        let mut owed = self.cold()?.keeping.debts.files();
        let (fs, all) = (Arc::clone(self), owed.clone());
        let only = blocking(move || {
            let only = fs.below(&path, || all);
            only.map_err(|errno| TierError::File("find it", errno))
        });
        if let Some(only) = only.await? {
            owed.retain(|(node, _)| only.contains(node));
        }
        let mut flushed = Flushed {
            total: staged.total + owed.len() as u64,
            ..staged
        };
        for (node, file) in owed {
            if tell.send(flushed.clone()).await.is_err() {
                break;
            }
            match self.pay(node, file.clone()).await {
                Ok(bytes) => {
                    flushed.done += 1;
                    flushed.bytes += bytes;
                }
                Err(TierError::File(_, Errno::ESTALE | Errno::ENOENT)) => flushed.done += 1,
                Err(error) => {
                    flushed.failed += 1;
                    if flushed.error.is_empty() {
                        flushed.error = format!("{}: {error}", self.name_of(&file).await);
                    }
                }
            }
        }
        Ok(flushed)
    }

    /// Brings a file that a job has chosen to level `cold`; its length.
    pub(super) async fn copy_to_cold(self: &Arc<Self>, target: &Target) -> Result<u64, TierError> {
        let named = sys::file_id(target.file.as_fd());
        let id = named.map_err(|errno| TierError::File("name it", errno))?;
        self.keep_cold(target.number, &id).await?;
        let file = Arc::clone(&target.file);
        blocking(move || Ok(stat(&file)?.st_size.unsigned_abs())).await
    }

    /// What at and below `path` calls have promised to the cold store and is not there, and what failed;
    /// `None` on a volume without a cold store.
    ///
    /// Errors: those of finding the path.
    pub fn cold_debts(&self, path: &[u8]) -> Result<Option<ColdDebts>, Errno> {
        let Ok(tiering) = self.cold() else {
            return Ok(None);
        };
        let debts = &tiering.keeping.debts;
        let only = self.below(path, || debts.known())?;
        Ok(Some(debts.status(only.as_deref())))
    }

    /// Forgets the failures of level `cold` at and below `path`; returns how many there were.
    ///
    /// Errors: those of finding the path.
    pub(in super::super) fn acknowledge_cold(&self, path: &[u8]) -> Result<u64, Errno> {
        let Ok(tiering) = self.cold() else {
            return Ok(0);
        };
        let debts = &tiering.keeping.debts;
        let only = self.below(path, || debts.known())?;
        Ok(debts.acknowledge(only.as_deref()))
    }
}

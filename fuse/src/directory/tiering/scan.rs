//! The walk of a job: what is there, what is chosen, and the candidates for those who move.
//!
//! Where the policy looks at how full the file system is there are two walks: the first counts what
//! is chosen by age, the second chooses what is old enough to make the room that is needed.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::FileStat;
use nix::sys::statvfs::fstatvfs;
use tokio::sync::mpsc;

use super::super::DirectoryFs;
use super::demote::{Kept, MOVER, Target};
use super::job::{Action, Job, Row, Shared, Told};
use super::level::COPIER;
use super::policy::Ages;
use super::record::State;
use super::walk::{Seen, Visitor};
use super::{TierError, attribute};

/// Seconds since the epoch.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// Time since a file was last read or written; none for one of the future.
fn age(stat: &FileStat, now: i64) -> Duration {
    let used = stat.st_atime.max(stat.st_mtime);
    Duration::from_secs(u64::try_from(now.saturating_sub(used)).unwrap_or(0))
}

/// The walk of a job.
struct Walking<'a> {
    fs: &'a DirectoryFs,
    job: &'a Job,
    shared: &'a Shared,
    now: i64,
    /// Bytes that still have to be chosen; none: all.
    need: Option<u64>,
    /// Count by age instead of choosing.
    ages: Option<&'a mut Ages>,
    candidates: Option<&'a mpsc::Sender<Target>>,
    rows: &'a mpsc::Sender<Told>,
}

impl Walking<'_> {
    fn count(&self, size: u64, is_stub: bool) {
        let mut report = self.shared.lock();
        report.files += 1;
        report.bytes += size;
        report.stubs += u64::from(is_stub);
        report.stub_bytes += if is_stub { size } else { 0 };
    }

    /// Takes a file as chosen: tells it, or hands it to the movers.
    fn choose(&mut self, seen: &Seen<'_>, size: u64) -> ControlFlow<()> {
        {
            let mut report = self.shared.lock();
            report.chosen += 1;
            report.chosen_bytes += size;
        }
        if let Some(need) = &mut self.need {
            *need = need.saturating_sub(size);
        }
        let Some(candidates) = self.candidates else {
            let row = Row {
                path: seen.path.to_vec(),
                bytes: size,
            };
            return match self.rows.blocking_send(Told::File(row)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            };
        };
        let how = match self.job.action {
            Action::Copy => COPIER | OFlag::O_NOFOLLOW,
            _ => MOVER,
        };
        let file = match seen.open(how) {
            Ok(file) => file,
            Err(errno) => {
                match Kept::from(errno) {
                    Kept::Open => self.shared.lock().kept_open += 1,
                    _ if errno == Errno::ENOENT => {}
                    _ => self.shared.fail(seen.path, &errno),
                }
                return ControlFlow::Continue(());
            }
        };
        let target = Target {
            file: Arc::new(file.into()),
            number: self.fs.number(seen.stat.st_ino),
            path: seen.path.to_vec(),
        };
        match candidates.blocking_send(target) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    /// A file that is empty below: the length of its contents if it is a stub.
    fn stub(&self, seen: &Seen<'_>) -> Result<Option<u64>, TierError> {
        let opened = seen.open(OFlag::O_PATH);
        let file = opened.map_err(|errno| TierError::File("open it", errno))?;
        let record = self.fs.cold()?.space.read(file.as_fd())?;
        Ok(record
            .filter(|record| record.state != State::Copy)
            .map(|record| record.size))
    }

    /// Whether the store has what a file has.
    fn is_kept(&self, seen: &Seen<'_>) -> bool {
        let opened = seen.open(OFlag::O_PATH);
        opened.is_ok_and(|file| self.fs.is_kept_cold(file.as_fd()))
    }

    /// Whether a file of this length is a candidate; pinned ones are counted.
    fn is_chosen(&self, seen: &Seen<'_>, size: u64) -> bool {
        let age = age(&seen.stat, self.now);
        if self.need == Some(0) || !self.job.policy.chooses(seen.path, size, age) {
            return false;
        }
        let pinned = seen
            .open(OFlag::O_PATH)
            .is_ok_and(|file| attribute::is_pinned(file.as_fd()));
        if pinned {
            self.shared.lock().kept_pinned += 1;
        }
        !pinned
    }
}

impl Visitor for Walking<'_> {
    fn directory(&mut self, directory: BorrowedFd<'_>, _: &[u8]) -> bool {
        if self.ages.is_none() {
            self.shared.lock().directories += 1;
        }
        let moves = matches!(self.job.action, Action::Scan | Action::Demote);
        let pinned = moves && attribute::is_pinned(directory);
        if pinned && self.ages.is_none() {
            self.shared.lock().kept_pinned += 1;
        }
        !pinned
    }

    fn file(&mut self, seen: &Seen<'_>) -> ControlFlow<()> {
        let size = seen.stat.st_size.unsigned_abs();
        if let Some(ages) = &mut self.ages {
            let age = age(&seen.stat, self.now);
            if self.job.policy.chooses(seen.path, size, age) {
                ages.add(age, size);
            }
            return ControlFlow::Continue(());
        }
        let stub = match size {
            0 => match self.stub(seen) {
                Ok(stub) => stub,
                Err(TierError::File(_, Errno::ENOENT)) => return ControlFlow::Continue(()),
                Err(error) => {
                    self.shared.fail(seen.path, &error);
                    None
                }
            },
            _ => None,
        };
        self.count(stub.unwrap_or(size), stub.is_some());
        match (self.job.action, stub) {
            (Action::Recall, Some(size)) => self.choose(seen, size),
            (Action::Recall, None) | (_, Some(_)) => ControlFlow::Continue(()),
            (Action::Copy, None) if size > 0 && !self.is_kept(seen) => self.choose(seen, size),
            (Action::Scan | Action::Demote, None) if self.is_chosen(seen, size) => {
                self.choose(seen, size)
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn failed(&mut self, path: &[u8], errno: Errno) -> ControlFlow<()> {
        self.shared.fail(path, &errno);
        ControlFlow::Continue(())
    }
}

/// The walk, or both of them where the file system's level decides. Blocks.
pub(super) fn walk(
    fs: &DirectoryFs,
    job: &Job,
    shared: &Shared,
    candidates: Option<&mpsc::Sender<Target>>,
    rows: &mpsc::Sender<Told>,
) -> Result<(), Errno> {
    let mut job = job.clone();
    let totals = fstatvfs(&fs.mount)?;
    let used = totals.blocks().saturating_sub(totals.blocks_free());
    let bytes = |blocks| u64::saturating_mul(blocks, totals.fragment_size());
    let need = match job.action {
        Action::Recall | Action::Copy => None,
        Action::Scan | Action::Demote => job.policy.need(bytes(used), bytes(totals.blocks())),
    };
    let mut ages = Ages::default();
    let mut walking = Walking {
        fs,
        job: &job,
        shared,
        now: now(),
        need,
        ages: None,
        candidates,
        rows,
    };
    if let Some(need) = need.filter(|need| *need > 0) {
        walking.ages = Some(&mut ages);
        fs.walk(&job.path, &mut walking)?;
        let cut = ages.cut(need);
        job.policy.older_than.0 = job.policy.older_than.0.max(cut);
        walking = Walking {
            fs,
            job: &job,
            shared,
            now: now(),
            need: Some(need),
            ages: None,
            candidates,
            rows,
        };
    }
    fs.walk(&job.path, &mut walking)
}

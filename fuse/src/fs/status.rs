//! What a mount has done: counters while it runs, and a snapshot of them for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use super::errno::KINDS;

/// What a request asks for; the label of its counter and of its log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// LOOKUP.
    Lookup,
    /// GETATTR.
    Attributes,
    /// READLINK.
    ReadLink,
    /// OPEN.
    Open,
    /// READ.
    Read,
    /// RELEASE.
    Release,
    /// OPENDIR.
    OpenDirectory,
    /// READDIR.
    ReadDirectory,
    /// READDIRPLUS.
    ReadDirectoryPlus,
    /// STATFS.
    StatFs,
    /// GETXATTR and LISTXATTR.
    Xattr,
    /// LSEEK.
    Seek,
    /// Anything that would change the file system: refused.
    Modify,
    /// Anything else that is answered without work.
    Other,
}

impl Operation {
    const ALL: [Self; 14] = [
        Self::Lookup,
        Self::Attributes,
        Self::ReadLink,
        Self::Open,
        Self::Read,
        Self::Release,
        Self::OpenDirectory,
        Self::ReadDirectory,
        Self::ReadDirectoryPlus,
        Self::StatFs,
        Self::Xattr,
        Self::Seek,
        Self::Modify,
        Self::Other,
    ];

    /// Label in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Attributes => "getattr",
            Self::ReadLink => "readlink",
            Self::Open => "open",
            Self::Read => "read",
            Self::Release => "release",
            Self::OpenDirectory => "opendir",
            Self::ReadDirectory => "readdir",
            Self::ReadDirectoryPlus => "readdirplus",
            Self::StatFs => "statfs",
            Self::Xattr => "xattr",
            Self::Seek => "lseek",
            Self::Modify => "modify",
            Self::Other => "other",
        }
    }
}

/// Counters of one mount since its worker started.
#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: [AtomicU64; Operation::ALL.len()],
    errors: [AtomicU64; KINDS.len()],
    pub(super) opens_cached: AtomicU64,
    pub(super) opens_passthrough: AtomicU64,
    pub(super) opens_resent: AtomicU64,
    pub(super) filled_on_open: AtomicU64,
    pub(super) reincarnations: AtomicU64,
    pub(super) forgotten_names: AtomicU64,
    pub(super) refused_backings: AtomicU64,
    pub(super) backing_ids: AtomicU64,
    pub(super) read_bytes: AtomicU64,
    pub(super) passthrough_bytes: AtomicU64,
}

/// A mount's counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileSystemStatus {
    /// Complete files are opened for kernel passthrough.
    pub passthrough: bool,
    /// Why they are not, and what to try.
    pub passthrough_off_because: Option<String>,
    /// Opens answered in cached mode.
    pub opens_cached: u64,
    /// Opens answered in passthrough mode.
    pub opens_passthrough: u64,
    /// Opens a dead worker had recorded, answered again.
    pub opens_resent: u64,
    /// Opens that waited until the whole (small) file was fetched.
    pub filled_on_open: u64,
    /// Files that became complete while open in cached mode, and got a new node id.
    pub reincarnations: u64,
    /// Names the kernel was told to forget for that.
    pub forgotten_names: u64,
    /// Files the kernel refused for passthrough.
    pub refused_backings: u64,
    /// Backing ids registered with the kernel now.
    pub backing_ids: u64,
    /// File handles open now.
    pub open_handles: u64,
    /// Bytes answered to READ requests (passthrough reads never come here).
    pub read_bytes: u64,
    /// Lengths of the files opened for passthrough, summed over opens: what the kernel may read
    /// without asking.
    pub passthrough_bytes: u64,
    /// Requests by operation.
    pub requests: BTreeMap<&'static str, u64>,
    /// Failed requests by kind of error.
    pub errors: BTreeMap<&'static str, u64>,
}

impl Counters {
    pub(super) fn request(&self, operation: Operation) {
        self.requests[operation as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn error(&self, errno: i32) {
        let kind = KINDS.iter().position(|(_, known)| *known == errno);
        let other = KINDS.iter().position(|(_, known)| *known == libc::EIO);
        if let Some(at) = kind.or(other) {
            self.errors[at].fetch_add(1, Relaxed);
        }
    }

    pub(super) fn snapshot(&self) -> FileSystemStatus {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        FileSystemStatus {
            passthrough: false,
            passthrough_off_because: None,
            opens_cached: count(&self.opens_cached),
            opens_passthrough: count(&self.opens_passthrough),
            opens_resent: count(&self.opens_resent),
            filled_on_open: count(&self.filled_on_open),
            reincarnations: count(&self.reincarnations),
            forgotten_names: count(&self.forgotten_names),
            refused_backings: count(&self.refused_backings),
            backing_ids: count(&self.backing_ids),
            open_handles: 0,
            read_bytes: count(&self.read_bytes),
            passthrough_bytes: count(&self.passthrough_bytes),
            requests: Operation::ALL
                .iter()
                .map(|operation| (operation.name(), count(&self.requests[*operation as usize])))
                .collect(),
            errors: KINDS
                .iter()
                .zip(&self.errors)
                .map(|((name, _), n)| (*name, count(n)))
                .collect(),
        }
    }
}

/// Adds one.
pub(super) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a counter could be shown under another operation's name.
    #[test]
    fn every_operation_has_its_place() {
        let counters = Counters::default();
        for (at, operation) in Operation::ALL.iter().enumerate() {
            assert_eq!(*operation as usize, at);
            counters.request(*operation);
        }
        counters.error(libc::ESTALE);
        counters.error(libc::EXDEV);
        let status = counters.snapshot();
        assert_eq!(status.requests.len(), Operation::ALL.len());
        assert!(status.requests.values().all(|count| *count == 1));
        assert_eq!((status.errors["stale"], status.errors["io"]), (1, 1));
    }
}

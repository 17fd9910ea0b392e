//! Errors at the border to the kernel: one errno each, and a line in the log for those that
//! somebody has to look at.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use terrace_cache::fill::ReadError;
use terrace_cache::store::StoreErrorKind;

use crate::namespace::FsError;

/// Lines in one [`WINDOW`]; a store that is down fails every request.
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// Kinds that are counted: every errno this file can answer.
pub(crate) const KINDS: [(&str, i32); 13] = [
    ("not_found", libc::ENOENT),
    ("not_directory", libc::ENOTDIR),
    ("is_directory", libc::EISDIR),
    ("name_too_long", libc::ENAMETOOLONG),
    ("read_only", libc::EROFS),
    ("no_attribute", libc::ENODATA),
    ("stale", libc::ESTALE),
    ("invalid", libc::EINVAL),
    ("permission", libc::EACCES),
    ("unreachable", libc::ETIMEDOUT),
    ("io", libc::EIO),
    ("range", libc::ERANGE),
    ("not_supported", libc::ENOSYS),
];

/// The errno of an error.
pub(crate) fn errno(error: &FsError) -> i32 {
    match error {
        FsError::NotFound => libc::ENOENT,
        FsError::NotDirectory => libc::ENOTDIR,
        FsError::IsDirectory => libc::EISDIR,
        FsError::NameTooLong => libc::ENAMETOOLONG,
        FsError::ReadOnly => libc::EROFS,
        FsError::NoAttribute => libc::ENODATA,
        FsError::Stale => libc::ESTALE,
        FsError::Invalid(_) => libc::EINVAL,
        FsError::Store(error) => match error.kind {
            StoreErrorKind::NotFound => libc::ENOENT,
            StoreErrorKind::Permission => libc::EACCES,
            StoreErrorKind::Throttled | StoreErrorKind::Corrupt => libc::EIO,
            StoreErrorKind::Unreachable => libc::ETIMEDOUT,
            StoreErrorKind::Changed => libc::ESTALE,
            StoreErrorKind::Invalid => libc::EINVAL,
        },
        FsError::Local(_) => libc::EIO,
    }
}

/// Whether somebody has to look at it: not what programs ask for all day.
fn is_noteworthy(error: &FsError) -> bool {
    match error {
        FsError::Store(error) => error.kind != StoreErrorKind::NotFound,
        FsError::Local(_) => true,
        FsError::NotFound
        | FsError::NotDirectory
        | FsError::IsDirectory
        | FsError::NameTooLong
        | FsError::ReadOnly
        | FsError::NoAttribute
        | FsError::Stale
        | FsError::Invalid(_) => false,
    }
}

/// The error of a read as one of the file system.
pub(super) fn from_read(error: ReadError) -> FsError {
    match error {
        ReadError::Store(error) => FsError::Store(error),
        error @ (ReadError::NotKept(_) | ReadError::Closed) => FsError::Local(error.to_string()),
    }
}

/// Logs errors, a bounded number per time.
#[derive(Debug)]
pub(super) struct ErrorLog {
    window: Mutex<(Instant, u32)>,
}

impl ErrorLog {
    pub(super) fn new() -> Self {
        Self {
            window: Mutex::new((Instant::now(), 0)),
        }
    }

    /// One line at WARN: operation, inode, cause, and what to try (part of a store error's text).
    pub(super) fn note(&self, operation: &'static str, ino: u64, error: &FsError) {
        if !is_noteworthy(error) {
            return;
        }
        match self.turn() {
            Turn::Log => tracing::warn!(operation, ino, %error, "request failed"),
            Turn::Last => {
                let seconds = WINDOW.as_secs();
                tracing::warn!(
                    operation, ino, %error,
                    "request failed; further ones are only counted for {seconds} s"
                );
            }
            Turn::Silent => {}
        }
    }

    fn turn(&self) -> Turn {
        let mut window = super::lock(&self.window);
        if window.0.elapsed() > WINDOW {
            *window = (Instant::now(), 0);
        }
        window.1 = window.1.saturating_add(1);
        match window.1 {
            ..LINES => Turn::Log,
            LINES => Turn::Last,
            _ => Turn::Silent,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Log,
    Last,
    Silent,
}

#[cfg(test)]
mod tests {
    use super::*;
    use terrace_cache::store::StoreError;

    fn store(kind: StoreErrorKind) -> FsError {
        FsError::Store(StoreError {
            kind,
            operation: "read range",
            target: "s3://bucket/key".into(),
            reason: "why".into(),
        })
    }

    // Without it "unreachable" could become "deleted", or a changed object end a whole mount.
    #[test]
    fn each_kind_of_store_error_has_its_errno() {
        for (kind, expected) in [
            (StoreErrorKind::NotFound, libc::ENOENT),
            (StoreErrorKind::Permission, libc::EACCES),
            (StoreErrorKind::Throttled, libc::EIO),
            (StoreErrorKind::Unreachable, libc::ETIMEDOUT),
            (StoreErrorKind::Changed, libc::ESTALE),
            (StoreErrorKind::Corrupt, libc::EIO),
            (StoreErrorKind::Invalid, libc::EINVAL),
        ] {
            assert_eq!(errno(&store(kind)), expected, "{kind:?}");
            assert!(KINDS.iter().any(|(_, errno)| *errno == expected));
        }
        assert_eq!(errno(&FsError::ReadOnly), libc::EROFS);
        assert_eq!(errno(&FsError::NoAttribute), libc::ENODATA);
    }

    // Without it a store that is down would fill the log disk.
    #[test]
    fn the_log_falls_silent() {
        let log = ErrorLog::new();
        let turns: Vec<Turn> = (0..LINES + 5).map(|_| log.turn()).collect();
        assert_eq!(turns.iter().filter(|turn| **turn == Turn::Last).count(), 1);
        assert_eq!(turns.last(), Some(&Turn::Silent));
        assert!(!is_noteworthy(&FsError::NotFound) && is_noteworthy(&FsError::Local("x".into())));
    }
}

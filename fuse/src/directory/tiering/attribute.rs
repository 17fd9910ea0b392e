//! Where records are kept: extended attributes of the file's own inode.
//!
//! | attribute                | on                | is                                              |
//! | ------------------------ | ----------------- | ----------------------------------------------- |
//! | `trusted.terrace.cold`   | regular files     | the record ([`super::record`])                  |
//! | `trusted.terrace.volume` | the root          | the volume's name in the store, 32 hex digits   |
//! | `user.terrace.why`       | stubs             | says to people why the file is empty            |
//! | `user.terrace.pin`       | files, directories| never demoted, nor anything below               |
//!
//! A directory whose file system has no `trusted.*` keeps the first two as `user.terrace.*`. Owners
//! of files can write those, so there a record is believed only if its object was made of this very
//! file: the key ends with the file's handle ([`super::cold`]).

use std::ffi::CStr;
use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::super::sys;
use super::TierError;
use super::cold::handle_text;
use super::record::{RECORD_MAX, Record};

/// Says to people why a file is empty.
pub(super) const WHY: &CStr = c"user.terrace.why";

/// Exempts a file, or all below a directory.
pub(super) const PIN: &CStr = c"user.terrace.pin";

/// Names that only this module gives to files.
pub(in super::super) fn is_reserved(name: &[u8]) -> bool {
    let rest = name
        .strip_prefix(b"trusted.terrace.")
        .or_else(|| name.strip_prefix(b"user.terrace."));
    rest.is_some_and(|rest| matches!(rest, b"cold" | b"volume" | b"why"))
}

/// The name space that holds records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// Only a process with `CAP_SYS_ADMIN` writes there.
    Trusted,
    /// So does the owner of a file.
    User,
}

impl Space {
    /// The better one of those that the file system of `root` has.
    ///
    /// Errors: `EOPNOTSUPP` where there is neither.
    pub(super) fn probe(root: BorrowedFd<'_>) -> Result<Self, Errno> {
        for space in [Self::Trusted, Self::User] {
            let found = sys::get_xattr(root, space.volume(), &mut []);
            match found {
                Ok(_) => return Ok(space),
                Err(Errno::ENODATA) => {
                    let written = sys::set_xattr(root, space.volume(), b"", libc::XATTR_CREATE);
                    if written.is_ok() {
                        sys::remove_xattr(root, space.volume())?;
                        return Ok(space);
                    }
                }
                Err(_) => {}
            }
        }
        Err(Errno::EOPNOTSUPP)
    }

    fn record(self) -> &'static CStr {
        match self {
            Self::Trusted => c"trusted.terrace.cold",
            Self::User => c"user.terrace.cold",
        }
    }

    fn volume(self) -> &'static CStr {
        match self {
            Self::Trusted => c"trusted.terrace.volume",
            Self::User => c"user.terrace.volume",
        }
    }

    /// The record of a file, if it has one.
    ///
    /// Errors: `Record` for one that cannot be believed; nothing must be changed then.
    pub(super) fn read(self, file: BorrowedFd<'_>) -> Result<Option<Record>, TierError> {
        let mut room = [0; RECORD_MAX];
        let length = match sys::get_xattr(file, self.record(), &mut room) {
            Ok(length) => length,
            Err(Errno::ENODATA | Errno::EOPNOTSUPP) => return Ok(None),
            Err(Errno::ERANGE) => return Err(TierError::Record("it is too long".to_owned())),
            Err(errno) => return Err(TierError::File("read its record", errno)),
        };
        let record = Record::decode(&room[..length]);
        let record = record.map_err(|damage| TierError::Record(damage.to_string()))?;
        if self == Self::User {
            let id = sys::file_id(file).map_err(|errno| TierError::File("name it", errno))?;
            if !record.key.ends_with(&handle_text(&id)) {
                let why = "it names an object of another file".to_owned();
                return Err(TierError::Record(why));
            }
        }
        Ok(Some(record))
    }

    /// Writes the record of a file.
    pub(super) fn write(self, file: impl AsFd, record: &Record) -> Result<(), TierError> {
        let bytes = record.encode().ok_or_else(|| {
            TierError::Record("store and key are too long for it; use a shorter prefix".to_owned())
        })?;
        sys::set_xattr(file.as_fd(), self.record(), &bytes, 0)
            .map_err(|errno| TierError::File("write its record", errno))
    }

    /// Returns when no write(2) is under way that began before: each holds the lock of the inode that a change
    /// of attributes needs, and has set the time of modification at its beginning.
    pub(super) fn outlast_writes(self, file: impl AsFd) {
        let nobodys = match self {
            Self::Trusted => c"trusted.terrace.none",
            Self::User => c"user.terrace.none",
        };
        // What is not there is not removed, and nothing is changed.
        sys::remove_xattr(file.as_fd(), nobodys).ok();
    }

    /// Takes record and explanation away, as far as they are there.
    pub(super) fn clear(self, file: impl AsFd) -> Result<(), TierError> {
        for name in [WHY, self.record()] {
            match sys::remove_xattr(file.as_fd(), name) {
                Ok(()) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => {}
                Err(errno) => return Err(TierError::File("remove its record", errno)),
            }
        }
        Ok(())
    }

    /// The volume's name in the store; made at the first call.
    pub(super) fn volume_name(self, root: BorrowedFd<'_>) -> Result<String, Errno> {
        let mut room = [0; 64];
        match sys::get_xattr(root, self.volume(), &mut room) {
            Ok(length) => return name(&room[..length]),
            Err(Errno::ENODATA) => {}
            Err(errno) => return Err(errno),
        }
        let made = format!("{:032x}", rand::random::<u128>());
        match sys::set_xattr(root, self.volume(), made.as_bytes(), libc::XATTR_CREATE) {
            Ok(()) => Ok(made),
            // Another node was first.
            Err(Errno::EEXIST) => {
                let length = sys::get_xattr(root, self.volume(), &mut room)?;
                name(&room[..length])
            }
            Err(errno) => Err(errno),
        }
    }
}

/// 32 hexadecimal digits: nothing else becomes a part of a key.
fn name(bytes: &[u8]) -> Result<String, Errno> {
    let digits = bytes.len() == 32
        && bytes
            .iter()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !digits {
        return Err(Errno::EUCLEAN);
    }
    Ok(bytes.iter().copied().map(char::from).collect())
}

/// Leaves the words for people on a file.
///
/// A file system without `user.*` has no place for them, which is no reason to keep the contents.
pub(super) fn explain(file: BorrowedFd<'_>, record: &Record) -> Result<(), Errno> {
    let mut words = String::new();
    write!(
        words,
        "the contents of this file, {} bytes, are in {}/{} (SHA-256 ",
        record.size,
        record.store.trim_end_matches('/'),
        record.key
    )
    .map_err(|_| Errno::EINVAL)?;
    for byte in record.digest {
        write!(words, "{byte:02x}").map_err(|_| Errno::EINVAL)?;
    }
    words.push_str("); read it through terrace mount, or bring it back with terrace volume recall");
    match sys::set_xattr(file, WHY, words.as_bytes(), 0) {
        Err(Errno::EOPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// Whether a file or directory is pinned by itself.
pub(super) fn is_pinned(file: BorrowedFd<'_>) -> bool {
    sys::get_xattr(file, PIN, &mut []).is_ok()
}

/// Pins, or ends that.
pub(super) fn pin(file: BorrowedFd<'_>, pinned: bool) -> Result<(), Errno> {
    if pinned {
        return sys::set_xattr(file, PIN, b"1", 0);
    }
    match sys::remove_xattr(file, PIN) {
        Err(Errno::ENODATA) => Ok(()),
        other => other,
    }
}

//! Files as they lie in the directory, for who copies it without having it mounted.
//!
//! | the file                        | its copy                                                        |
//! | ------------------------------- | --------------------------------------------------------------- |
//! | has its contents                | has them, and no record: a later write might leave the time that |
//! |                                 | the record has, and then it would be believed                   |
//! | is a stub, or half recalled     | is the same with the same record: it names the same object      |
//! | is a stub whose record is bound to its inode, or cannot be seen by this process | is refused      |
//!
//! The lock of an open ([`super::lock`]) is held on the descriptor that was looked at, so the file stays what it
//! is until that is closed.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::super::sys;
use super::attribute::{Space, WHY};
use super::record::{Record, State};
use super::{TierError, lock};

/// Attributes that a copy with contents does not have.
pub const RECORDS: &[&CStr] = &[c"trusted.terrace.cold", c"user.terrace.cold", WHY];

/// Attributes of a volume's root that no other volume has.
pub const OF_ROOTS: &[&CStr] = &[c"trusted.terrace.volume", c"user.terrace.volume"];

/// Where the contents of a file are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// In the file.
    Here,
    /// In the object of this key; the file's attributes say so.
    Away(String),
}

/// Looks at a regular file that is open for reading, and keeps movers from it until it is closed. Blocks.
///
/// Errors: `Locked` while its contents are moved; `Record` for what a copy cannot have; `File`.
pub fn whereabouts(file: &File) -> Result<Whereabouts, TierError> {
    let failed = |errno| TierError::File("look at it", errno);
    if !lock::share(file).map_err(failed)? {
        return Err(TierError::Locked);
    }
    let is_empty = fstat(file).map_err(failed)?.st_size == 0;
    if let Some(record) = Space::Trusted.read(file.as_fd())? {
        return Ok(match is_away(&record, is_empty) {
            true => Whereabouts::Away(record.key),
            false => Whereabouts::Here,
        });
    }
    match Space::User.read(file.as_fd())? {
        Some(record) if is_away(&record, is_empty) => Err(TierError::Record(
            "it holds for this one file on a file system without trusted.* attributes; bring the contents \
             back first (terrace volume recall)"
                .to_owned(),
        )),
        // Records are shown to processes with CAP_SYS_ADMIN only; the words for people to everybody.
        None if is_empty && explains(file)? => Err(TierError::Record(
            "this process may not see it: it needs CAP_SYS_ADMIN; or bring the contents back first (terrace \
             volume recall)"
                .to_owned(),
        )),
        _ => Ok(Whereabouts::Here),
    }
}

fn is_away(record: &Record, is_empty: bool) -> bool {
    match record.state {
        State::Copy => false,
        State::Demoting | State::Stub => is_empty,
        State::Recalling => true,
    }
}

fn explains(file: &File) -> Result<bool, TierError> {
    match sys::get_xattr(file.as_fd(), WHY, &mut []) {
        Ok(_) => Ok(true),
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(false),
        Err(errno) => Err(TierError::File("look at its attributes", errno)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::record::Time;
    use super::*;

    fn record(state: State) -> Record {
        Record {
            state,
            size: 5,
            mtime: Time {
                seconds: 1,
                nanoseconds: 0,
            },
            digest: [7; 32],
            store: "s3://bucket".to_owned(),
            key: "v/aa/1-1.0a".to_owned(),
        }
    }

    // A stub that is taken for an empty file is a copy without contents, and a record that is taken along with
    // contents is believed when it no longer holds.
    #[test]
    fn only_what_is_away_is_copied_with_its_record() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        let open = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            File::open(&path).unwrap()
        };
        let key = Whereabouts::Away("v/aa/1-1.0a".to_owned());
        assert_eq!(whereabouts(&open(b"")).unwrap(), Whereabouts::Here);
        if Space::Trusted
            .write(open(b""), &record(State::Copy))
            .is_err()
        {
            println!(
                "SKIP only_what_is_away_is_copied_with_its_record: no trusted.* attributes here"
            );
            return;
        }
        for (state, bytes, away) in [
            (State::Copy, &b"whole"[..], false),
            (State::Copy, b"", false),
            (State::Demoting, b"whole", false),
            (State::Demoting, b"", true),
            (State::Stub, b"written since", false),
            (State::Stub, b"", true),
            (State::Recalling, b"wh", true),
        ] {
            let file = open(bytes);
            Space::Trusted.write(&file, &record(state)).unwrap();
            let found = whereabouts(&file).unwrap();
            assert_eq!(found == key, away, "{state:?} with {} bytes", bytes.len());
        }
        // What a process without the right to see records meets.
        Space::Trusted.clear(open(b"")).unwrap();
        sys::set_xattr(open(b"").as_fd(), WHY, b"its contents are elsewhere", 0).unwrap();
        let refused = whereabouts(&open(b""));
        assert!(matches!(refused, Err(TierError::Record(_))), "{refused:?}");
        let mover = File::options().write(true).open(&path).unwrap();
        assert!(lock::take(&mover).unwrap());
        let busy = whereabouts(&File::open(&path).unwrap());
        assert!(matches!(busy, Err(TierError::Locked)), "{busy:?}");
    }
}

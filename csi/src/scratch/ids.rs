//! Numbers of volumes, given out once at a time and kept across restarts.
//!
//! ```text
//! <base>/ids/<number> -> <hash>     a symbolic link that leads nowhere; its text is the owner
//! ```
//!
//! A link appears with its text or not at all, so a number never exists without its owner, and two
//! processes that want the same number are told apart by the kernel. The number is the project id of
//! the volume's files where the file system has project quotas. It is freed last, when neither files
//! nor limits have it any more: a number that is given out too early charges one volume for another.
//!
//! The range lies far above what people write into `/etc/projid` and what kubelet gives to
//! `emptyDir` volumes (from 1,048,577).

use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::error::ScratchError;

/// Numbers that are given out unless others are configured.
pub const PRIVATE_IDS: RangeInclusive<u32> = 2_000_000_000..=2_000_999_999;

/// The numbers of one base directory.
#[derive(Debug)]
pub(crate) struct Ids {
    directory: PathBuf,
    range: RangeInclusive<u32>,
}

impl Ids {
    pub(crate) fn new(base: &Path, range: RangeInclusive<u32>) -> Self {
        Self {
            directory: base.join("ids"),
            range,
        }
    }

    /// The owner's number, if it has one.
    pub(crate) fn of(&self, owner: &str) -> Result<Option<u32>, ScratchError> {
        let all = self.all()?;
        let own = all.into_iter().find(|(_, name)| name == owner);
        Ok(own.map(|(number, _)| number))
    }

    /// The owner's number: the one that it has, else the lowest free one that is `usable`. Durable
    /// when it returns. The caller holds the shared lock.
    pub(crate) fn take(
        &self,
        owner: &str,
        mut usable: impl FnMut(u32) -> Result<bool, ScratchError>,
    ) -> Result<u32, ScratchError> {
        let all = self.all()?;
        if let Some((number, _)) = all.iter().find(|(_, name)| name == owner) {
            return Ok(*number);
        }
        let taken: std::collections::BTreeSet<u32> = all.into_iter().map(|(n, _)| n).collect();
        for number in self.range.clone() {
            if taken.contains(&number) || !usable(number)? {
                continue;
            }
            let path = self.path(number);
            match symlink(owner, &path) {
                Ok(()) => return self.sync().map(|()| number),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(ScratchError::io("make", &path)(error)),
            }
        }
        Err(ScratchError::Unsupported {
            what: "another volume",
            base: self.directory.clone(),
            why: "every number of the private range is taken; delete volumes".to_owned(),
        })
    }

    /// Gives the owner's number back. One that it has not is no error.
    pub(crate) fn free(&self, owner: &str) -> Result<(), ScratchError> {
        let Some(number) = self.of(owner)? else {
            return Ok(());
        };
        let path = self.path(number);
        match std::fs::remove_file(&path) {
            Ok(()) => self.sync(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(ScratchError::io("remove", &path)(error)),
        }
    }

    /// Every number and its owner. What is no number is not ours and left alone.
    pub(crate) fn all(&self) -> Result<Vec<(u32, String)>, ScratchError> {
        let mut found = Vec::new();
        let failed = || ScratchError::io("list", &self.directory);
        for entry in std::fs::read_dir(&self.directory).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            let (Some(number), Ok(owner)) = (number, std::fs::read_link(entry.path())) else {
                continue;
            };
            let owner = String::from_utf8_lossy(owner.as_os_str().as_bytes()).into_owned();
            found.push((number, owner));
        }
        found.sort();
        Ok(found)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.directory.join(number.to_string())
    }

    fn sync(&self) -> Result<(), ScratchError> {
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(ScratchError::io("sync", &self.directory))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::locks::Locks;
    use super::*;

    // Two volumes with one number share one quota: a full neighbour stops the other's writes.
    #[test]
    fn numbers_are_unique_under_concurrency_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let base = &directory;
        std::fs::create_dir(base.path().join("ids")).unwrap();
        let ids = || Ids::new(base.path(), 100..=131);
        let mut taken: Vec<u32> = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..8)
                .map(|taker| {
                    scope.spawn(move || {
                        let locks = Locks::new(base.path());
                        let owners = (0..4).map(|turn| format!("owner-{taker}-{turn}"));
                        let take = |owner: String| {
                            let _shared = locks.hold_shared().unwrap();
                            ids().take(&owner, |_| Ok(true)).unwrap()
                        };
                        owners.map(take).collect::<Vec<u32>>()
                    })
                })
                .collect();
            takers.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        taken.sort_unstable();
        assert_eq!(taken, (100..=131).collect::<Vec<u32>>());
        assert!(ids().take("one-more", |_| Ok(true)).is_err());
        let before = ids().of("owner-3-2").unwrap().unwrap();
        assert_eq!(ids().take("owner-3-2", |_| Ok(true)).unwrap(), before);
        ids().free("owner-3-2").unwrap();
        ids().free("owner-3-2").unwrap();
        // A number that the file system still charges somebody for is passed over.
        assert!(ids().take("one-more", |_| Ok(false)).is_err());
        assert_eq!(ids().take("one-more", |_| Ok(true)).unwrap(), before);
    }

    // Only one of two operations on a volume may run; the end of the first frees the second.
    #[test]
    fn a_volume_is_held_once() {
        let base = tempfile::tempdir().unwrap();
        let locks = Locks::new(base.path());
        let hash = "00112233445566778899aabbccddeeff";
        let held = locks.try_hold(hash).unwrap();
        assert!(held.is_some());
        assert!(locks.try_hold(hash).unwrap().is_none());
        assert!(Locks::new(base.path()).try_hold(hash).unwrap().is_none());
        assert!(
            locks
                .try_hold("ff112233445566778899aabbccddeeff")
                .unwrap()
                .is_some()
        );
        drop(held);
        assert!(locks.try_hold(hash).unwrap().is_some());
    }
}

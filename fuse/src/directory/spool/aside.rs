//! `lost+found` of a spool: bytes that may not go where they were meant to, kept for people.
//!
//! ```text
//! lost+found/<id, 16 hex digits>-<last name>       the bytes
//! lost+found/<id, 16 hex digits>-<last name>.why   when, which path, why: one line
//! ```
//! Nothing here is ever deleted or overwritten by this program; what is here counts as used room.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest part of a name that is kept.
const NAME_MAX: usize = 128;

/// See the module text.
#[derive(Debug)]
pub(super) struct Aside {
    directory: PathBuf,
}

/// How much is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Aside {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Where they are.
    pub(super) fn path(&self) -> &Path {
        &self.directory
    }

    /// Moves a file of the spool here, durably, with the reason; returns where it is.
    ///
    /// Errors: those of writing the reason and of the rename; the file is where it was then.
    pub(super) fn keep(
        &self,
        file: &Path,
        id: u64,
        name: &str,
        since: u64,
        why: &str,
    ) -> io::Result<PathBuf> {
        let last = name.rsplit('/').next().unwrap_or_default();
        let last: String = last
            .chars()
            .map(|c| if c.is_control() { '_' } else { c })
            .take_while({
                let mut length = 0;
                move |c| {
                    length += c.len_utf8();
                    length <= NAME_MAX
                }
            })
            .collect();
        let target = self.directory.join(format!("{id:016x}-{last}"));
        let mut reason = target.clone().into_os_string();
        reason.push(".why");
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut text = options.open(&reason)?;
        let line = format!("{name:?}, staged at {since} (seconds since 1970): {why}\n");
        text.write_all(line.as_bytes())?;
        text.sync_all()?;
        fs::rename(file, &target)?;
        for directory in [file.parent(), Some(&*self.directory)]
            .into_iter()
            .flatten()
        {
            File::open(directory)?.sync_all()?;
        }
        Ok(target)
    }

    /// Counts what is here.
    pub(super) fn total(&self) -> Total {
        let mut total = Total::default();
        for entry in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let is_reason = entry.file_name().as_encoded_bytes().ends_with(b".why");
            if let Ok(metadata) = entry.metadata()
                && !is_reason
            {
                total.files += 1;
                total.bytes += metadata.blocks() * 512;
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // Without it bytes would be kept under a name that nobody can find, or outside of the spool.
    #[test]
    fn names_of_users_stay_one_component() {
        let place = tempfile::tempdir().unwrap();
        let aside = Aside::new(place.path().join("lost+found"));
        fs::create_dir(aside.path()).unwrap();
        for (id, name) in [
            (1, "a/b\n.pt"),
            (2, ".."),
            (3, &"\u{e9}".repeat(200)),
            (4, ""),
        ] {
            let file = place.path().join("bytes");
            fs::write(&file, [7; 100]).unwrap();
            let kept = aside.keep(&file, id, name, 5, "because").unwrap();
            assert_eq!(kept.parent(), Some(aside.path()));
            assert_eq!(fs::read(&kept).unwrap(), [7; 100]);
            let why = fs::read_to_string(format!("{}.why", kept.display())).unwrap();
            assert!(
                why.ends_with("because\n") && why.lines().count() == 1,
                "{why}"
            );
        }
        assert_eq!(aside.total().files, 4);
    }
}

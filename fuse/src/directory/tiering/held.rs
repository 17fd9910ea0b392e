//! Objects of this volume that copies of it name, by the lists that lie beside all copies.
//!
//! ```text
//! <directory>/LOCK      a collection holds one byte of it ([`super::lock`]) exclusively, who copies shared
//! <directory>/<name>    "terrace-held 1\n" (key "\n")* "end " COUNT "\n"
//! ```
//! Whoever makes a copy with stubs writes its list first. A list that is damaged, or of another version, ends a
//! collection before anything is taken: what it names is not known.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::TierError;
use super::lock;

/// First line of a list.
const HEAD: &str = "terrace-held 1";

/// File that is locked.
const LOCK: &str = "LOCK";

/// Keeps copies from being made until it is dropped; `None` where none were ever made. Blocks.
///
/// Errors: `Copying` while one is made.
pub(super) fn close(directory: &Path) -> Result<Option<File>, TierError> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    match options.mode(0o600).open(directory.join(LOCK)) {
        Ok(file) => match lock::take(&file) {
            Ok(true) => Ok(Some(file)),
            Ok(false) => Err(TierError::Copying),
            Err(errno) => Err(TierError::Marks(errno.into())),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TierError::Marks(error)),
    }
}

/// Tells every key of every list. Blocks.
pub(super) fn each(directory: &Path, mut told: impl FnMut(&str)) -> Result<(), TierError> {
    for entry in fs::read_dir(directory).map_err(TierError::Marks)? {
        let path = entry.map_err(TierError::Marks)?.path();
        // Without a name of its own a list was never finished, and neither was its copy.
        if path.extension().is_some() || path.file_name().is_some_and(|name| name == LOCK) {
            continue;
        }
        match read(&path, &mut told) {
            Ok(true) => {}
            Ok(false) => {
                let why = format!("{}: the list of a copy is damaged", path.display());
                return Err(TierError::Record(why));
            }
            // Its copy is gone for good.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(TierError::Marks(error)),
        }
    }
    Ok(())
}

/// Tells the keys of a list; `false` when it is not whole.
fn read(path: &Path, told: &mut impl FnMut(&str)) -> std::io::Result<bool> {
    let mut lines = BufReader::new(File::open(path)?).lines();
    if lines.next().transpose()?.as_deref() != Some(HEAD) {
        return Ok(false);
    }
    let mut count = 0_u64;
    while let Some(line) = lines.next().transpose()? {
        // A key has a slash, the end has none.
        if let Some(number) = line.strip_prefix("end ").filter(|rest| !rest.contains('/')) {
            return Ok(number == count.to_string() && lines.next().is_none());
        }
        told(&line);
        count += 1;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // A list that lost its end would give the objects of a copy away.
    #[test]
    fn a_list_is_whole_or_an_error() {
        let place = tempfile::tempdir().unwrap();
        let list = place.path().join("0a");
        let keys = |text: &str| {
            fs::write(&list, text).unwrap();
            let mut found = Vec::new();
            each(place.path(), |key| found.push(key.to_owned())).map(|()| found)
        };
        let good = "terrace-held 1\nv/aa/1-1.0a\nend of/v/2\nend 2\n";
        assert_eq!(keys(good).unwrap(), ["v/aa/1-1.0a", "end of/v/2"]);
        for end in 0..good.len() - 1 {
            assert!(keys(&good[..end]).is_err(), "{end} bytes were believed");
        }
        assert!(keys("terrace-held 2\nend 0\n").is_err());
        assert!(keys(&format!("{good}more\n")).is_err());
        fs::remove_file(&list).unwrap();
        fs::write(place.path().join("0b.new"), "terr").unwrap();
        assert!(close(place.path()).unwrap().is_some());
        each(place.path(), |key| panic!("{key}")).unwrap();
        assert!(close(&place.path().join("none")).unwrap().is_none());
    }
}

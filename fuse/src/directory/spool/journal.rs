//! The journal of a spool: which files are staged, and how far each has come.
//!
//! One file of records (`record.rs`) that grows at its end. Its room is allocated ahead, so that no
//! fsync of an application fails because the journal cannot grow. When it is opened, and when most of
//! it is about files that are gone, it is written anew beside itself, synced, and renamed over.
//!
//! Invariant: what [`Journal::append`] wrote is found after the worker's death, and after power loss
//! when a [`Journal::sync`] has returned since.
//!
//! Lock: one mutex, held while a record is written and while the journal is written anew; a sync waits
//! for the disk without it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::fcntl::{FallocateFlags, fallocate};

use super::lock;
use super::record::{Begin, HEADER, Owner, Record, Stamp, Step, header};

/// Room that is allocated ahead of the end.
const AHEAD: u64 = 1 << 20;

/// A journal shorter than this is not written anew.
const COMPACT_FROM: u64 = 8 << 20;

/// Longest journal that is read. One of live files alone stays far below it.
const LENGTH_MAX: u64 = 1 << 30;

/// What the records of one file come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) begin: Begin,
    /// What the file below is to be, unless another node has changed it.
    pub(super) base: Stamp,
    /// The file below may be a part of the staged one.
    pub(super) copying: bool,
    pub(super) sealed: Option<(Stamp, u32)>,
    pub(super) removing: Option<Owner>,
    /// The file below and its name were synced.
    pub(super) anchored: bool,
}

/// What was found in a journal.
#[derive(Debug)]
pub(super) struct Found {
    /// Staged files by id.
    pub(super) known: BTreeMap<u64, Known>,
    /// Something in its middle cannot be read: files that it does not name may be staged ones.
    pub(super) damaged: bool,
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: Arc<File>,
    length: u64,
    allocated: u64,
    sequence: u64,
    known: BTreeMap<u64, Known>,
}

impl Journal {
    /// Opens or makes the journal in a directory, and writes it anew without what is gone.
    ///
    /// Errors: those of reading and writing it. A tail that was being written is cut off.
    pub(super) fn open(directory: &Path) -> io::Result<(Self, Found)> {
        let path = directory.join("journal");
        let (known, sequence, damaged) = match File::open(&path) {
            Ok(file) => replay(&file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => (BTreeMap::new(), 0, false),
            Err(error) => return Err(error),
        };
        if damaged {
            // For people: what could not be read is not thrown away.
            std::fs::copy(&path, directory.join("journal.damaged"))?;
        }
        let inner = write_anew(&path, known.clone(), sequence)?;
        let journal = Self {
            path,
            inner: Mutex::new(inner),
        };
        Ok((journal, Found { known, damaged }))
    }

    /// Adds a record.
    pub(super) fn append(&self, id: u64, step: Step) -> io::Result<()> {
        let record = Record { id, step };
        let mut inner = lock(&self.inner);
        let bytes = record.encode(inner.sequence + 1);
        inner.make_room(bytes.len() as u64)?;
        // One write: what of it is missing after a crash fails the check.
        inner.file.write_all_at(&bytes, inner.length)?;
        inner.length += bytes.len() as u64;
        inner.sequence += 1;
        apply(&mut inner.known, record);
        Ok(())
    }

    /// Makes everything that was appended durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        let file = Arc::clone(&lock(&self.inner).file);
        file.sync_data()
    }

    /// Writes the journal anew when most of it is about what is gone.
    pub(super) fn compact(&self) -> io::Result<()> {
        let mut inner = lock(&self.inner);
        let needed: u64 = inner.known.len() as u64 * 1024;
        if inner.length < COMPACT_FROM.max(4 * needed) {
            return Ok(());
        }
        *inner = write_anew(&self.path, inner.known.clone(), inner.sequence)?;
        Ok(())
    }
}

impl Inner {
    fn make_room(&mut self, length: u64) -> io::Result<()> {
        if self.length + length <= self.allocated {
            return Ok(());
        }
        let to = self.length + length + AHEAD;
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let signed = i64::try_from(to).map_err(io::Error::other)?;
        fallocate(&*self.file, keep, 0, signed)?;
        self.allocated = to;
        Ok(())
    }
}

fn apply(known: &mut BTreeMap<u64, Known>, record: Record) {
    match record.step {
        Step::Begin(begin) => {
            let fresh = Known {
                base: begin.base,
                begin: *begin,
                copying: false,
                sealed: None,
                removing: None,
                anchored: false,
            };
            known.insert(record.id, fresh);
        }
        Step::End => {
            known.remove(&record.id);
        }
        step => {
            let Some(file) = known.get_mut(&record.id) else {
                return;
            };
            match step {
                Step::Sealed(stamp, crc) => file.sealed = Some((stamp, crc)),
                Step::Copying => file.copying = true,
                Step::Copied(base) => {
                    file.copying = false;
                    file.base = base;
                }
                Step::Removing(owner) => file.removing = Some(owner),
                Step::Anchored => file.anchored = true,
                Step::Begin(_) | Step::End => {}
            }
        }
    }
}

/// What the records come to, the last number, and whether something follows the first bad one.
fn replay(file: &File) -> io::Result<(BTreeMap<u64, Known>, u64, bool)> {
    let length = file.metadata()?.len();
    if length > LENGTH_MAX {
        return Err(io::Error::other("the journal is too long to be one"));
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0)?;
    let (mut known, mut last) = (BTreeMap::new(), 0);
    if bytes.len() < HEADER {
        return Ok((known, last, false));
    }
    if bytes[..HEADER] != header() {
        return Ok((known, last, true));
    }
    let mut rest = &bytes[HEADER..];
    while let Some((record, sequence, length)) = Record::decode(rest) {
        if last != 0 && sequence != last + 1 {
            break;
        }
        last = sequence;
        apply(&mut known, record);
        rest = &rest[length..];
    }
    // A torn tail has nothing behind it.
    let damaged = (8..rest.len())
        .step_by(8)
        .any(|at| matches!(Record::decode(&rest[at..]), Some((_, sequence, _)) if sequence > last));
    Ok((known, last, damaged))
}

/// Writes a journal of these files over the old one, durably.
fn write_anew(path: &Path, known: BTreeMap<u64, Known>, mut sequence: u64) -> io::Result<Inner> {
    let beside = path.with_extension("new");
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    let file = options.mode(0o600).open(&beside)?;
    let mut bytes = header().to_vec();
    for (id, file) in &known {
        for step in steps(file) {
            sequence += 1;
            bytes.extend(Record { id: *id, step }.encode(sequence));
        }
    }
    let mut inner = Inner {
        file: Arc::new(file),
        length: 0,
        allocated: 0,
        sequence,
        known,
    };
    inner.make_room(bytes.len() as u64)?;
    inner.file.write_all_at(&bytes, 0)?;
    inner.length = bytes.len() as u64;
    inner.file.sync_all()?;
    std::fs::rename(&beside, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    Ok(inner)
}

/// The fewest records that come to this.
fn steps(file: &Known) -> Vec<Step> {
    let begin = Begin {
        base: file.base,
        ..file.begin.clone()
    };
    let mut steps = vec![Step::Begin(Box::new(begin))];
    steps.extend(file.sealed.map(|(stamp, crc)| Step::Sealed(stamp, crc)));
    steps.extend(file.copying.then_some(Step::Copying));
    steps.extend(file.removing.map(Step::Removing));
    steps.extend(file.anchored.then_some(Step::Anchored));
    steps
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::super::durability::Levels;
    use super::super::super::sys::FileId;
    use super::*;

    fn begin(node: u64) -> Step {
        Step::Begin(Box::new(Begin {
            node,
            base: Stamp::default(),
            levels: Levels::UNRULED,
            since: 1,
            file: FileId {
                kind: 1,
                bytes: vec![node as u8; 8].into(),
            },
            name: format!("file{node}"),
        }))
    }

    // Without it a staged file would be forgotten with its worker, or one that is done be copied over
    // a newer one.
    #[test]
    fn a_journal_says_what_was_staged_when_it_is_opened_again() {
        let place = tempfile::tempdir().unwrap();
        let (journal, found) = Journal::open(place.path()).unwrap();
        assert!(found.known.is_empty() && !found.damaged);
        let copied = Stamp {
            size: 9,
            seconds: 5,
            nanoseconds: 6,
        };
        for (id, step) in [
            (1, begin(10)),
            (2, begin(20)),
            (3, begin(30)),
            (2, Step::Copying),
            (1, Step::Copying),
            (1, Step::Copied(copied)),
            (3, Step::End),
        ] {
            journal.append(id, step).unwrap();
        }
        journal.sync().unwrap();
        for _ in 0..2 {
            // Written anew each time, it says the same.
            let (_, found) = Journal::open(place.path()).unwrap();
            assert_eq!(found.known.keys().copied().collect::<Vec<_>>(), [1, 2]);
            assert_eq!(found.known[&1].base, copied);
            assert!(!found.known[&1].copying && found.known[&2].copying);
            assert!(!found.damaged);
        }
    }

    // Without it a crash in the middle of a record would make a spool that cannot be opened, and damage
    // in the middle would delete staged files as unknown ones.
    #[test]
    fn a_torn_tail_is_cut_and_damage_is_told() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("journal");
        let (journal, _) = Journal::open(place.path()).unwrap();
        for id in 1..=3 {
            journal.append(id, begin(id)).unwrap();
        }
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        let record = Record::decode(&whole[HEADER..]).unwrap().2;
        for cut in 0..record {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let (_, found) = Journal::open(place.path()).unwrap();
            let expected = if cut == 0 { 3 } else { 2 };
            assert_eq!(found.known.len(), expected, "{cut} bytes cut");
            assert!(!found.damaged);
        }
        let mut bad = whole.clone();
        bad[HEADER + record + 40] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        let (_, found) = Journal::open(place.path()).unwrap();
        assert_eq!(found.known.len(), 1);
        assert!(found.damaged);
        assert!(std::fs::read(place.path().join("journal.damaged")).unwrap() == bad);
    }
}

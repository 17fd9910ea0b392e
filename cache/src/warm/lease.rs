//! One filler per object across the cluster: taking, renewing, judging and breaking leases.
//!
//! All functions block and are run by [`super::disk::Disk`]. Races between two nodes that break
//! the same lease may leave two fillers; both write the same bytes under names of their own.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use tokio::time::{Duration, Instant};

use super::copy::{optional, read_small};
use super::format::{LeaseRecord, Owner, decode_lease, encode_lease};
use super::layout::hex;

/// Creates a lease that nobody has, and its directory when that is missing. `false` when somebody
/// has it.
pub(super) fn take(path: &Path, record: &LeaseRecord) -> io::Result<bool> {
    let mut file = create(path);
    if let (Err(error), Some(directory)) = (&file, path.parent())
        && error.kind() == io::ErrorKind::NotFound
    {
        std::fs::create_dir_all(directory)?;
        file = create(path);
    }
    match file {
        Ok(mut file) => {
            file.write_all(&encode_lease(record))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o644).open(path)
}

/// What the lease file says: no file, a file that cannot be understood (now), or a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    Unclear,
    Record(LeaseRecord),
}

/// Reads the lease of an object of `blocks` blocks.
pub(super) fn look(path: &Path, blocks: u32, limit: u64) -> io::Result<Seen> {
    match optional(read_small(path, limit)) {
        Ok(None) => Ok(Seen::Nothing),
        Ok(Some(bytes)) => Ok(decode_lease(&bytes, blocks).map_or(Seen::Unclear, Seen::Record)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Seen::Unclear),
        Err(error) => Err(error),
    }
}

/// Writes a new heartbeat and progress. `false` when the lease belongs to another one by now.
pub(super) fn renew(path: &Path, record: &LeaseRecord, limit: u64) -> io::Result<bool> {
    let blocks = record.finished.len() as u32;
    match look(path, blocks, limit)? {
        Seen::Record(seen) if seen.owner == record.owner => {}
        _ => return Ok(false),
    }
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(path);
    let Some(file) = optional(file)? else {
        return Ok(false);
    };
    file.write_all_at(&encode_lease(record), 0)?;
    Ok(true)
}

/// Removes the lease if it is still `owner`'s.
pub(super) fn release(path: &Path, owner: &Owner, blocks: u32, limit: u64) -> io::Result<()> {
    match look(path, blocks, limit)? {
        Seen::Record(seen) if seen.owner == *owner => {
            optional(std::fs::remove_file(path))?;
        }
        _ => {}
    }
    Ok(())
}

/// Takes a silent holder's lease away. It is renamed first, so that of several nodes only one
/// removes it; a lease that began to beat in between is put back.
pub(super) fn remove_silent(path: &Path, seen: &Seen, blocks: u32, limit: u64) -> io::Result<bool> {
    let random: [u8; 8] = rand::random();
    let aside = path.with_extension(format!("{}.part", hex(&[random, random].concat())));
    if optional(std::fs::rename(path, &aside))?.is_none() {
        return Ok(false);
    }
    let removed = look(&aside, blocks, limit)? == *seen;
    if !removed {
        // Fails when a third node has a new lease already, which is as good.
        let _ = std::fs::hard_link(&aside, path);
    }
    optional(std::fs::remove_file(&aside))?;
    Ok(removed)
}

/// Judges a lease by watching it: silent when it did not change for a whole time to live.
#[derive(Debug)]
pub(super) struct Watch {
    last: Seen,
    since: Instant,
    ttl: Duration,
}

impl Watch {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            last: Seen::Nothing,
            since: Instant::now(),
            ttl,
        }
    }

    /// Takes a look into account; `true` when the holder is silent.
    pub(super) fn is_silent(&mut self, seen: &Seen) -> bool {
        let beats = |seen: &Seen| match seen {
            Seen::Record(record) => Some((record.owner, record.heartbeat)),
            Seen::Nothing | Seen::Unclear => None,
        };
        // A half-written lease between two beats is no beat and no silence of a new holder.
        let is_new = *seen != Seen::Unclear && beats(seen) != beats(&self.last);
        if is_new || self.last == Seen::Nothing {
            self.last = seen.clone();
            self.since = Instant::now();
            return false;
        }
        self.since.elapsed() >= self.ttl
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const LIMIT: u64 = 1000;

    fn record(owner: u8, heartbeat: u64) -> LeaseRecord {
        LeaseRecord {
            owner: [owner; 16],
            heartbeat,
            finished: vec![Some(1), None],
        }
    }

    // Without this, two nodes would fill the same object, or a loser would harm the winner.
    #[test]
    fn a_lease_has_one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lease");
        assert!(take(&path, &record(1, 0)).unwrap());
        assert!(!take(&path, &record(2, 0)).unwrap());
        assert!(renew(&path, &record(1, 1), LIMIT).unwrap());
        assert!(!renew(&path, &record(2, 9), LIMIT).unwrap());
        release(&path, &[2; 16], 2, LIMIT).unwrap();
        let seen = look(&path, 2, LIMIT).unwrap();
        assert_eq!(seen, Seen::Record(record(1, 1)));

        assert!(!remove_silent(&path, &Seen::Record(record(1, 0)), 2, LIMIT).unwrap());
        assert_eq!(
            look(&path, 2, LIMIT).unwrap(),
            seen,
            "it beat in between and is put back"
        );
        assert!(remove_silent(&path, &seen, 2, LIMIT).unwrap());
        assert!(!remove_silent(&path, &seen, 2, LIMIT).unwrap());
        assert!(!renew(&path, &record(1, 2), LIMIT).unwrap());
        assert!(take(&path, &record(2, 0)).unwrap());
        release(&path, &[2; 16], 2, LIMIT).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    // Without this, a slow node would lose its lease, or a dead one would keep it for ever.
    #[tokio::test(start_paused = true)]
    async fn only_a_whole_time_to_live_of_silence_counts() {
        let mut watch = Watch::new(Duration::from_secs(10));
        let step = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        for beat in 0..5 {
            assert!(!watch.is_silent(&Seen::Record(record(1, beat))));
            step(9).await;
            assert!(!watch.is_silent(&Seen::Unclear));
        }
        step(1).await;
        assert!(watch.is_silent(&Seen::Unclear));
        assert!(watch.is_silent(&Seen::Record(record(1, 4))));
        assert!(
            !watch.is_silent(&Seen::Record(record(3, 4))),
            "another holder"
        );
        step(10).await;
        assert!(watch.is_silent(&Seen::Record(record(3, 4))));

        let mut torn = Watch::new(Duration::from_secs(10));
        assert!(!torn.is_silent(&Seen::Unclear), "just begun");
        step(10).await;
        assert!(
            torn.is_silent(&Seen::Unclear),
            "left half-written by a crash"
        );
    }
}

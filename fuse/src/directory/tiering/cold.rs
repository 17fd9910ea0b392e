//! The store side: what objects are called, and how contents go there and come back.
//!
//! ```text
//! <prefix of the store>/<volume>/<2 digits>/<32 digits>-<kind>.<handle>
//!                       |        |          |           the file's handle, hexadecimal
//!                       |        the first  a random number: two copies never share a name
//!                       32 digits, kept on the volume's root
//! ```
//! The name says to whom an object belongs when its file has moved or is gone, and nothing of paths,
//! which change. What people want to know is in its labels: the path at that time, length, time and
//! checksum ([`Labels`]). The object itself is the contents, byte for byte.
//!
//! Objects are never overwritten. One is *verified* when its bytes, read back from the store, have
//! the SHA-256 of those that were sent.

use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use nix::errno::Errno;
use sha2::{Digest, Sha256};
use terrace_cache::store::{Labels, NewObject, Store};
use terrace_cache::{ObjectId, Source};

use super::super::sys::FileId;
use super::record::{Record, Time};
use super::{Step, TierError, Tiering, blocking};

/// Bytes that are read from a file at once.
const PIECE: usize = 1 << 20;

/// Bytes of one ranged read of an object.
const RANGE: u64 = 4 << 20;

/// Ranged reads of one object at a time.
const PARALLEL: usize = 4;

/// Longest label of a path: headers of an object have 2 KB altogether.
const PATH_LABEL: usize = 1024;

/// Checksum of contents.
pub(super) type Sum = [u8; 32];

/// See the module text.
#[derive(Debug)]
pub(super) struct Cold {
    pub(super) store: Store,
    /// Keys of this volume begin with it and a slash.
    pub(super) prefix: String,
    /// Keys that are written now and that no record names yet.
    coming: Mutex<HashSet<String>>,
    /// Pieces that were read or sent so far: whether anything still moves.
    moved: AtomicU64,
}

/// A key that no collection takes while this lives.
#[derive(Debug)]
pub(super) struct Coming<'a> {
    cold: &'a Cold,
    pub(super) key: String,
}

/// The end of keys of objects that are made of a file.
pub(super) fn handle_text(id: &FileId) -> String {
    let mut text = format!("-{:x}.", id.kind.cast_unsigned());
    for byte in &id.bytes {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The file that an object was made of, from its key.
pub(super) fn file_of(key: &str) -> Option<FileId> {
    let (kind, hex) = key.rsplit_once('-')?.1.split_once('.')?;
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let bytes = pairs
        .iter()
        .map(|[high, low]| Some((digit(*high)? << 4 | digit(*low)?) as u8));
    let bytes: Option<Box<[u8]>> = bytes.collect();
    let known = rest.is_empty() && pairs.len() <= super::super::sys::HANDLE_MAX;
    Some(FileId {
        kind: u32::from_str_radix(kind, 16).ok()?.cast_signed(),
        bytes: bytes.filter(|_| known)?,
    })
}

impl Cold {
    /// The part of a store that belongs to a volume.
    pub(super) fn new(store: Store, volume: &str) -> Self {
        let prefix = match store.url().prefix() {
            "" => volume.to_owned(),
            above => format!("{above}/{volume}"),
        };
        Self {
            store,
            prefix,
            coming: Mutex::default(),
            moved: AtomicU64::new(0),
        }
    }

    /// Grows while bytes move.
    pub(super) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    fn move_on(&self) {
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// Checksum of the first `size` bytes of a file. Blocks.
    pub(super) fn sum(&self, file: &File, size: u64) -> Result<Sum, TierError> {
        let mut hash = Sha256::new();
        let mut at = 0;
        while at < size {
            let length = (size - at).min(PIECE as u64) as usize;
            hash.update(read(file, at, length)?);
            at += length as u64;
            self.move_on();
        }
        Ok(hash.finalize().into())
    }

    /// A key for contents of a file.
    pub(super) fn new_key(&self, id: &FileId) -> Coming<'_> {
        let number = format!("{:032x}", rand::random::<u128>());
        let key = format!(
            "{}/{}/{number}{}",
            self.prefix,
            &number[..2],
            handle_text(id)
        );
        self.coming().insert(key.clone());
        Coming { cold: self, key }
    }

    /// Whether the contents of this key are on their way.
    pub(super) fn is_coming(&self, key: &str) -> bool {
        self.coming().contains(key)
    }

    fn coming(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the first `size` bytes of a file to a new object, and reads them back; their checksum.
    ///
    /// Errors: `Changed` when they are not those of `wanted`, or fewer; `Mismatch` when the store has
    /// others.
    pub(super) async fn put(
        &self,
        file: &Arc<File>,
        key: &str,
        size: u64,
        wanted: Option<Sum>,
        labels: &Labels,
    ) -> Result<Sum, TierError> {
        let mut new = self.store.create_labelled(key, labels).await?;
        let sent = match self.send(&mut new, file, size).await {
            Ok(sent) if wanted.is_none_or(|wanted| wanted == sent) => sent,
            other => {
                new.abandon().await;
                return Err(other.err().unwrap_or(TierError::Changed));
            }
        };
        new.finish().await?;
        self.verify(key, size, sent).await?;
        Ok(sent)
    }

    /// Sends the first `size` bytes of a file; their checksum.
    async fn send(
        &self,
        new: &mut NewObject,
        file: &Arc<File>,
        size: u64,
    ) -> Result<Sum, TierError> {
        let mut hash = Sha256::new();
        let mut at = 0;
        while at < size {
            let from = Arc::clone(file);
            let length = (size - at).min(PIECE as u64) as usize;
            let (piece, rest) = blocking(move || {
                let piece = read(&from, at, length)?;
                hash.update(&piece);
                Ok((piece, hash))
            })
            .await?;
            new.write(piece).await?;
            hash = rest;
            at += length as u64;
            self.move_on();
        }
        Ok(hash.finalize().into())
    }

    /// Reads an object and compares it with what was written.
    async fn verify(&self, key: &str, size: u64, sum: Sum) -> Result<(), TierError> {
        let object = self.find(key, size).await?;
        let mut hash = Sha256::new();
        let mut ranges = self.ranges(object);
        while let Some(bytes) = ranges.try_next().await? {
            hash = blocking(move || {
                hash.update(&bytes);
                Ok(hash)
            })
            .await?;
            self.move_on();
        }
        match <Sum>::from(hash.finalize()) == sum {
            true => Ok(()),
            false => Err(TierError::Mismatch(key.to_owned())),
        }
    }

    /// The object of a key, pinned as it is now.
    pub(super) async fn find(&self, key: &str, size: u64) -> Result<ObjectId, TierError> {
        let meta = self.store.head(key).await?;
        if meta.version.size != size {
            return Err(TierError::Mismatch(key.to_owned()));
        }
        Ok(self.store.object(&meta))
    }

    /// All bytes of an object in order, some ranges ahead.
    fn ranges(
        &self,
        object: ObjectId,
    ) -> impl futures::Stream<Item = Result<Bytes, TierError>> + Unpin + Send + use<> {
        let (store, size) = (self.store.clone(), object.size());
        let starts = (0..size.div_ceil(RANGE)).map(|number| number * RANGE);
        stream::iter(starts)
            .map(move |start| {
                let range = start..(start + RANGE).min(size);
                collect(store.clone(), object.clone(), range)
            })
            .buffered(PARALLEL)
            .boxed()
    }

    /// Writes the contents of a record into a file, from the beginning to the end, so that whoever
    /// looks at it meanwhile sees a part of them and never zeros in their place.
    pub(super) async fn fetch(
        &self,
        tiering: &Tiering,
        record: &Record,
        file: &Arc<File>,
    ) -> Result<(), TierError> {
        let object = self.find(&record.key, record.size).await?;
        let mut hash = Sha256::new();
        let mut at = 0;
        let mut ranges = self.ranges(object);
        while let Some(bytes) = ranges.try_next().await? {
            let to = Arc::clone(file);
            let length = bytes.len() as u64;
            hash = blocking(move || {
                hash.update(&bytes);
                to.write_all_at(&bytes, at).map_err(failed("write it"))?;
                Ok(hash)
            })
            .await?;
            at += length;
            tiering.step(Step::Fetched)?;
        }
        match at == record.size && <Sum>::from(hash.finalize()) == record.digest {
            true => Ok(()),
            false => Err(TierError::Mismatch(record.key.clone())),
        }
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.cold.coming().remove(&self.key);
    }
}

async fn collect(store: Store, object: ObjectId, range: Range<u64>) -> Result<Bytes, TierError> {
    let mut bytes = BytesMut::with_capacity((range.end - range.start) as usize);
    let mut pieces = store.read(&object, range).await?;
    while let Some(piece) = pieces.try_next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

fn failed(what: &'static str) -> impl Fn(std::io::Error) -> TierError {
    move |error| {
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        TierError::File(what, errno)
    }
}

/// Exactly `length` bytes; `Changed` when there are fewer.
fn read(file: &File, at: u64, length: usize) -> Result<Bytes, TierError> {
    let mut piece = vec![0; length];
    match file.read_exact_at(&mut piece, at) {
        Ok(()) => Ok(piece.into()),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(TierError::Changed),
        Err(error) => Err(failed("read it")(error)),
    }
}

/// What an object says to people; without its checksum where that is known only when it was sent.
pub(super) fn labels(path: &[u8], size: u64, mtime: Time, sum: Option<&Sum>) -> Labels {
    let mut shown = String::new();
    for byte in path {
        match byte {
            b' '..=b'~' if *byte != b'%' => shown.push(char::from(*byte)),
            byte => shown.push_str(&format!("%{byte:02X}")),
        }
    }
    // The end of a path tells more than its beginning.
    let cut = shown.len().saturating_sub(PATH_LABEL);
    let mut labels = Labels::from([
        ("path", shown[cut..].trim().to_owned()),
        ("size", size.to_string()),
        (
            "mtime",
            format!("{}.{:09}", mtime.seconds, mtime.nanoseconds),
        ),
    ]);
    if let Some(sum) = sum {
        let digits = sum.iter().map(|byte| format!("{byte:02x}"));
        labels.insert("sha256", digits.collect());
    }
    labels
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // Without it an orphan would not be told from the object of a file that has moved.
    #[test]
    fn a_key_tells_its_file() {
        let id = FileId {
            kind: 0x81,
            bytes: [0, 255, 16].into(),
        };
        let key = format!("a-b/c/00/0123{}", handle_text(&id));
        assert_eq!(key, "a-b/c/00/0123-81.00ff10");
        assert_eq!(file_of(&key).unwrap(), id);
        for other in ["", "x", "x-y", "x-1.0", "x-1.zz", "x-g.00", "x-1.é"] {
            assert_eq!(file_of(other), None, "{other}");
        }
        assert_eq!(file_of(&format!("x-1.{}", "0".repeat(400))), None);
    }

    // Without it a strange name would make a file that can never be moved.
    #[test]
    fn labels_are_printable_and_short() {
        let time = Time {
            seconds: -1,
            nanoseconds: 5,
        };
        let path = [&b"caf\xc3\xa9/100%/"[..], &[b'\n'; 900]].concat();
        let labels = labels(&path, 7, time, Some(&[0xab; 32]));
        assert!(labels["path"].len() <= PATH_LABEL);
        assert!(labels.values().all(|value| value.is_ascii()));
        assert!(labels.values().map(String::len).sum::<usize>() < 1500);
        assert_eq!(labels["mtime"], "-1.000000005");
    }
}

//! What the journal says about a staged file, in bytes.
//!
//! # Format 1
//!
//! Integers are little-endian. A journal is a header and records, each a multiple of 8 bytes.
//! ```text
//! header, 16 bytes                     record
//!  0  8  magic "TRSPOOL1"               0  4  crc32c of all that follows in the record
//!  8  4  version: 1                     4  4  length of the record
//! 12  4  crc32c of bytes 0..12          8  8  sequence number: that of the record before plus 1
//!                                      16  4  kind
//!                                      20  4  length of what follows without padding
//!                                      24  8  id of the staged file
//!                                      32  .  by kind, below; then zeros up to a multiple of 8
//! 1 begin     8 node id, 8 size, 8 seconds and 8 nanoseconds of mtime of the file below when staging
//!             began (its base), 4 level of fsync, 4 level of close, 8 seconds since 1970, 4 kind and
//!             4 length h of its file handle, h bytes, then its path for people
//! 2 sealed    8 size, 8 seconds and 8 nanoseconds of mtime, 4 crc32c of the contents (`copy.rs`)
//! 3 copying   nothing: the file below is about to be overwritten with these contents
//! 4 copied    8 size, 8 seconds and 8 nanoseconds of mtime: the base from now on; contents verified
//! 5 removing  4 mode, 4 user, 4 group: its last name is about to go
//! 6 end       nothing: no longer staged
//! 7 anchored  nothing: the file below, its name and this journal were synced
//! ```
//! The first record that fails its check, or whose number is not the next, ends the journal.

use super::super::durability::{Level, Levels};
use super::super::sys::{FileId, HANDLE_MAX};

/// First bytes of a journal.
pub(super) const HEADER: usize = 16;

/// Bytes of a record before what its kind has.
const HEAD: usize = 32;

/// Longest path that is noted, in bytes; the rest is cut.
const NAME_MAX: usize = 4096;

/// A record longer than this is damage.
const RECORD_MAX: usize = 8192;

/// Size and time of the last change of contents of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    pub(super) seconds: i64,
    pub(super) nanoseconds: i64,
}

/// How staging began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Begin {
    pub(super) node: u64,
    pub(super) base: Stamp,
    pub(super) levels: Levels,
    /// Seconds since 1970, for people.
    pub(super) since: u64,
    pub(super) file: FileId,
    /// Path below the root, for people.
    pub(super) name: String,
}

/// Whose a file is that has lost its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// One step of a staged file. See the module text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Begin(Box<Begin>),
    Sealed(Stamp, u32),
    Copying,
    Copied(Stamp),
    Removing(Owner),
    End,
    Anchored,
}

/// A step and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: u64,
    pub(super) step: Step,
}

/// The header of a journal.
pub(super) fn header() -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(b"TRSPOOL1");
    bytes[8..12].copy_from_slice(&1_u32.to_le_bytes());
    let check = crc32c::crc32c(&bytes[..12]);
    bytes[12..].copy_from_slice(&check.to_le_bytes());
    bytes
}

fn level(level: Level) -> u32 {
    match level {
        Level::Accepted => 0,
        Level::Local => 1,
        Level::Shared => 2,
        Level::Cold => 3,
    }
}

fn level_of(number: u32) -> Option<Level> {
    let all = [Level::Accepted, Level::Local, Level::Shared, Level::Cold];
    all.into_iter().find(|known| level(*known) == number)
}

fn put_stamp(out: &mut Vec<u8>, stamp: &Stamp) {
    out.extend_from_slice(&stamp.size.to_le_bytes());
    out.extend_from_slice(&stamp.seconds.to_le_bytes());
    out.extend_from_slice(&stamp.nanoseconds.to_le_bytes());
}

impl Record {
    /// The record under its number.
    pub(super) fn encode(&self, sequence: u64) -> Vec<u8> {
        let mut body = Vec::new();
        let kind: u32 = match &self.step {
            Step::Begin(begin) => {
                encode_begin(&mut body, begin);
                1
            }
            Step::Sealed(stamp, crc) => {
                put_stamp(&mut body, stamp);
                body.extend_from_slice(&crc.to_le_bytes());
                2
            }
            Step::Copying => 3,
            Step::Copied(stamp) => {
                put_stamp(&mut body, stamp);
                4
            }
            Step::Removing(owner) => {
                for number in [owner.mode, owner.uid, owner.gid] {
                    body.extend_from_slice(&number.to_le_bytes());
                }
                5
            }
            Step::End => 6,
            Step::Anchored => 7,
        };
        let length = (HEAD + body.len()).next_multiple_of(8);
        let mut out = vec![0; 4];
        out.extend_from_slice(&(length as u32).to_le_bytes());
        out.extend_from_slice(&sequence.to_le_bytes());
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&body);
        out.resize(length, 0);
        let check = crc32c::crc32c(&out[4..]);
        out[..4].copy_from_slice(&check.to_le_bytes());
        out
    }

    /// The record at the start of `bytes`, with its number and length; `None` where there is none.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, u64, usize)> {
        let length = Reader(bytes.get(4..)?).u32()? as usize;
        if !(HEAD..=RECORD_MAX).contains(&length) || !length.is_multiple_of(8) {
            return None;
        }
        let bytes = bytes.get(..length)?;
        let mut reader = Reader(bytes);
        if reader.u32()? != crc32c::crc32c(&bytes[4..]) {
            return None;
        }
        reader.u32()?;
        let sequence = reader.u64()?;
        let kind = reader.u32()?;
        let body = reader.u32()? as usize;
        let id = reader.u64()?;
        let mut body = Reader(reader.0.get(..body)?);
        let step = match kind {
            1 => Step::Begin(Box::new(decode_begin(&mut body)?)),
            2 => Step::Sealed(body.stamp()?, body.u32()?),
            3 => Step::Copying,
            4 => Step::Copied(body.stamp()?),
            5 => Step::Removing(Owner {
                mode: body.u32()?,
                uid: body.u32()?,
                gid: body.u32()?,
            }),
            6 => Step::End,
            7 => Step::Anchored,
            _ => return None,
        };
        Some((Self { id, step }, sequence, length))
    }
}

fn encode_begin(out: &mut Vec<u8>, begin: &Begin) {
    out.extend_from_slice(&begin.node.to_le_bytes());
    put_stamp(out, &begin.base);
    out.extend_from_slice(&level(begin.levels.fsync).to_le_bytes());
    out.extend_from_slice(&level(begin.levels.close).to_le_bytes());
    out.extend_from_slice(&begin.since.to_le_bytes());
    out.extend_from_slice(&begin.file.kind.to_le_bytes());
    out.extend_from_slice(&(begin.file.bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(&begin.file.bytes);
    let name = begin.name.as_bytes();
    out.extend_from_slice(&name[..name.len().min(NAME_MAX)]);
}

fn decode_begin(body: &mut Reader<'_>) -> Option<Begin> {
    let (node, base) = (body.u64()?, body.stamp()?);
    let levels = Levels {
        fsync: level_of(body.u32()?)?,
        close: level_of(body.u32()?)?,
    };
    let (since, kind) = (body.u64()?, body.u32()?.cast_signed());
    let length = body.u32()? as usize;
    if length > HANDLE_MAX {
        return None;
    }
    let (bytes, name) = body.0.split_at_checked(length)?;
    Some(Begin {
        node,
        base,
        levels,
        since,
        file: FileId {
            kind,
            bytes: bytes.into(),
        },
        name: String::from_utf8_lossy(name).into_owned(),
    })
}

/// Takes numbers off the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn stamp(&mut self) -> Option<Stamp> {
        Some(Stamp {
            size: self.u64()?,
            seconds: self.u64()?.cast_signed(),
            nanoseconds: self.u64()?.cast_signed(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn stamp(size: u64) -> Stamp {
        Stamp {
            size,
            seconds: -1,
            nanoseconds: 999,
        }
    }

    fn all() -> Vec<Record> {
        let begin = Begin {
            node: 7,
            base: stamp(0),
            levels: Levels {
                fsync: Level::Local,
                close: Level::Accepted,
            },
            since: 1_700_000_000,
            file: FileId {
                kind: -2,
                bytes: vec![1, 2, 3].into(),
            },
            name: "ckpt/model.pt".to_owned(),
        };
        let owner = Owner {
            mode: 0o100_644,
            uid: 1,
            gid: 2,
        };
        let steps = [
            Step::Begin(Box::new(begin)),
            Step::Sealed(stamp(5), 0xdead_beef),
            Step::Copying,
            Step::Copied(stamp(5)),
            Step::Removing(owner),
            Step::End,
            Step::Anchored,
        ];
        steps.map(|step| Record { id: 11, step }).to_vec()
    }

    // Without it the next version would read this one's journals as something else.
    #[test]
    fn the_format_stays() {
        let mut bytes = header().to_vec();
        for (at, record) in all().iter().enumerate() {
            bytes.extend(record.encode(at as u64 + 1));
        }
        let golden = include_bytes!("../../../tests/golden/spool-journal-1");
        assert!(bytes == golden, "the journal's format has changed");
        let mut rest = &golden[HEADER..];
        for (at, expected) in all().iter().enumerate() {
            let (record, sequence, length) = Record::decode(rest).unwrap();
            assert_eq!((&record, sequence), (expected, at as u64 + 1));
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
    }

    proptest::proptest! {
        /// Broken: damage takes the worker down, or is believed.
        #[test]
        fn damage_is_never_believed(which in 0..7_usize, at in 0..4096_usize, bit in 0..8_u32) {
            let mut bytes = all()[which].encode(3);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            assert!(Record::decode(&bytes).is_none());
        }

        /// Broken: what is no journal takes the worker down.
        #[test]
        fn arbitrary_bytes_are_no_record(bytes in proptest::collection::vec(0..=255_u8, 0..200)) {
            Record::decode(&bytes);
        }
    }
}

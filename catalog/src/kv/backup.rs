//! Backup and restore of a store: a stream of lines, in one order, with an end that proves the rest.
//!
//! ```text
//! {"terrace-kv-backup":1}
//! {"k":"<hex>","v":"<hex>","r":7}          one for each key, in order; r: its revision
//! ...
//! {"keys":N,"revision":R,"sha256":"<hex>"}   N keys, greatest revision, digest of all lines before
//! ```
//!
//! The stream is one moment of the store ([`Kv::dump`]); it may be taken while others write. A restore
//! goes into an empty store, in transactions whose revisions are above all that the backup knows, so
//! that keys made of revisions keep their order. A stream without its last line is refused after
//! it was read, and what it has written is an unusable store that says so: it has a marker key until
//! the end.

use bytes::Bytes;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{KeyRange, Kv, KvError, MAX_KEY, MAX_OPS, MAX_VALUE, Txn, TxnOutcome};

/// In the store while a restore is under way; sorts before every other key.
const MARKER: &[u8] = b"\x00restore";
/// Longest line: a key and a value in hexadecimal, and what is around them.
const MAX_LINE: u64 = (2 * (MAX_KEY + MAX_VALUE) + 256) as u64;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The stream.
    #[error("the backup: {0}")]
    Io(#[from] std::io::Error),
    /// The stream is not a whole backup.
    #[error("the backup is damaged: line {line}: {reason}")]
    Damaged {
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// There is something in the store already.
    #[error("a backup is restored into an empty catalog, and this one is not")]
    NotEmpty,
}

/// What was written or read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupReport {
    /// How many keys.
    pub keys: u64,
    /// The greatest revision of one of them.
    pub revision: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    #[serde(rename = "terrace-kv-backup")]
    format: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    k: String,
    v: String,
    r: u64,
}

#[derive(Serialize, Deserialize)]
struct Last {
    keys: u64,
    revision: u64,
    sha256: String,
}

/// Writes a backup. Dropped before it ends, the stream has no last line.
pub async fn export(
    kv: &dyn Kv,
    out: &mut (impl AsyncWrite + Unpin + Send),
) -> Result<BackupReport, BackupError> {
    let mut digest = Sha256::new();
    let mut report = BackupReport::default();
    let mut text = line(&First { format: 1 })?;
    let mut pages = kv.dump();
    while let Some(page) = pages.next().await {
        for (key, stored) in page? {
            report.keys += 1;
            report.revision = report.revision.max(stored.revision);
            text += &line(&Line {
                k: hex(&key),
                v: hex(&stored.value),
                r: stored.revision,
            })?;
        }
        digest.update(text.as_bytes());
        out.write_all(text.as_bytes()).await?;
        text.clear();
    }
    digest.update(text.as_bytes());
    let last = Last {
        keys: report.keys,
        revision: report.revision,
        sha256: hex(&digest.finalize()),
    };
    text += &line(&last)?;
    out.write_all(text.as_bytes()).await?;
    out.flush().await?;
    Ok(report)
}

/// Restores a backup into an empty store. If it fails, the store is of no use: empty it and try again.
pub async fn import(
    kv: &dyn Kv,
    from: &mut (impl AsyncBufRead + Unpin + Send),
) -> Result<BackupReport, BackupError> {
    let everything = KeyRange::prefix(&[]);
    if !kv.scan(everything, 1).await?.is_empty() {
        return Err(BackupError::NotEmpty);
    }
    let mut reader = Lines::new(from);
    let first: First = reader.parse().await?;
    if first.format != 1 {
        return Err(reader.damaged("of an unknown format"));
    }
    apply(kv, Txn::new().put(Bytes::from_static(MARKER), Bytes::new())).await?;
    let mut report = BackupReport::default();
    let mut txn = Txn::new();
    let mut before: Option<Bytes> = None;
    loop {
        // Not known before the end, so the last transaction sets it: see below.
        let digest = reader.digest.clone().finalize();
        let text = reader.next().await?;
        if let Ok(last) = serde_json::from_str::<Last>(&text) {
            let same = last.keys == report.keys && last.revision == report.revision;
            if !same || last.sha256 != hex(&digest) {
                return Err(reader.damaged("not the end of what came before"));
            }
            break;
        }
        let parsed: Line =
            serde_json::from_str(&text).map_err(|error| reader.damaged(&error.to_string()))?;
        let key = unhex(&parsed.k).ok_or_else(|| reader.damaged("a key is not hexadecimal"))?;
        let value = unhex(&parsed.v).ok_or_else(|| reader.damaged("a value is not hexadecimal"))?;
        if before.as_ref().is_some_and(|before| *before >= key) || key == MARKER {
            return Err(reader.damaged("its key is out of order"));
        }
        before = Some(key.clone());
        report.keys += 1;
        report.revision = report.revision.max(parsed.r);
        txn = txn.put(key, value);
        if txn.ops.len() == MAX_OPS {
            txn.floor = report.revision;
            apply(kv, std::mem::take(&mut txn)).await?;
        }
    }
    txn.floor = report.revision;
    apply(kv, std::mem::take(&mut txn)).await?;
    let done = Txn {
        floor: report.revision,
        ..Txn::new().delete(Bytes::from_static(MARKER))
    };
    apply(kv, done).await?;
    Ok(report)
}

async fn apply(kv: &dyn Kv, txn: Txn) -> Result<(), KvError> {
    match kv.txn(txn).await? {
        TxnOutcome::Committed { .. } => Ok(()),
        TxnOutcome::Conflict { .. } => Err(KvError::Corrupt("a conflict without a compare".into())),
    }
}

/// Lines of a backup, bounded, counted and digested.
struct Lines<'a, R> {
    from: &'a mut R,
    digest: Sha256,
    at: u64,
}

impl<'a, R: AsyncBufRead + Unpin + Send> Lines<'a, R> {
    fn new(from: &'a mut R) -> Self {
        Self {
            from,
            digest: Sha256::new(),
            at: 0,
        }
    }

    fn damaged(&self, reason: &str) -> BackupError {
        BackupError::Damaged {
            line: self.at,
            reason: reason.chars().take(200).collect(),
        }
    }

    async fn next(&mut self) -> Result<String, BackupError> {
        use tokio::io::AsyncReadExt as _;
        self.at += 1;
        let mut text = String::new();
        let mut bounded = (&mut *self.from).take(MAX_LINE);
        bounded.read_line(&mut text).await?;
        if !text.ends_with('\n') {
            return Err(self.damaged("it ends early"));
        }
        self.digest.update(text.as_bytes());
        Ok(text)
    }

    async fn parse<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, BackupError> {
        let text = self.next().await?;
        serde_json::from_str(&text).map_err(|error| self.damaged(&error.to_string()))
    }
}

fn line(value: &impl Serialize) -> Result<String, std::io::Error> {
    let text = serde_json::to_string(value).map_err(std::io::Error::other)?;
    Ok(text + "\n")
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

fn unhex(text: &str) -> Option<Bytes> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

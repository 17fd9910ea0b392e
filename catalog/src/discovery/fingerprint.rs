//! A fingerprint of a set of files: equal sets have equal ones, in whatever order a store lists them.
//!
//! The sum, modulo 2^128, of half the SHA-256 of each file's path length (u64 LE), path, size (u64 LE),
//! time (i64 LE, milliseconds) and token. Its text stands in manifests: 32 hexadecimal digits.

use sha2::{Digest as _, Sha256};

use crate::upstream::UpFile;

/// Order-free fingerprint of a set of files: the sum of a hash of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint(u128);

impl Fingerprint {
    pub(crate) fn add(&mut self, path: &str, size: u64, mtime_ms: i64, token: &str) {
        let mut hash = Sha256::new();
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        hash.update(size.to_le_bytes());
        hash.update(mtime_ms.to_le_bytes());
        hash.update(token);
        let digest: [u8; 32] = hash.finalize().into();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        self.0 = self.0.wrapping_add(u128::from_le_bytes(half));
    }

    /// Reads what [`Fingerprint::to_text`] wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        u128::from_str_radix(text, 16).ok().map(Self)
    }

    /// 32 hexadecimal digits.
    pub(crate) fn to_text(self) -> String {
        format!("{:032x}", self.0)
    }

    /// The fingerprint of a list of files.
    pub(crate) fn of(files: &[UpFile]) -> Self {
        let mut sum = Self::default();
        for file in files {
            sum.add(&file.path, file.size, file.mtime_ms, &file.token);
        }
        sum
    }
}

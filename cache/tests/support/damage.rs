//! Damage to files, the same for the tests of every tier.

use std::os::unix::fs::FileExt;
use std::path::Path;

/// Turns one bit over.
pub(crate) fn flip_bit(path: &Path, offset: u64) {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}

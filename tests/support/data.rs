//! Seeded bytes and trees, and comparing what a mount shows with what was written.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use super::numbers::Numbers;

/// `len` bytes that look random and are the same for the same seed (splitmix64).
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&numbers.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A tree as path -> bytes.
pub(crate) type Tree = BTreeMap<String, Vec<u8>>;

/// A small tree with the sizes that break readers: empty, one byte, around a page, around a block of
/// 1 MiB, and several blocks.
pub(crate) fn sample_tree() -> Tree {
    const MIB: usize = 1 << 20;
    let sizes = [
        0,
        1,
        4095,
        4096,
        4097,
        100_000,
        MIB - 1,
        MIB,
        MIB + 1,
        5 * MIB + 123,
    ];
    let mut tree = Tree::new();
    for (number, size) in sizes.into_iter().enumerate() {
        let directory = ["", "a/", "a/b/", "dt=2026-11-20/"][number % 4];
        tree.insert(
            format!("{directory}file-{size}"),
            noise(number as u64, size),
        );
    }
    tree
}

/// Writes a tree below a directory.
pub(crate) fn write_tree(root: &Path, tree: &Tree) {
    for (path, bytes) in tree {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Everything below a directory, as path -> bytes.
pub(crate) fn read_tree(root: &Path) -> Tree {
    try_read_tree(root).unwrap()
}

/// The same, where it may fail; with the path that failed.
pub(crate) fn try_read_tree(root: &Path) -> io::Result<Tree> {
    let named = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"))
    };
    let mut tree = Tree::new();
    let mut open = vec![PathBuf::from(root)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).map_err(named(&directory))? {
            let entry = entry.map_err(named(&directory))?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else {
                let path = entry.path();
                let below = path
                    .strip_prefix(root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                let bytes = fs::read(&path).map_err(named(&path))?;
                tree.insert(below, bytes);
            }
        }
    }
    Ok(tree)
}

/// Fails with the path of the first difference, and not with megabytes of bytes.
pub(crate) fn assert_same(found: &Tree, expected: &Tree) {
    let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected));
    for (path, bytes) in expected {
        assert_eq!(found[path].len(), bytes.len(), "length of {path}");
        assert!(found[path] == *bytes, "bytes of {path} differ");
    }
}

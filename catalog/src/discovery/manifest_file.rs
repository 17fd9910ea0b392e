//! `_manifest.json`: the file with which a sync says exactly what it wrote.
//!
//! ```text
//! { "files": [ { "path": "dt=2026-11-20/part-0.parquet", "size": 1234 }, ... ] }
//! ```
//!
//! Paths are relative to the manifest's own directory; other members are ignored, so that a writer may
//! add what it likes. In the table's directory it covers the table, in a partition's directory that
//! partition. It is exact: a file too many, a file too few or another length, and nothing is
//! published. It must be written last.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::completeness::ManifestMatch;
use super::names::check_path;
use crate::upstream::UpFile;

/// Longest manifest file that is read, bytes: about half a million files.
pub(crate) const MANIFEST_MAX: u64 = 64 << 20;

/// A parsed manifest file. Paths are below the table.
#[derive(Debug, Default)]
pub(crate) struct ManifestFile {
    sizes: BTreeMap<Arc<str>, u64>,
}

#[derive(Deserialize)]
struct Raw {
    files: Vec<RawFile>,
}

#[derive(Deserialize)]
struct RawFile {
    path: String,
    size: u64,
}

impl ManifestFile {
    /// Parses the bytes of the manifest in `directory` (below the table; empty for the table's own).
    /// None when they are not a manifest, name a path twice or name one outside the directory.
    pub(crate) fn parse(directory: &str, bytes: &[u8]) -> Option<Self> {
        let raw: Raw = serde_json::from_slice(bytes).ok()?;
        let mut sizes = BTreeMap::new();
        for file in raw.files {
            check_path(&file.path).ok()?;
            let path = join(directory, &file.path);
            if sizes.insert(Arc::from(path), file.size).is_some() {
                return None;
            }
        }
        Some(Self { sizes })
    }

    /// Holds the data files of one partition against what is listed for it. `files` is sorted by path,
    /// and its paths are below the table.
    pub(crate) fn compare(&self, partition: &str, files: &[UpFile]) -> ManifestMatch {
        let below = |path: &str| {
            partition.is_empty()
                || path
                    .strip_prefix(partition)
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        let mut result = ManifestMatch::default();
        let mut matched = 0;
        for file in files {
            match self.sizes.get(&file.path) {
                Some(size) => {
                    matched += 1;
                    result.different += u64::from(*size != file.size);
                }
                None => result.extra += 1,
            }
        }
        let listed = self.sizes.keys().filter(|path| below(path)).count() as u64;
        result.missing = listed.saturating_sub(matched);
        result
    }
}

/// Joins two relative paths; either may be empty.
pub(crate) fn join(directory: &str, name: &str) -> String {
    match (directory, name) {
        ("", name) => name.to_owned(),
        (directory, "") => directory.to_owned(),
        (directory, name) => format!("{directory}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn file(path: &str, size: u64) -> UpFile {
        UpFile {
            path: Arc::from(path),
            size,
            mtime_ms: 0,
            token: Arc::from("t"),
        }
    }

    // A manifest that is compared loosely publishes a sync that has lost a file.
    #[test]
    fn differences_are_counted_each_by_its_kind() {
        let text = br#"{"by":"x","files":[{"path":"a","size":1},{"path":"b","size":2},{"path":"c","size":3,"rows":1}]}"#;
        let manifest = ManifestFile::parse("dt=1", text).unwrap();
        let good = [file("dt=1/a", 1), file("dt=1/b", 2), file("dt=1/c", 3)];
        assert_eq!(manifest.compare("dt=1", &good), ManifestMatch::default());
        let bad = [file("dt=1/a", 1), file("dt=1/b", 9), file("dt=1/d", 1)];
        let expected = ManifestMatch {
            missing: 1,
            different: 1,
            extra: 1,
            broken: false,
        };
        assert_eq!(manifest.compare("dt=1", &bad), expected);
        assert_eq!(manifest.compare("dt=2", &[]), ManifestMatch::default());
    }

    // A manifest could name files outside the table, or one file with two sizes.
    #[test]
    fn refuses_what_is_no_manifest() {
        for bad in [
            "",
            "[]",
            r#"{"files":[{"path":"../x","size":1}]}"#,
            r#"{"files":[{"path":"/x","size":1}]}"#,
            r#"{"files":[{"path":"a","size":1},{"path":"a","size":2}]}"#,
            r#"{"files":[{"path":"a","size":-1}]}"#,
            r#"{"files":[{"path":"a","#,
        ] {
            assert!(ManifestFile::parse("", bad.as_bytes()).is_none(), "{bad}");
        }
    }

    proptest! {
        // Its bytes come from a store that anybody may write to.
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ManifestFile::parse("dt=1", &bytes);
        }
    }
}

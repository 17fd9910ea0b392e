//! The list of a save: what was written, so that what is there can be held against it.
//!
//! ```text
//! PLACE/.terrace-save.jsonl     one JSON object a line, in the order of the paths' bytes
//!   {"path":"weights/a.bin","size":123,"sha256":"<64 hexadecimal digits>"}
//! ```
//!
//! The list lies beside the files: any number of them fits, a save that was interrupted can be finished
//! by whoever reads it, and the place describes itself. A path is refused unless every mount can show
//! it: no empty, `.` or `..` segment, no control character, at most 255 bytes a segment, and no
//! file where another path needs a directory. Names that begin with `.terrace` are the system's own.

use serde::{Deserialize, Serialize};

use crate::blobs::{BlobId, MAX_BLOB};
use crate::manifest::MAX_PATH;

/// Name of the list in its place.
pub const LIST_NAME: &str = ".terrace-save.jsonl";

/// Most bytes of a list.
pub const LIST_MAX: u64 = MAX_BLOB as u64;

/// Longest segment of a path: what Linux takes.
const SEGMENT_MAX: usize = 255;

/// A file of a save.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedFile {
    /// Path below the place.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of them, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl SavedFile {
    /// The digest; `parse` has checked its text.
    pub(crate) fn sum(&self) -> Result<[u8; 32], String> {
        let id: Result<BlobId, _> = self.sha256.parse();
        let bad = |_| format!("the digest of {:?} is none", shown(&self.path));
        id.map(|id| *id.as_bytes()).map_err(bad)
    }
}

fn shown(path: &str) -> String {
    crate::name::shortened(path)
}

/// Refuses a path that some mount could not show, or that would leave its place. The text says why.
pub fn check_saved_path(path: &str) -> Result<(), String> {
    let bad = |why: &str| Err(format!("{:?} cannot be saved: {why}", shown(path)));
    if path.len() > MAX_PATH {
        return bad("its path is too long");
    }
    if path.contains(char::is_control) {
        return bad("a control character in its name");
    }
    for segment in path.split('/') {
        match segment {
            "" | "." | ".." => return bad("not a plain path"),
            _ if segment.len() > SEGMENT_MAX => return bad("a name of more than 255 bytes"),
            _ if segment.starts_with(".terrace") => {
                return bad("names that begin with .terrace are taken");
            }
            _ => {}
        }
    }
    Ok(())
}

/// The text of a list. The files are sorted first; two of one path are an error.
pub fn print(mut files: Vec<SavedFile>) -> Result<String, String> {
    files.sort_by(|one, other| one.path.cmp(&other.path));
    check(&files)?;
    let mut text = String::new();
    for file in &files {
        let line = serde_json::to_string(file).map_err(|error| error.to_string())?;
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

/// Reads a list; the text of an error says which line is wrong.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<SavedFile>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the list is not UTF-8".to_owned())?;
    let mut files: Vec<SavedFile> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let file = serde_json::from_str(line);
        files.push(file.map_err(|error| format!("line {} of the list: {error}", at + 1))?);
    }
    check(&files)?;
    Ok(files)
}

fn check(files: &[SavedFile]) -> Result<(), String> {
    if files.is_empty() {
        return Err("there are no files to save".to_owned());
    }
    for file in files {
        check_saved_path(&file.path)?;
        file.sum()?;
    }
    for pair in files.windows(2) {
        if pair[0].path >= pair[1].path {
            let path = shown(&pair[1].path);
            return Err(format!("{path:?} comes twice or out of order"));
        }
    }
    // "a" and "a/b" need not be neighbours: "a.txt" comes between them.
    for file in files {
        for (at, _) in file.path.match_indices('/') {
            let above = &file.path[..at];
            if files
                .binary_search_by(|other| (*other.path).cmp(above))
                .is_ok()
            {
                let path = shown(above);
                return Err(format!("{path:?} is a file and a directory"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn file(path: &str) -> SavedFile {
        SavedFile {
            path: path.into(),
            size: 3,
            sha256: "ab".repeat(32),
        }
    }

    // A name that climbs out of its place would overwrite what somebody else has saved.
    #[test]
    fn hostile_names_are_refused() {
        let long = "n".repeat(256);
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            "..",
            "a/../b",
            "./a",
            "a\0b",
            "a\nb",
            ".terrace-save.jsonl",
            "a/.terrace/x",
            &long,
        ] {
            assert!(print(vec![file(bad)]).is_err(), "{bad:?} was accepted");
        }
        for (one, other) in [("a", "a/b"), ("x", "x")] {
            let list = vec![file(one), file("a.txt"), file(other)];
            assert!(print(list).is_err(), "{one} and {other}");
        }
        let good = [
            ".gitattributes",
            "a b/ü%3A",
            "__HIVE_DEFAULT_PARTITION__",
            "a\\b",
        ];
        let text = print(good.map(file).to_vec()).unwrap();
        assert_eq!(parse(text.as_bytes()).unwrap().len(), 4);
        assert!(print(Vec::new()).is_err());
    }

    proptest! {
        // A list comes from a store that anybody may write to.
        #[test]
        fn any_bytes_are_answered(bytes in any::<Vec<u8>>(), path in any::<String>()) {
            let _ = parse(&bytes);
            if let Ok(text) = print(vec![file(&path)]) {
                prop_assert_eq!(&*parse(text.as_bytes()).unwrap()[0].path, path.as_str());
            }
        }
    }
}

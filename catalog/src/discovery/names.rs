//! What a single name in a listing means, and which names may enter the catalog at all.
//!
//! Two decisions, both by text alone: what role a path component plays ([`role`]), and whether a
//! directory's name can be a namespace or table ([`fold`]) or a file's path can be shown in a file
//! system ([`check_path`]). A refused name keeps its file out of every version, with a [`Refusal`] that
//! says why; it never becomes another name by guessing.

use serde::{Deserialize, Serialize};

use crate::name::shortened;

/// Hive's text for "no value" in a partition directory.
pub const HIVE_DEFAULT_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

/// Name of the file that lists a finished sync: see [`super::manifest_file`].
pub const MANIFEST_FILE: &str = "_manifest.json";

/// Names of the resource file that describes a dataset.
pub const DESCRIPTOR_FILES: [&str; 3] = ["_dataset.yaml", "_dataset.yml", "_dataset.json"];

/// Longest path component and longest path that Linux shows.
const COMPONENT_MAX: usize = 255;
const PATH_MAX: usize = 4095;

/// What a path component is to discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Data, or a directory with data.
    Data,
    /// `_SUCCESS` or a marker with the same meaning.
    Marker,
    /// A list of the files of a finished sync.
    Manifest,
    /// The resource file of a dataset.
    Descriptor,
    /// A writer is at work, or has died there.
    Staging,
    /// The log of a table format: followed, not listed.
    TableLog,
    /// Neither data nor a signal: checksums, summaries, files of editors.
    Hidden,
}

/// Why a name or a path cannot enter the catalog. Its text is shown by `why`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "refused", content = "name")]
pub enum Refusal {
    /// Empty, `.` or `..`: would mean another place.
    #[error("{0:?}: a path may not contain empty parts, '.' or '..'")]
    Escapes(String),
    /// Control characters or NUL.
    #[error("{0:?}: control characters in a name")]
    Control(String),
    /// A component above 255 bytes, or a path above 4095.
    #[error("{0:?}...: longer than a file system can show")]
    Long(String),
    /// No spelling of it is a catalog name.
    #[error(
        "{0:?} cannot be a catalog name: 1 to 64 of a-z, 0-9, '_' and '-', beginning with a letter or a \
         digit; give the dataset a name with a descriptor file"
    )]
    Name(String),
    /// Two directories whose names fold to one.
    #[error("{0:?}: two directories have this name when written in lower case")]
    Twice(String),
    /// A percent escape that is none, or whose bytes are not UTF-8.
    #[error("{0:?}: not a partition directory: a percent escape is broken")]
    Escape(String),
    /// Two partition directories that mean the same values.
    #[error("{0:?}: another directory of this table means the same partition")]
    SamePartition(String),
    /// Partition directories with other columns than the rest of the table.
    #[error("{0:?}: its partition columns are not those of the table")]
    Columns(String),
    /// A data file beside the partition directories, where a query by partition would not find it.
    #[error("{0:?}: a file outside the partition directories")]
    Stray(String),
}

/// The role of one path component. `last` is true for the file's own name.
pub fn role(name: &str, last: bool) -> Role {
    // Not hidden: a path that climbs is to be refused aloud.
    if matches!(name, "." | "..") {
        return Role::Data;
    }
    let staging_directory = name == "_temporary"
        || name.starts_with("_temporary.")
        || name.starts_with(".spark-staging")
        || name.starts_with(".hive-staging")
        || name.starts_with("_tmp.")
        || name.starts_with("-tmp.")
        || name.starts_with("-ext-")
        || name == "_impala_insert_staging";
    let staging_file = name.ends_with("._COPYING_") || name.ends_with(".inprogress");
    if staging_directory || (last && staging_file) {
        return Role::Staging;
    }
    if name == "_delta_log" {
        return Role::TableLog;
    }
    if last {
        match name {
            "_SUCCESS" => return Role::Marker,
            MANIFEST_FILE => return Role::Manifest,
            name if DESCRIPTOR_FILES.contains(&name) => return Role::Descriptor,
            _ => {}
        }
    }
    // Spark's own rule: a name with '=' is a partition even when its column begins with '_'.
    let hidden = name.starts_with('.') || (name.starts_with('_') && !name.contains('='));
    if hidden { Role::Hidden } else { Role::Data }
}

/// Whether a path below a table is a file of an Iceberg table's `metadata/` directory. Other files of a
/// directory with that name are data.
pub fn is_iceberg_log(path: &str) -> bool {
    let Some(name) = path.strip_prefix("metadata/") else {
        return false;
    };
    let known = [".metadata.json", ".avro", ".stats", ".puffin"];
    !name.contains('/')
        && (name == "version-hint.text" || known.iter().any(|end| name.ends_with(end)))
}

/// A directory's name as a segment of a dataset's name: upper case becomes lower case, a space, a dot
/// and a plus become `_`. Everything else that the catalog's alphabet lacks is refused.
pub fn fold(name: &str) -> Result<String, Refusal> {
    let folded: String = name
        .chars()
        .map(|c| match c {
            ' ' | '.' | '+' => '_',
            c => c.to_ascii_lowercase(),
        })
        .collect();
    crate::name::check_segment(&folded).map_err(|_| Refusal::Name(shortened(name)))?;
    Ok(folded)
}

/// Refuses a path that could mean another place or that no file system shows.
pub fn check_path(path: &str) -> Result<(), Refusal> {
    if path.len() > PATH_MAX {
        return Err(Refusal::Long(shortened(path)));
    }
    for component in path.split('/') {
        if matches!(component, "" | "." | "..") {
            return Err(Refusal::Escapes(shortened(path)));
        }
        if component.len() > COMPONENT_MAX {
            return Err(Refusal::Long(shortened(component)));
        }
        if component.chars().any(char::is_control) {
            return Err(Refusal::Control(shortened(component)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    // A staging file that counts as data is a partial sync in a version.
    #[test]
    fn every_known_name_has_its_role() {
        for (name, last, expected) in [
            ("part-00000.parquet", true, Role::Data),
            ("dt=2026-11-20", false, Role::Data),
            ("_date=2026-11-20", false, Role::Data),
            ("metadata", false, Role::Data),
            ("_delta_log", false, Role::TableLog),
            ("_SUCCESS", true, Role::Marker),
            ("_SUCCESS", false, Role::Hidden),
            ("_temporary", false, Role::Staging),
            (".spark-staging-0f1e", false, Role::Staging),
            (".hive-staging_hive_2026-11-20_1", false, Role::Staging),
            ("big.csv._COPYING_", true, Role::Staging),
            ("part-0.inprogress", true, Role::Staging),
            ("_manifest.json", true, Role::Manifest),
            ("_dataset.yaml", true, Role::Descriptor),
            ("_committed_123", true, Role::Hidden),
            (".part-0.crc", true, Role::Hidden),
            ("_metadata", true, Role::Hidden),
        ] {
            assert_eq!(role(name, last), expected, "{name}");
        }
    }

    // Two spellings of a table would be two tables, and a refused one must not become a third.
    #[test]
    fn names_are_folded_or_refused() {
        assert_eq!(fold("Orders").unwrap(), "orders");
        assert_eq!(fold("my table.v2").unwrap(), "my_table_v2");
        for bad in ["", "..", "a/b", "таблица", "a%3Ab", "x\u{7}", "_x", "-x"] {
            assert!(fold(bad).is_err(), "{bad:?}");
        }
        assert!(fold(&"x".repeat(65)).is_err());
    }

    // A path that climbs out would be a file of another tenant.
    #[test]
    fn hostile_paths_never_enter() {
        check_path("dt=2026-11-20/hr=__HIVE_DEFAULT_PARTITION__/part %3A 0.parquet").unwrap();
        let long = format!("dt=1/{}", "n".repeat(300));
        let deep = "d/".repeat(2100) + "f";
        for bad in [
            "",
            "..",
            "a/../b",
            "/etc/passwd",
            "a//b",
            "a/./b",
            "a/",
            "a\0b",
            "a\nb",
            "a\u{85}b",
            &long,
            &deep,
        ] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        // Names come from a store that anybody may write to: no text may panic, and what is accepted
        // stays below its directory.
        #[test]
        fn accepted_paths_stay_below(text in any::<String>()) {
            let _ = role(&text, true);
            if let Ok(name) = fold(&text) {
                prop_assert!(crate::name::check_segment(&name).is_ok());
            }
            if check_path(&text).is_ok() {
                let joined = std::path::Path::new("/base").join(&text);
                prop_assert!(joined.components().all(|part| !matches!(part, std::path::Component::ParentDir)));
                prop_assert!(joined.starts_with("/base"));
            }
        }
    }
}

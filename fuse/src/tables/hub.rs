//! Names of the Hugging Face cache tree: `models--<ns>--<name>/{refs/<revision>,snapshots/<commit>}`.
//!
//! The layout is that of `huggingface_hub`'s cache (its guide "Understand caching"): a file below
//! `refs` holds the commit that a revision means, `snapshots/<commit>` is the tree. Here a commit is
//! a link to the version's directory:
//!
//! ```text
//! commit    24 hex digits: the first 12 bytes of the version's manifest; 16: its number
//! revision  main (the newest version), v<number>, a tag, or a day
//! ```
//!
//! A commit carries its version's number, so it can be looked up without a list of all versions, and
//! a part of the manifest, so that no commit is valid by accident. The library refuses `--` inside of
//! a name, and so do we: then a name can be split in one way only.

use terrace_catalog::{DatasetName, Selector, VersionRef};

use super::catalog::TableVersion;

/// The revision that means the newest version.
pub(super) const MAIN: &str = "main";

/// What the library calls a repository's type. Every dataset can be opened as both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Hub {
    /// `models--`.
    Models = 1,
    /// `datasets--`.
    Datasets = 2,
}

impl Hub {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Models),
            2 => Some(Self::Datasets),
            _ => None,
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Models => "models--",
            Self::Datasets => "datasets--",
        }
    }

    /// Name of a repository's directory.
    pub(super) fn directory(self, dataset: &DatasetName) -> String {
        let (namespace, table) = (dataset.namespace(), dataset.table());
        format!("{}{namespace}--{table}", self.prefix())
    }
}

/// The repository whose directory has this name.
pub(super) fn parse_directory(name: &str) -> Option<(Hub, DatasetName)> {
    let split = |hub: Hub| Some((hub, name.strip_prefix(hub.prefix())?));
    let (hub, rest) = split(Hub::Models).or_else(|| split(Hub::Datasets))?;
    // The table begins with a letter or digit: the run of dashes ends where it begins.
    let at = rest.find("--")?;
    let dashes = rest[at..].bytes().take_while(|byte| *byte == b'-').count();
    let (namespace, table) = (&rest[..at + dashes - 2], &rest[at + dashes..]);
    if namespace.contains("--") || table.contains("--") {
        return None;
    }
    let dataset = format!("{namespace}.{table}").parse().ok()?;
    Some((hub, dataset))
}

/// The selector of a revision of a repository.
pub(super) fn selector(dataset: &DatasetName, revision: &str) -> Option<Selector> {
    let version = match revision {
        MAIN => VersionRef::Latest,
        other => other.parse().ok().filter(|v| *v != VersionRef::Latest)?,
    };
    Some(Selector::new(dataset.clone(), version))
}

/// The revision of a selector.
pub(super) fn revision(version: &VersionRef) -> String {
    match version {
        VersionRef::Latest => MAIN.to_owned(),
        other => other.to_string(),
    }
}

/// The commit of a version.
pub(super) fn commit(version: &TableVersion) -> String {
    let manifest = version.manifest.hex();
    format!("{}{:016x}", &manifest[..24], version.number)
}

/// The number of the version that a commit may mean; the commit of that version tells whether.
pub(super) fn parse_commit(commit: &str) -> Option<u64> {
    let good = commit.len() == 40
        && commit
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let number = u64::from_str_radix(commit.get(24..)?, 16).ok();
    number.filter(|number| good && *number > 0)
}

/// Where the link of a version leads, seen from `snapshots`.
pub(super) fn target(version: &TableVersion) -> String {
    let (namespace, table) = (version.dataset.namespace(), version.dataset.table());
    format!("../../../{namespace}/{table}@v{}", version.number)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::catalog::ManifestId;
    use super::*;

    // Without it two datasets could share one directory of the tree, or one be found under two names.
    #[test]
    fn a_directory_names_one_dataset() {
        for name in ["ads.clicks", "a-.b", "a.b-", "team-1.user-events_v2"] {
            let dataset: DatasetName = name.parse().unwrap();
            for hub in [Hub::Models, Hub::Datasets] {
                let directory = hub.directory(&dataset);
                assert_eq!(parse_directory(&directory), Some((hub, dataset.clone())));
            }
        }
        for bad in [
            "models--ads",
            "models--ads--",
            "models----x",
            "spaces--a--b",
            "models--a--b--c",
            "models--a----b",
            "models--A--b",
            "models--a--b/c",
            "",
        ] {
            assert_eq!(parse_directory(bad), None, "{bad:?}");
        }
    }

    // Without it `snapshots/<commit>` could show another version than `refs` named.
    #[test]
    fn a_commit_means_its_version() {
        let version = TableVersion {
            dataset: "ads.clicks".parse().unwrap(),
            number: 18,
            manifest: ManifestId([0xab; 32]),
            committed_ms: 0,
        };
        let commit = commit(&version);
        assert_eq!(commit, format!("{}{:016x}", "ab".repeat(12), 18));
        assert_eq!(parse_commit(&commit), Some(18));
        assert_eq!(target(&version), "../../../ads/clicks@v18");
        for bad in [
            "",
            "main",
            &commit[1..],
            &commit.to_uppercase(),
            &"é".repeat(20),
            &"0".repeat(40),
        ] {
            assert_eq!(parse_commit(bad), None, "{bad:?}");
        }
        let dataset = &version.dataset;
        assert_eq!(selector(dataset, "main").unwrap().to_string(), "ads.clicks");
        assert_eq!(
            selector(dataset, "v3").unwrap().to_string(),
            "ads.clicks@v3"
        );
        assert_eq!(selector(dataset, "latest"), None);
        assert_eq!(selector(dataset, "../x"), None);
    }
}

//! What is mounted: the typed description that outlives every worker.
//!
//! The keeper reads only what mount(2) needs ([`MountSpec::mountpoint`], [`MountSpec::source`],
//! [`KernelOptions`]); [`MountSpec::options`] belongs to the worker, and the keeper passes it on as
//! it came, so that a newer worker may add fields. Nothing of it is written to disk.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One mount: what, where, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MountSpec {
    /// Unique for ever (a UUID), so that what a worker keeps on disk for a mount cannot be taken
    /// for that of another one.
    pub id: String,
    /// Canonical path of the mount point.
    pub mountpoint: PathBuf,
    /// Source as the user gave it, without credentials; shown by mount(8) and df(1).
    pub source: String,
    /// What the kernel is told.
    #[serde(default)]
    pub kernel: KernelOptions,
    /// What the worker is told.
    #[serde(default)]
    pub options: serde_json::Value,
    /// What the store is told.
    #[serde(default)]
    pub credentials: Secrets,
}

/// Options of mount(2) and of the kernel's side of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelOptions {
    /// Allow changes. Default: off.
    pub writable: bool,
    /// Let set-user-ID and set-group-ID bits of programs work. Default: off.
    pub suid: bool,
    /// Let device files be opened as what they stand for. Default: off.
    pub dev: bool,
    /// Refuse to execute programs. Default: off.
    pub noexec: bool,
    /// Let every user in, subject to the permission bits. Default: on.
    pub allow_other: bool,
    /// Longest read request in bytes. Default: 1 MiB.
    pub max_read: u32,
    /// Readahead of the page cache in KiB, set once the mount answers. The kernel's own 128 KiB
    /// would cut every sequential read into small requests. Default: 4096.
    pub read_ahead_kb: u32,
}

impl Default for KernelOptions {
    fn default() -> Self {
        Self {
            writable: false,
            suid: false,
            dev: false,
            noexec: false,
            allow_other: true,
            max_read: 1 << 20,
            read_ahead_kb: 4096,
        }
    }
}

/// Credentials by the ecosystem's names (`AWS_ACCESS_KEY_ID`, ...); [`fmt::Debug`] shows names only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secrets(pub BTreeMap<String, String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The FUSE_INIT exchange of a mount: the kernel makes it once, every later worker repeats it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitRecord {
    /// The kernel's request, header included.
    pub request: Vec<u8>,
    /// The answer of the first worker, header included; what it agreed to binds all later workers.
    pub reply: Option<Vec<u8>>,
}

/// Why a request of a user failed, in the parts of a one-line message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{why}; {hint}")]
pub struct Failure {
    /// Cause, lower case, without full stop.
    pub why: String,
    /// What to try.
    pub hint: String,
    /// The keeper or worker is ending or just changing hands: the same request may succeed at once.
    #[serde(default)]
    pub again: bool,
}

impl Failure {
    /// A failure that stays until somebody does something about it.
    pub fn new(why: impl fmt::Display, hint: impl Into<String>) -> Self {
        Self {
            why: why.to_string(),
            hint: hint.into(),
            again: false,
        }
    }

    /// A failure that the caller overcomes by asking again.
    pub fn passing(why: impl fmt::Display) -> Self {
        Self {
            why: why.to_string(),
            hint: "try again".to_owned(),
            again: true,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_spec_never_shows_its_credentials() {
        // Without it secrets would reach log files.
        let credentials =
            BTreeMap::from([("AWS_SECRET_ACCESS_KEY".to_owned(), "s3cr3t".to_owned())]);
        let spec = MountSpec {
            id: "1".into(),
            mountpoint: "/mnt".into(),
            source: "s3://bucket".into(),
            kernel: KernelOptions::default(),
            options: serde_json::Value::Null,
            credentials: Secrets(credentials),
        };
        let shown = format!("{spec:?}");
        assert!(shown.contains("AWS_SECRET_ACCESS_KEY") && !shown.contains("s3cr3t"));
        let again: MountSpec =
            serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(again.credentials, spec.credentials);
    }

    #[test]
    fn a_spec_of_an_older_version_is_understood() {
        // Without it a planned upgrade would lose the mounts of the old keeper.
        let spec: MountSpec = serde_json::from_str(
            r#"{"id":"1","mountpoint":"/mnt","source":"file:///data","later":true}"#,
        )
        .unwrap();
        assert_eq!(spec.kernel, KernelOptions::default());
    }
}

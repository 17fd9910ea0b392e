//! Caps of bandwidth and operations, by the `io` controller of cgroup v2.
//!
//! ```text
//! <cgroup2>/.../pod<uid>/io.max    "8:16 rbps=1048576 wbps=max riops=max wiops=100"
//! ```
//!
//! The kernel caps what one group of processes does on one disk; a volume has neither group nor disk
//! of its own. So the cap of a volume is put on the pods that use it, for the
//! disk that the volume lies on: a pod with two capped volumes on one disk gets the smaller numbers of
//! the two. Where there is no such controller a cap is refused, never ignored.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::mounts::{MountError, mount_table};

/// Names of the parameters, and of the kernel's keys for them.
const KEYS: [(&str, &str); 4] = [
    ("readBytesPerSecond", "rbps"),
    ("writeBytesPerSecond", "wbps"),
    ("readOperationsPerSecond", "riops"),
    ("writeOperationsPerSecond", "wiops"),
];

/// Groups that are looked at for one pod; a node has some hundred.
const GROUPS_MAX: usize = 100_000;

/// Depth at which a kubelet puts its pods, at most.
const DEPTH_MAX: usize = 6;

/// Why a cap is refused.
#[derive(Debug, thiserror::Error)]
pub enum CapError {
    /// A parameter that is not known.
    #[error("unknown parameter {0:?}; {names} can change", names = IoCaps::names().join(", "))]
    Unknown(String),
    /// A value that is no cap.
    #[error("parameter {0}: write a whole number above 0, or max")]
    Value(&'static str),
    /// This node cannot cap.
    #[error(
        "caps of bandwidth and operations are not possible on this node: {0}; \
         leave them out, or boot it with cgroup v2 and the io controller"
    )]
    Unsupported(&'static str),
    /// The pod has no group yet, or no more.
    #[error("pod {0} has no control group; ask again")]
    NoPod(String),
    /// The kernel refused.
    #[error("cap {path:?}: {source}")]
    Io {
        /// The kernel's file.
        path: PathBuf,
        /// Its answer.
        source: std::io::Error,
    },
    /// The mounts could not be read.
    #[error(transparent)]
    Mounts(#[from] MountError),
}

/// The caps of one volume; `None` is no cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoCaps([Option<u64>; 4]);

/// The `io` controller of this node.
#[derive(Debug)]
pub struct IoControl {
    root: PathBuf,
}

impl IoCaps {
    /// Names of the parameters.
    pub fn names() -> [&'static str; 4] {
        KEYS.map(|(name, _)| name)
    }

    /// Reads mutable parameters; a key that is no cap is refused.
    pub fn parse(mutable: &BTreeMap<String, String>) -> Result<Self, CapError> {
        let mut caps = Self::default();
        for (key, value) in mutable {
            let at = KEYS.iter().position(|(name, _)| name == key);
            let at = at.ok_or_else(|| CapError::Unknown(key.chars().take(80).collect()))?;
            caps.0[at] = match value.as_str() {
                "max" => None,
                number => {
                    let number = number.parse().ok().filter(|number| *number > 0);
                    Some(number.ok_or(CapError::Value(KEYS[at].0))?)
                }
            };
        }
        Ok(caps)
    }

    /// Whether nothing is capped.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// The kernel's line for a disk.
    fn line(&self, device: (u32, u32)) -> String {
        let mut line = format!("{}:{}", device.0, device.1);
        for ((_, key), cap) in KEYS.iter().zip(self.0) {
            let cap = cap.map_or_else(|| "max".to_owned(), |cap| cap.to_string());
            line.push_str(&format!(" {key}={cap}"));
        }
        line
    }
}

impl IoControl {
    /// Finds the controller.
    ///
    /// Errors: `Unsupported` where cgroup v2, or its `io` controller, is missing.
    pub fn find() -> Result<Self, CapError> {
        let table = mount_table()?;
        let all = table.into_iter().filter(|entry| entry.fs_type == "cgroup2");
        let mut found = false;
        for entry in all {
            found = true;
            let controllers = fs::read_to_string(entry.target.join("cgroup.controllers"));
            if controllers.is_ok_and(|list| list.split_whitespace().any(|name| name == "io")) {
                return Ok(Self { root: entry.target });
            }
        }
        Err(CapError::Unsupported(if found {
            "its cgroup v2 has no io controller"
        } else {
            "it has no cgroup v2"
        }))
    }

    /// Caps what a pod does on a device.
    pub fn cap_pod(&self, uid: &str, device: (u32, u32), caps: IoCaps) -> Result<(), CapError> {
        let group = self
            .group_of(uid)
            .ok_or_else(|| CapError::NoPod(uid.to_owned()))?;
        let path = group.join("io.max");
        fs::write(&path, caps.line(whole_disk(device)))
            .map_err(|source| CapError::Io { path, source })
    }

    /// The group of a pod: `pod<uid>` (cgroupfs) or `...-pod<uid with _>.slice` (systemd).
    fn group_of(&self, uid: &str) -> Option<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if uid.is_empty() || !uid.chars().all(plain) {
            return None;
        }
        let (plain, slice) = (
            format!("pod{uid}"),
            format!("pod{}.slice", uid.replace('-', "_")),
        );
        let mut open = vec![(self.root.clone(), 0)];
        for _ in 0..GROUPS_MAX {
            let (directory, depth) = open.pop()?;
            let name = directory.file_name().unwrap_or_default().to_string_lossy();
            if name == plain.as_str() || name.ends_with(&slice) {
                return Some(directory);
            }
            if depth < DEPTH_MAX {
                let below = fs::read_dir(&directory).into_iter().flatten().flatten();
                let groups = below.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
                open.extend(groups.map(|entry| (entry.path(), depth + 1)));
            }
        }
        None
    }
}

/// The disk of a partition, which is what the kernel caps; a disk is its own.
fn whole_disk(device: (u32, u32)) -> (u32, u32) {
    let link = format!("/sys/dev/block/{}:{}", device.0, device.1);
    let real = fs::canonicalize(link).unwrap_or_default();
    if !real.join("partition").exists() {
        return device;
    }
    let text = real.parent().map(|disk| disk.join("dev"));
    let text = text.and_then(|path: PathBuf| fs::read_to_string(path).ok());
    let numbers = text.as_deref().and_then(|text| text.trim().split_once(':'));
    let disk = numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    disk.unwrap_or(device)
}

/// The disk below a file system: its own number, or for one without (btrfs) that of its source.
pub(crate) fn disk_of(device: (u32, u32), source: &Path) -> (u32, u32) {
    if device.0 != 0 {
        return device;
    }
    match nix::sys::stat::stat(source) {
        Ok(found) => {
            let part = |number: u64| u32::try_from(number).unwrap_or_default();
            let number = found.st_rdev;
            (
                part(nix::sys::stat::major(number)),
                part(nix::sys::stat::minor(number)),
            )
        }
        Err(_) => device,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        owned.collect()
    }

    // A cap that is written wrongly must not become none.
    #[test]
    fn caps_are_read_whole_or_refused() {
        let caps = IoCaps::parse(&parameters(&[
            ("writeBytesPerSecond", "1048576"),
            ("readOperationsPerSecond", "max"),
        ]));
        assert_eq!(
            caps.unwrap().line((8, 16)),
            "8:16 rbps=max wbps=1048576 riops=max wiops=max"
        );
        assert!(IoCaps::parse(&parameters(&[])).unwrap().is_empty());
        for bad in ["", "0", "-1", "1M", "1 rbps=max", "99999999999999999999"] {
            let refused = IoCaps::parse(&parameters(&[("readBytesPerSecond", bad)]));
            assert!(matches!(refused, Err(CapError::Value(_))), "{bad:?}");
        }
        let refused = IoCaps::parse(&parameters(&[("foo", "1")]));
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains("writeOperationsPerSecond")
        );
    }

    // A pod's uid is text of a request; as a path it would cap, or write into, something else.
    #[test]
    fn pods_are_found_by_their_uid_only() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("kubepods.slice/kubepods-pod1_2.slice");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir_all(root.path().join("kubepods/burstable/poda-b")).unwrap();
        let control = IoControl {
            root: root.path().to_owned(),
        };
        assert_eq!(control.group_of("1-2").unwrap(), deep);
        assert!(control.group_of("a-b").unwrap().ends_with("poda-b"));
        for bad in ["", "../a", "a-", "2", "a/b"] {
            assert_eq!(control.group_of(bad), None, "{bad:?}");
        }
    }
}

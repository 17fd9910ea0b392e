//! Which nodes run on this machine, and which of them a command means.
//!
//! Every hot directory has at most one node; its run directory is
//! `<base>/<first 16 hex digits of the SHA-256 of the canonical hot path>/` and holds `keeper.sock`,
//! `node.sock` and `hot` (a symbolic link to the hot directory, for people).

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// One node of this machine, running or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    /// Its run directory.
    pub(crate) run_dir: PathBuf,
}

impl Instance {
    /// The instance of a hot directory (made canonical as far as it exists).
    pub(crate) fn of_hot(base: &Path, hot: &Path) -> Self {
        let canonical = canonical(hot);
        let digest = Sha256::digest(canonical.as_os_str().as_encoded_bytes());
        let name = digest.iter().take(8).fold(String::new(), |mut name, byte| {
            write!(name, "{byte:02x}").expect("writing to a string cannot fail");
            name
        });
        Self {
            run_dir: base.join(name),
        }
    }

    /// Socket of the keeper.
    pub(crate) fn keeper_socket(&self) -> PathBuf {
        self.run_dir.join("keeper.sock")
    }

    /// Socket of the worker.
    pub(crate) fn node_socket(&self) -> PathBuf {
        self.run_dir.join("node.sock")
    }

    /// Whether a keeper answers on its socket.
    pub(crate) fn is_alive(&self) -> bool {
        std::os::unix::net::UnixStream::connect(self.keeper_socket()).is_ok()
    }
}

/// Every instance below `base` whose keeper answers, in a stable order.
pub(crate) fn running(base: &Path) -> Vec<Instance> {
    let mut found: Vec<_> = fs::read_dir(base)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| Instance {
            run_dir: entry.path(),
        })
        .filter(Instance::is_alive)
        .collect();
    found.sort_by(|a, b| a.run_dir.cmp(&b.run_dir));
    found
}

/// The one instance a command means: that of `hot` when given, else the only one that runs.
pub(crate) fn choose(base: &Path, hot: Option<&Path>) -> Result<Instance> {
    if let Some(hot) = hot {
        let instance = Instance::of_hot(base, hot);
        if !instance.is_alive() {
            bail!(
                "find the node of {}: nothing runs there; mount something with --hot {0} first",
                hot.display()
            );
        }
        return Ok(instance);
    }
    let mut running = running(base);
    match running.len() {
        0 => bail!("find a node: nothing is mounted on this machine; try terrace mount --help"),
        1 => Ok(running.remove(0)),
        n => bail!("find the node: {n} run on this machine; name one with --hot DIR"),
    }
}

/// Canonical path of the longest existing part, with the rest appended.
pub(crate) fn canonical(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for ancestor in absolute.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            let rest = absolute.strip_prefix(ancestor).unwrap_or(Path::new(""));
            return if rest.as_os_str().is_empty() {
                real
            } else {
                real.join(rest)
            };
        }
    }
    absolute
}

/// Makes `base`/… private to the user: 0700, refused when somebody else owns it.
pub(crate) fn make_run_dir(instance: &Instance) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let dir = &instance.run_dir;
    if let Some(base) = dir.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(base)
            .with_context(|| format!("make {}; try --run-dir", base.display()))?;
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("make {}; try --run-dir", dir.display()))?;
    let owner = fs::metadata(dir)?.uid();
    let me = nix::unistd::geteuid().as_raw();
    if owner != me {
        bail!(
            "use {}: it belongs to user {owner}, not {me}; try --run-dir",
            dir.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    // Without it `status` and `mount` could look for one node in two places.
    #[test]
    fn one_hot_directory_has_one_run_directory() {
        let dir = tempfile::tempdir().unwrap();
        let hot = dir.path().join("hot");
        let base = dir.path().join("run");
        let before = Instance::of_hot(&base, &hot);
        fs::create_dir(&hot).unwrap();
        assert_eq!(before, Instance::of_hot(&base, &hot));
        assert_eq!(before, Instance::of_hot(&base, &dir.path().join("./hot/")));
        std::os::unix::fs::symlink(&hot, dir.path().join("link")).unwrap();
        assert_eq!(before, Instance::of_hot(&base, &dir.path().join("link")));
        assert_ne!(before, Instance::of_hot(&base, &dir.path().join("other")));
    }

    // Without it a command would hang or guess when no node runs.
    #[test]
    fn nothing_running_is_a_clear_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = choose(dir.path(), None).unwrap_err().to_string();
        assert!(error.contains("terrace mount"), "{error}");
    }
}

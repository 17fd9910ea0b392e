//! Which nodes run on this machine, and which of them a command means. Every hot directory has at
//! most one node, and every node one run directory ([`RunDir`]).

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use terrace_catalog::Selector;
use terrace_fuse::keeper::{KeeperClient, RunDir};

use super::proto::target::Kind;
use super::proto::{MountPath, SourceUrl, Target};
use crate::node::options::CATALOG_SOURCE;

const KEEPER_DEADLINE: Duration = Duration::from_secs(5);

/// Every run directory below `base` whose keeper answers, in a stable order.
pub(crate) fn running(base: &Path) -> Result<Vec<RunDir>> {
    let all = RunDir::existing(base).with_context(|| format!("list {}", base.display()))?;
    Ok(all
        .into_iter()
        .filter(|run| KeeperClient::connect(run, KEEPER_DEADLINE).is_ok())
        .collect())
}

/// The one node a command means: that of `hot` when given, else the only one that runs.
pub(crate) fn choose(base: &Path, hot: Option<&Path>) -> Result<RunDir> {
    if let Some(hot) = hot {
        let name = hot.display();
        anyhow::ensure!(
            hot.is_dir(),
            "find the node of {name}: no such directory; check --hot"
        );
        let run = RunDir::for_hot(base, hot).with_context(|| format!("find the node of {name}"))?;
        KeeperClient::connect(&run, KEEPER_DEADLINE).map_err(|error| {
            anyhow::anyhow!("find the node of {name}: {error}; mount something with --hot {name}")
        })?;
        return Ok(run);
    }
    let mut running = running(base)?;
    match running.len() {
        0 => bail!("find a node: nothing is mounted on this machine; try terrace mount --help"),
        1 => Ok(running.remove(0)),
        n => bail!("find the node: {n} run on this machine; name one with --hot DIR"),
    }
}

/// What a user named on the command line, and the node that has it: a path below a mount of any
/// node, a store URL on the chosen node, or a version of a table where all tables are mounted.
pub(crate) fn locate(base: &Path, hot: Option<&Path>, what: &str) -> Result<(RunDir, Target)> {
    if what.contains("://") {
        let credentials = crate::cli::credential_environment().into_iter().collect();
        let kind = Kind::Source(SourceUrl {
            url: what.to_owned(),
            credentials,
        });
        return Ok((choose(base, hot)?, Target { kind: Some(kind) }));
    }
    if !Path::new(what).exists()
        && let Ok(selector) = what.parse::<Selector>()
    {
        return in_catalog(base, hot, &selector);
    }
    let path = Path::new(what)
        .canonicalize()
        .with_context(|| format!("find {what}; name a path below a mount, or a store URL"))?;
    for run in running(base)? {
        let Ok(mounts) = mountpoints(&run) else {
            continue;
        };
        // The longest mount point that holds the path: mounts may lie in each other.
        let holder = mounts
            .iter()
            .filter(|m| path.starts_with(m))
            .max_by_key(|m| m.as_os_str().len());
        if let Some(mountpoint) = holder {
            let rest = path.strip_prefix(mountpoint).unwrap_or(Path::new(""));
            let kind = Kind::Mount(MountPath {
                mountpoint: mountpoint.to_string_lossy().into_owned(),
                path: rest.as_os_str().as_bytes().to_vec(),
            });
            return Ok((run, Target { kind: Some(kind) }));
        }
    }
    bail!("find {what}: it is not below a Terrace mount; see terrace status")
}

/// A version of a table, where a node shows all tables.
fn in_catalog(base: &Path, hot: Option<&Path>, selector: &Selector) -> Result<(RunDir, Target)> {
    let nodes = match hot {
        Some(hot) => vec![choose(base, Some(hot))?],
        None => running(base)?,
    };
    for run in nodes {
        let (_, mounts) = KeeperClient::connect(&run, KEEPER_DEADLINE)?.status()?;
        let Some(mount) = mounts.into_iter().find(|m| m.source == CATALOG_SOURCE) else {
            continue;
        };
        let dataset = selector.dataset();
        let version = selector.to_string();
        let version = &version[dataset.as_str().len()..];
        let path = format!("{}/{}{version}", dataset.namespace(), dataset.table());
        let kind = Kind::Mount(MountPath {
            mountpoint: mount.mountpoint.to_string_lossy().into_owned(),
            path: path.into_bytes(),
        });
        return Ok((run, Target { kind: Some(kind) }));
    }
    bail!(
        "find {selector}: no node here shows the tables; terrace mount catalog: DIR first, \
         or name other nodes with --nodes"
    )
}

fn mountpoints(run: &RunDir) -> Result<Vec<PathBuf>> {
    let (_, mounts) = KeeperClient::connect(run, KEEPER_DEADLINE)?.status()?;
    Ok(mounts.into_iter().map(|mount| mount.mountpoint).collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    // Without it a command would hang or guess when no node runs.
    #[test]
    fn nothing_running_is_a_clear_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = choose(dir.path(), None).unwrap_err().to_string();
        assert!(error.contains("terrace mount"), "{error}");
        let error = choose(dir.path(), Some(dir.path()))
            .unwrap_err()
            .to_string();
        assert!(error.contains("--hot"), "{error}");
        let here = dir.path().to_string_lossy().into_owned();
        let error = locate(dir.path(), None, &here).unwrap_err().to_string();
        assert!(error.contains("not below a Terrace mount"), "{error}");
    }
}

//! `terrace up`: a catalog, discovery and a node on one machine, in the foreground.
//!
//! ```text
//! start   catalog (HTTP) -> note in the run directory -> mount of catalog: (keeper, worker) if asked for
//! end     mount -> note -> catalog
//! ```
//!
//! What was started is ended in the opposite order, also when a later step fails. Keeper and worker
//! outlive a `terrace up` that was killed: the next one takes their mount up again when it is the same
//! catalog, by the note that the killed one left.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, FromArgMatches};
use terrace_fuse::keeper::MountStatus;

use super::catalog::{Ends, runtime};
use super::mount::MountArgs;
use super::serving::ServingArgs;
use super::{Failure, Global, mount, umount};
use crate::catalog::place::{Note, note_path, read_note};
use crate::catalog::serve::{self, CatalogConfig, Running};

/// The source of the mount: the tree of all tables.
const TABLES: &str = "catalog:";

/// Run a catalog, discovery and a node on this machine, in the foreground.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Other commands on this machine find the catalog by themselves:\n  \
    terrace sync add file:///data/warehouse --namespace ads\n  \
    terrace dataset list\n\n\
    SIGINT and SIGTERM remove the mount and end everything."
)]
pub(crate) struct UpArgs {
    /// Directory of everything that is kept [default: /var/lib/terrace, or
    /// $XDG_DATA_HOME/terrace when not root]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    serving: ServingArgs,
    /// With TLS: certificates that commands of this machine trust [default: the server's own]
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    ca_file: Option<PathBuf>,
    /// Show the tree of all tables here; an existing directory
    #[arg(long, value_name = "DIR")]
    mount: Option<PathBuf>,
    /// Directory of the hot tier [default: DATA/hot]
    #[arg(long, value_name = "DIR", requires = "mount")]
    hot: Option<PathBuf>,
    /// Budget of the hot tier [default: 80% of the space free at its first start]
    #[arg(long, value_name = "SIZE", requires = "mount")]
    hot_size: Option<String>,
}

pub(crate) fn run(args: &UpArgs, global: &Global) -> Result<(), Failure> {
    let data = match &args.data {
        Some(data) => std::path::absolute(data).context("use the data directory")?,
        None => default_data(),
    };
    Ok(runtime()?.block_on(up(args, &data, global))?)
}

fn default_data() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/terrace");
    }
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".local/share");
    std::env::var_os("XDG_DATA_HOME")
        .map_or_else(home, PathBuf::from)
        .join("terrace")
}

async fn up(args: &UpArgs, data: &Path, global: &Global) -> Result<()> {
    let asked = Ends::watch()?;
    let config = CatalogConfig {
        mount: args.mount.clone(),
        ..args.serving.config(data, global)?
    };
    let running = serve::start(&config).await?;
    let done = beside(args, data, global, &running, asked).await;
    let ended = running.end().await;
    done.and(ended)
}

/// Everything beside the catalog, until a signal comes.
async fn beside(
    args: &UpArgs,
    data: &Path,
    global: &Global,
    running: &Running,
    asked: Ends,
) -> Result<()> {
    let ca_file = trusted(args)?;
    let kept = match args.mount.clone() {
        Some(mountpoint) => {
            let (base, own) = (global.run_base(), note_of(running, ca_file.clone()));
            let asked = tokio::task::spawn_blocking(move || is_kept(&mountpoint, &base, &own));
            asked.await.context("look at the mount point")??
        }
        None => false,
    };
    let note = LeftNote::write(global, running, ca_file.clone())?;
    if let Some(mountpoint) = args.mount.as_ref().filter(|_| !kept) {
        let mounting = mount_arguments(args, data, mountpoint, running, ca_file)?;
        let global = global.clone();
        // Waits for the keeper and the first answer, as the command does.
        let mounted = tokio::task::spawn_blocking(move || mount::run(&mounting, &global));
        let mounted = mounted.await.context("mount the tables")?;
        mounted.map_err(|failure| anyhow::anyhow!(failure.0))?;
    }
    greet(args, running);
    asked.wait().await;
    if let Some(mountpoint) = args.mount.clone() {
        let base = global.run_base();
        let unmounted = tokio::task::spawn_blocking(move || umount::umount(&mountpoint, &base));
        unmounted.await.context("remove the mount")??;
    }
    drop(note);
    Ok(())
}

/// Whether the mount of a run that was killed is still there, and asks the catalog of this note.
fn is_kept(mountpoint: &Path, base: &Path, own: &Note) -> Result<bool> {
    // A note that cannot be read is written anew.
    if read_note(base).ok().flatten().as_ref() != Some(own) {
        return Ok(false);
    }
    let path = umount::canonical_mountpoint(mountpoint).context("look at the mount point")?;
    let Some(keeper) = umount::keeper_of(&path, base)? else {
        return Ok(false);
    };
    let (_, mounts) = keeper.status().context("ask the keeper of the mount")?;
    let is_ours = |mount: &MountStatus| mount.mountpoint == path && mount.source == TABLES;
    Ok(mounts.iter().any(is_ours))
}

fn note_of(running: &Running, ca_file: Option<PathBuf>) -> Note {
    Note {
        url: running.url(),
        token_file: running.token_file.clone(),
        ca_file,
    }
}

/// What commands of this machine trust, when the catalog speaks TLS.
fn trusted(args: &UpArgs) -> Result<Option<PathBuf>> {
    let own = || args.serving.tls().map(|files| files.certificate);
    let named = args.ca_file.clone().or_else(own);
    let whole = named.map(std::path::absolute).transpose();
    whole.context("use the certificate")
}

fn greet(args: &UpArgs, running: &Running) {
    println!("catalog  {}", running.url());
    println!("console  {}/console/", running.url());
    println!("token    {}", running.token_file.display());
    if let Some(mountpoint) = &args.mount {
        println!("tables   {}/<namespace>/<table>", mountpoint.display());
    }
    println!(
        "next     terrace sync add file:///directory --namespace NAME, then terrace dataset list"
    );
    println!("end      Ctrl-C");
}

/// The arguments of the mount, from the words a user would write.
fn mount_arguments(
    args: &UpArgs,
    data: &Path,
    mountpoint: &Path,
    running: &Running,
    ca_file: Option<PathBuf>,
) -> Result<MountArgs> {
    let hot = args.hot.clone().unwrap_or_else(|| data.join("hot"));
    std::fs::create_dir_all(&hot).with_context(|| format!("make {}", hot.display()))?;
    let mut words: Vec<std::ffi::OsString> = vec!["mount".into(), TABLES.into()];
    words.push(mountpoint.into());
    words.extend(["--hot".into(), hot.into()]);
    words.extend(["--catalog".into(), running.url().into()]);
    words.extend(["--token-file".into(), running.token_file.clone().into()]);
    if let Some(file) = ca_file {
        words.extend(["--ca-file".into(), file.into()]);
    }
    if let Some(size) = &args.hot_size {
        words.extend(["--hot-size".into(), size.into()]);
    }
    let command = MountArgs::augment_args(clap::Command::new("mount"));
    let matches = command.try_get_matches_from(words)?;
    Ok(MountArgs::from_arg_matches(&matches)?)
}

/// The note by which other commands find this catalog; removed when dropped.
struct LeftNote(PathBuf);

impl LeftNote {
    fn write(global: &Global, running: &Running, ca_file: Option<PathBuf>) -> Result<Self> {
        let base = global.run_base();
        let path = note_path(&base);
        let what = || format!("write {}; try --run-dir", path.display());
        std::fs::create_dir_all(&base).with_context(what)?;
        let note = note_of(running, ca_file);
        let new = path.with_extension(format!("json.{}", std::process::id()));
        std::fs::write(&new, serde_json::to_vec(&note)?).with_context(what)?;
        std::fs::rename(&new, &path).with_context(what)?;
        Ok(Self(path))
    }
}

impl Drop for LeftNote {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(%error, "the note of the catalog stays");
        }
    }
}

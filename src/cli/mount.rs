//! `terrace mount`: find or start the keeper of the hot directory and ask it for a mount.

mod writable;

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use terrace_cache::units::{ByteSize, Span};
use terrace_fuse::keeper::{
    ClientError, KeeperClient, KernelOptions, MountSpec, RunDir, Secrets, kernel,
};

use super::source::Source;
use super::volume::{self, BaseArgs};
use super::{Failure, Global, foreground, keeper, umount};
use crate::catalog::place::CatalogArgs;
use crate::node::options::{MountOptions, SsdCache};
use crate::node::tenants::TenantName;

/// What opens of a mount are tuned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileArg {
    /// Files of every size; warm reads through kernel passthrough
    Default,
    /// Many small files: opens cost no round trip, pages are kept, no passthrough
    SmallFiles,
}

/// Show SOURCE at MOUNTPOINT, read-only unless --rw is given.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    terrace mount s3://bucket/images /data/images --hot /ssd/terrace --hot-size 500GiB\n  \
    terrace mount hdfs://nn:8020/warehouse/ads /data/ads\n  \
    terrace mount file:///mnt/pfs/set /data/set --profile small-files\n  \
    terrace mount file:///mnt/pfs/home/alice /home/alice --rw\n  \
    terrace mount file:///mnt/pfs/runs /runs --rw --cold s3://bucket/runs\n  \
    terrace mount volume:home/alice /home/alice --base /mnt/pfs\n  \
    terrace mount catalog: /data --catalog http://catalog:8080\n  \
    terrace mount ads.clicks@v12 /data/clicks")]
pub(crate) struct MountArgs {
    /// s3://bucket/prefix, hdfs://host:port/path, webhdfs://host:port/path or file:///dir; volume:NAME
    /// for a space, with its limits; catalog: for the tree of all tables; or a version such as
    /// ads.clicks@v12
    pub(crate) source: String,
    /// An existing directory
    pub(crate) mountpoint: PathBuf,
    #[command(flatten)]
    pub(crate) catalog: CatalogArgs,
    /// Directory of the hot tier, on the node's SSD [default: /var/cache/terrace]
    #[arg(long, value_name = "DIR")]
    pub(crate) hot: Option<PathBuf>,
    /// Budget of the hot tier [default: 80% of the space free at its first start]
    #[arg(long, value_name = "SIZE")]
    pub(crate) hot_size: Option<ByteSize>,
    /// Directory of the warm tier, on a file system the cluster shares [default: none]
    #[arg(long, value_name = "DIR")]
    pub(crate) warm: Option<PathBuf>,
    /// Show a directory (file:///dir) for reading and writing, as it is: owners, permissions and all
    /// else are its own
    #[arg(long, conflicts_with_all = ["snapshot", "uid", "gid", "file_mode", "dir_mode", "warm", "profile"])]
    pub(crate) rw: bool,
    /// With --rw: how durable files are when close(2) and fsync(2) return, as CALL=LEVEL,... or
    /// 'PATTERN:CALL=LEVEL,...'; levels are accepted, local (this node's SSD) and shared (the
    /// directory). Repeatable, the first pattern that matches wins [default: fsync=shared,
    /// close=accepted]
    #[arg(long, value_name = "RULE", requires = "rw")]
    pub(crate) durability: Vec<String>,
    /// Where files of level local are staged, on the node's SSD [default: beside the hot directory]
    #[arg(long, value_name = "DIR", requires = "durability")]
    pub(crate) spool: Option<PathBuf>,
    /// Most bytes there; beyond it files are written through [default: half of what is free]
    #[arg(long, value_name = "SIZE", requires = "durability")]
    pub(crate) spool_size: Option<ByteSize>,
    /// Where contents go that nobody uses: s3://bucket/prefix, hdfs://host:port/path or file:///dir; opening
    /// a file brings them back [default: nowhere]
    #[arg(long, value_name = "URL", requires = "rw")]
    pub(crate) cold: Option<String>,
    /// What goes to the cold store without being asked (YAML) [default: nothing]
    #[arg(long, value_name = "FILE", requires = "cold")]
    pub(crate) tier_policy: Option<PathBuf>,
    /// With --rw: copy files that are read to the hot tier, and read them there from the next open on;
    /// auto: unless the directory lies on a local file system
    #[arg(long, value_name = "WHEN", default_value = "auto", requires = "rw")]
    pub(crate) ssd_cache: SsdCache,
    /// With --rw: how long an open may believe what the shared file system's server said of the file before,
    /// instead of asking it [default: each open asks]
    #[arg(long, value_name = "TIME", requires = "rw")]
    pub(crate) revalidate: Option<Span>,
    #[command(flatten)]
    pub(crate) base: BaseArgs,
    /// Whose budgets the mount uses: a name of tenants in the configuration [default: that of the
    /// volume, or nobody's]
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<TenantName>,
    /// Read the listing once and show exactly that, for ever: no metadata traffic, longest caching
    #[arg(long)]
    pub(crate) snapshot: bool,
    /// What opens are tuned for
    #[arg(long, value_name = "PROFILE", default_value = "default")]
    pub(crate) profile: ProfileArg,
    /// How long a name may be believed without asking the store again (live mounts)
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub(crate) ttl: Span,
    /// Owner shown for everything [default: the caller]
    #[arg(long)]
    pub(crate) uid: Option<u32>,
    /// Group shown for everything [default: the caller's]
    #[arg(long)]
    pub(crate) gid: Option<u32>,
    /// Permission bits shown for files, octal
    #[arg(long, value_name = "MODE", default_value = "0444", value_parser = octal)]
    pub(crate) file_mode: u16,
    /// Permission bits shown for directories, octal
    #[arg(long, value_name = "MODE", default_value = "0555", value_parser = octal)]
    pub(crate) dir_mode: u16,
    /// Stay until unmounted or interrupted (then unmount)
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Say what was mounted
    #[arg(long, short)]
    pub(crate) verbose: bool,
    /// Mount options, comma separated: ro, nosuid, nodev, noatime and allow_other (always on),
    /// noexec, noallow_other, nonempty, read_ahead_kb=KIB; with --rw also suid, dev, locks=none
    #[arg(short = 'o', value_name = "OPTS", value_delimiter = ',')]
    pub(crate) options: Vec<String>,
}

fn octal(text: &str) -> Result<u16, String> {
    u16::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| format!("`{text}` is not an octal mode such as 0444"))
}

/// Options of mount(8) that are understood; the first ones are always on.
const ALWAYS_ON: [&str; 5] = ["ro", "nosuid", "nodev", "noatime", "allow_other"];

/// Refuses locks, for a directory whose other nodes would not see them.
const NO_LOCKS: &str = "locks=none";

/// How long a mount may take: reaching the store has deadlines of its own.
pub(crate) const MOUNT_LIMIT: Duration = Duration::from_secs(150);

/// How long the first answer of a new mount may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// How often a keeper that is just ending or changing hands is asked again.
const ATTEMPTS: usize = 8;

pub(crate) fn run(args: &MountArgs, global: &Global) -> Result<(), Failure> {
    let what = || format!("mount {} on {}", args.source, args.mountpoint.display());
    let source = Source::parse(&args.source).with_context(what)?;
    tracing::debug!(?source, "source");
    if !nix::unistd::geteuid().is_root() {
        tracing::warn!("mounting needs root or CAP_SYS_ADMIN");
    }
    let mountpoint = check_mountpoint(args, global).with_context(what)?;
    let config = keeper::node_config(global, args.hot.as_deref(), args.hot_size)?;
    let run = RunDir::for_hot(&global.run_base(), &config.cache.hot.dir)
        .with_context(|| format!("use the hot directory {}", config.cache.hot.dir.display()))?;
    // Before the first thread: only then every thread leaves the signals to us.
    let ends = if args.foreground {
        Some(foreground::Ends::watch()?)
    } else {
        None
    };
    let spec = spec(args, &source, mountpoint.clone(), global).with_context(what)?;
    ask(&spec, &|| {
        keeper::find_or_start(&run, &config, global, MOUNT_LIMIT)
    })
    .with_context(what)?;
    if let Err(error) = answers(&mountpoint) {
        umount::umount(&mountpoint, &global.run_base()).ok();
        return Err(Failure(format!("{}: {error:#}", what())));
    }
    if args.verbose {
        println!("{} is mounted on {}", args.source, mountpoint.display());
    }
    match ends {
        None => Ok(()),
        Some(ends) => Ok(ends.wait(&mountpoint, &global.run_base())?),
    }
}

/// Refuses what cannot be mounted on, and removes what a dead node left there.
fn check_mountpoint(args: &MountArgs, global: &Global) -> anyhow::Result<PathBuf> {
    let path = umount::canonical_mountpoint(&args.mountpoint)
        .context("look at the mount point; its parent directory must exist")?;
    if let Some(entry) = kernel::find_mount(&path).context("read the mount table")? {
        let dead = entry.fs_type == kernel::FS_TYPE && is_dead(&path);
        if !dead {
            bail!(
                "{} is mounted there already; terrace umount it first",
                entry.source
            );
        }
        tracing::info!(mountpoint = %path.display(), "a dead mount is removed");
        umount::umount(&path, &global.run_base())?;
    }
    let metadata = match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("the mount point does not exist; mkdir it first")
        }
        other => other.context("look at the mount point")?,
    };
    if !metadata.is_dir() {
        bail!("the mount point is not a directory");
    }
    let mut entries = std::fs::read_dir(&path).context("read the mount point")?;
    if entries.next().is_some() && !args.options.iter().any(|option| option == "nonempty") {
        bail!("the mount point is not empty; use an empty directory, or -o nonempty to cover it");
    }
    Ok(path)
}

/// Whether the connection of a mount has ended: the kernel then answers by itself. A mount whose
/// worker merely hangs does not answer, and is not dead.
fn is_dead(path: &Path) -> bool {
    let path = path.to_owned();
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || sender.send(std::fs::metadata(path)).ok());
    matches!(
        receiver.recv_timeout(Duration::from_secs(1)),
        Ok(Err(error)) if matches!(error.raw_os_error(), Some(nix::libc::ENOTCONN | nix::libc::ECONNABORTED))
    )
}

fn spec(
    args: &MountArgs,
    source: &Source,
    mountpoint: PathBuf,
    global: &Global,
) -> anyhow::Result<MountSpec> {
    let mut options = MountOptions {
        snapshot: args.snapshot,
        small_files: args.profile == ProfileArg::SmallFiles,
        ttl: args.ttl,
        uid: args.uid.unwrap_or_else(|| nix::unistd::getuid().as_raw()),
        gid: args.gid.unwrap_or_else(|| nix::unistd::getgid().as_raw()),
        file_mode: args.file_mode,
        dir_mode: args.dir_mode,
        warm: args.warm.as_deref().map(std::path::absolute).transpose()?,
        tenant: args.tenant.clone(),
        directory: None,
        catalog: None,
        catalog_token: None,
        catalog_ca: None,
        version: None,
    };
    let mut shown = args.source.clone();
    if let Source::Volume(name) = source {
        let (space, tenant) = writable::space(args, name, global)?;
        shown = volume::source_of(&space.root);
        options.directory = Some(space);
        options.tenant = options.tenant.or(tenant);
    } else if args.rw {
        options.directory = Some(writable::directory(args, source)?);
    }
    let mut credentials = super::credential_environment();
    source.complete(
        &args.catalog,
        &global.run_base(),
        &mut options,
        &mut credentials,
    )?;
    Ok(MountSpec {
        id: new_id()?,
        mountpoint,
        source: shown,
        kernel: kernel_options(&args.options, options.directory.is_some())?,
        options: serde_json::to_value(options).context("encode the options")?,
        credentials: Secrets(credentials),
    })
}

/// A name that no other mount has, ever.
pub(crate) fn new_id() -> anyhow::Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid").context("make an id")?;
    Ok(id.trim().to_owned())
}

fn kernel_options(options: &[String], writable: bool) -> anyhow::Result<KernelOptions> {
    let mut kernel = KernelOptions {
        writable,
        ..KernelOptions::default()
    };
    for option in options {
        match option.split_once('=') {
            _ if writable && option == NO_LOCKS => {}
            None if writable && (option == "ro" || option == "noatime") => {
                bail!("option {option} contradicts --rw; leave one of them out")
            }
            None if writable && option == "suid" => kernel.suid = true,
            None if writable && option == "dev" => kernel.dev = true,
            None if option == "noexec" => kernel.noexec = true,
            None if option == "noallow_other" => kernel.allow_other = false,
            None if option == "nonempty" || ALWAYS_ON.contains(&option.as_str()) => {}
            Some(("read_ahead_kb", kib)) => {
                kernel.read_ahead_kb = kib
                    .parse()
                    .with_context(|| format!("understand the option {option}"))?;
            }
            _ => bail!(
                "option {option} is not known; known are {}, noexec, noallow_other, nonempty, \
                 read_ahead_kb=KIB, and with --rw suid, dev, locks=none",
                ALWAYS_ON.join(", ")
            ),
        }
    }
    Ok(kernel)
}

/// Asks the keeper for the mount, again when it was just ending or changing hands.
pub(crate) fn ask(
    spec: &MountSpec,
    keeper: &dyn Fn() -> anyhow::Result<KeeperClient>,
) -> anyhow::Result<()> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let error = match keeper()?.mount(spec.clone()) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let passing = match &error {
            ClientError::Gone | ClientError::Absent => true,
            ClientError::Refused(failure) => failure.again,
            ClientError::TimedOut(_) | ClientError::Io(_) => false,
        };
        if !passing || attempt == ATTEMPTS {
            return Err(error.into());
        }
        keeper::pause(100);
    }
}

/// Waits for the first answers of the mount: statfs and the root's listing.
pub(crate) fn answers(mountpoint: &Path) -> anyhow::Result<()> {
    let path = mountpoint.to_owned();
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let answer = nix::sys::statvfs::statvfs(&path)
            .map_err(std::io::Error::from)
            .and_then(|_| std::fs::read_dir(&path)?.next().transpose().map(drop));
        sender.send(answer).ok();
    });
    match receiver.recv_timeout(ANSWER_LIMIT) {
        Ok(answer) => answer.context("read the mounted directory; see worker.log"),
        Err(_) => bail!("the mount does not answer within {ANSWER_LIMIT:?}; see worker.log"),
    }
}

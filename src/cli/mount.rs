//! `terrace mount`: find or start the keeper of the hot directory and ask it for a mount.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use terrace_cache::units::{ByteSize, Span};

use super::{Failure, Global};

/// What opens of a mount are tuned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileArg {
    /// Files of every size; warm reads through kernel passthrough
    Default,
    /// Many small files: opens cost no round trip, pages are kept, no passthrough
    SmallFiles,
}

/// Show SOURCE at MOUNTPOINT, read-only.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    terrace mount s3://bucket/images /data/images --hot /ssd/terrace --hot-size 500GiB\n  \
    terrace mount hdfs://nn:8020/warehouse/ads /data/ads\n  \
    terrace mount file:///mnt/pfs/set /data/set --profile small-files")]
pub(crate) struct MountArgs {
    /// s3://bucket/prefix, hdfs://host:port/path, webhdfs://host:port/path or file:///dir
    pub(crate) source: String,
    /// An existing directory
    pub(crate) mountpoint: PathBuf,
    /// Directory of the hot tier, on the node's SSD [default: /var/cache/terrace]
    #[arg(long, value_name = "DIR")]
    pub(crate) hot: Option<PathBuf>,
    /// Budget of the hot tier [default: 80% of the space free at its first start]
    #[arg(long, value_name = "SIZE")]
    pub(crate) hot_size: Option<ByteSize>,
    /// Directory of the warm tier, on a file system the cluster shares [default: none]
    #[arg(long, value_name = "DIR")]
    pub(crate) warm: Option<PathBuf>,
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
    /// Mount options, comma separated: ro, nosuid, nodev, noexec, noatime, allow_other
    #[arg(short = 'o', value_name = "OPTS", value_delimiter = ',')]
    pub(crate) options: Vec<String>,
}

fn octal(text: &str) -> Result<u16, String> {
    u16::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| format!("`{text}` is not an octal mode such as 0444"))
}

pub(crate) fn run(args: &MountArgs, _global: &Global) -> Result<(), Failure> {
    Err(Failure(format!("mount {}: not wired yet", args.source)))
}

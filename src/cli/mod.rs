//! The command line: one enum of commands, one file each, one way to fail.
//!
//! Exit status 0 done, 1 failed, 2 usage. An error is one line on stderr: what failed, on what, why
//! and what to try.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::telemetry::{self, LogFormat};

pub(crate) use csi::Role;

mod bench;
mod catalog;
mod completion;
mod controller;
mod csi;
mod dataset;
mod doctor;
mod foreground;
mod guard;
mod keeper;
pub(crate) mod mount;
mod node;
mod nodes;
mod pages;
mod serving;
mod source;
mod status;
mod sync;
mod table;
pub(crate) mod umount;
mod up;
mod upkeep;
pub(crate) mod volume;
mod warm;

/// Datasets at native SSD speed on every node of an ML cluster.
#[derive(Debug, Parser)]
#[command(
    name = "terrace",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(after_help = "Exit status: 0 done, 1 failed, 2 wrong usage.\n\
    Credentials come from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, \
    AWS_SESSION_TOKEN, AWS_ENDPOINT_URL, AWS_REGION, AWS_ALLOW_HTTP=true (plain http endpoints), \
    HADOOP_CONF_DIR, HADOOP_USER_NAME.")]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Global {
    /// Configuration file (TOML); flags win over it, it wins over the defaults
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Log level (error, warn, info, debug, trace) or directives such as info,terrace_cache=debug
    #[arg(long, global = true, value_name = "LEVEL", default_value = "info")]
    pub(crate) log: String,
    /// Log format
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Where sockets and logs of running nodes are [default: /run/terrace, or
    /// $XDG_RUNTIME_DIR/terrace when not root]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a catalog, discovery and a mount of all tables on this machine, in the foreground
    Up(up::UpArgs),
    /// Show a store as a directory: returns when the mount answers
    Mount(mount::MountArgs),
    /// Take a mount away, busy or not
    Umount(umount::UmountArgs),
    /// Make and limit spaces of users and projects; see how safe the files of volumes are
    Volume(volume::VolumeArgs),
    /// Bring files into a tier before they are used
    Warm(warm::WarmArgs),
    /// Drop files from the hot tier; the store keeps them
    Evict(warm::EvictArgs),
    /// Exempt files in the hot tier from eviction
    Pin(warm::PinArgs),
    /// End a pin
    Unpin(warm::PinArgs),
    /// Build a native read-only tree of hard links to hot objects
    Materialize(warm::MaterializeArgs),
    /// Show mounts, tiers, hit rates, and what applications waited for
    Status(status::StatusArgs),
    /// Say what this machine can do, what is wrong and what to try
    Doctor(doctor::DoctorArgs),
    /// Watch places for tables; say why a table is not published yet
    Sync(sync::SyncArgs),
    /// See and change datasets in a catalog
    Dataset(dataset::DatasetArgs),
    /// Run a catalog; its tokens
    Catalog(catalog::CatalogCommand),
    /// Keep a Kubernetes cluster and a catalog in step; mount datasets that pods name
    Controller(controller::ControllerArgs),
    /// Run the process that holds the mounts and restarts the worker (usually started by `mount`)
    Keeper(keeper::KeeperArgs),
    /// Run the worker (started by the keeper)
    #[command(hide = true)]
    Node(node::NodeArgs),
    /// Serve Kubernetes volumes: a CSI driver on a unix socket
    Csi(csi::CsiArgs),
    /// Measure how fast a directory reads, paired with a native one
    Bench(bench::BenchArgs),
    /// Print shell completions
    Completion(completion::CompletionArgs),
    /// Write manual pages
    Man(completion::ManArgs),
}

/// What a command ends with when it fails: one line for the user.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        // `{:#}` prints an anyhow chain on one line.
        Self(format!("{error:#}"))
    }
}

/// Runs the command of this process.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(why) = telemetry::init(&cli.global.log, cli.global.log_format) {
        eprintln!("terrace: {why}");
        return ExitCode::from(2);
    }
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(why)) => {
            eprintln!("terrace: {}", why.replace('\n', " "));
            ExitCode::from(1)
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let global = cli.global;
    match cli.command {
        Command::Up(args) => up::run(&args, &global),
        Command::Mount(args) => mount::run(&args, &global),
        Command::Umount(args) => umount::run(&args, &global),
        Command::Warm(args) => warm::warm(&args, &global),
        Command::Evict(args) => warm::evict(&args, &global),
        Command::Pin(args) => warm::pin(&args, true, &global),
        Command::Unpin(args) => warm::pin(&args, false, &global),
        Command::Materialize(args) => warm::materialize(&args, &global),
        Command::Status(args) => status::run(&args, &global),
        Command::Doctor(args) => doctor::run(&args, &global),
        Command::Sync(args) => sync::run(&args, &global),
        Command::Volume(args) => volume::run(&args, &global),
        Command::Dataset(args) => dataset::run(&args, &global),
        Command::Catalog(args) => catalog::run(&args, &global),
        Command::Controller(args) => controller::run(&args, &global),
        Command::Keeper(args) => keeper::run(&args, &global),
        Command::Node(args) => node::run(&args, &global),
        Command::Csi(args) => csi::run(&args, &global),
        Command::Bench(args) => bench::run(&args, &global),
        Command::Completion(args) => completion::completion(&args),
        Command::Man(args) => completion::man(&args),
    }
}

/// Hot directory when none is named.
pub(crate) const DEFAULT_HOT: &str = "/var/cache/terrace";

/// Names of environment variables that are credentials or say where stores are.
const CREDENTIAL_PREFIXES: [&str; 2] = ["AWS_", "HADOOP_"];

impl Global {
    /// Base of the run directories.
    pub(crate) fn run_base(&self) -> PathBuf {
        if let Some(dir) = &self.run_dir {
            // Absolute: the keeper does not stay in this command's directory.
            return std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        }
        match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(dir) if !nix::unistd::geteuid().is_root() => PathBuf::from(dir).join("terrace"),
            _ => PathBuf::from("/run/terrace"),
        }
    }
}

/// Credentials from this command's environment: the only use of the environment.
pub(crate) fn credential_environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| {
            CREDENTIAL_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
        })
        .collect()
}

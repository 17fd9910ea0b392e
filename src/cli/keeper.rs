//! `terrace keeper`: the process that holds the mounts, as a service, as a daemon of `terrace mount`,
//! or in the place of an older one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use nix::poll::{PollFd, PollTimeout, poll};
use terrace_cache::units::{ByteSize, Span};
use terrace_fuse::keeper::{self, KeeperClient, KeeperConfig, RunDir, WorkerCommand};

use super::{CREDENTIAL_PREFIXES, DEFAULT_HOT, Failure, Global, guard};
use crate::node::config::{Config, NodeConfig};
use crate::node::priority;

/// How long a new keeper may take until it answers, its worker included for an upgrade.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long one question to a keeper may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A worker that answers no ping for so long is replaced.
const HANG_AFTER: Duration = Duration::from_secs(30);

/// Hold the mounts of one hot directory; runs in the foreground.
#[derive(Debug, Args)]
#[command(
    after_long_help = "SIGTERM or SIGINT removes every mount (busy ones lazily) and ends; a \
    second one leaves the mounts to the worker, which serves on until another keeper starts.\n\n\
    Planned upgrade, unnoticed by applications: run `terrace keeper --upgrade` with the new binary, \
    or start the new version's service with --take-over."
)]
pub(crate) struct KeeperArgs {
    /// Directory of the hot tier [default: that of the configuration, else /var/cache/terrace]
    #[arg(long, value_name = "DIR")]
    hot: Option<PathBuf>,
    /// Budget of the hot tier
    #[arg(long, value_name = "SIZE")]
    hot_size: Option<ByteSize>,
    /// Without a worker for so long, mounts are aborted so that nothing hangs [default: 1m]
    #[arg(long, value_name = "TIME")]
    abort_after: Option<Span>,
    /// Stay when the last mount is gone (for services)
    #[arg(long)]
    stay: bool,
    /// Take the place of a running keeper instead of failing
    #[arg(long)]
    take_over: bool,
    /// Replace a running keeper and its worker by this binary, in the background; returns when the
    /// new worker serves
    #[arg(long)]
    upgrade: bool,
    /// Be the first process of a container: start the keeper, and start it again when it crashes, so that
    /// its worker and the mounts outlive it
    #[arg(long, conflicts_with_all = ["upgrade", "daemon"])]
    guard: bool,
    /// Keep the configuration of the keeper that is replaced
    #[arg(long, hide = true, requires = "take_over")]
    inherit: bool,
    /// Leave the caller's session
    #[arg(long, hide = true)]
    daemon: bool,
    /// Program to start as the worker, for tests of workers that do not come up
    #[arg(long, hide = true, value_name = "FILE")]
    worker_program: Option<PathBuf>,
}

pub(crate) fn run(args: &KeeperArgs, global: &Global) -> Result<(), Failure> {
    if args.guard {
        return Ok(guard::guard(std::env::args_os().skip(1))?);
    }
    let config = node_config(global, args.hot.as_deref(), args.hot_size)?;
    let run = RunDir::for_hot(&global.run_base(), &config.cache.hot.dir)
        .context("make the run directory")?;
    if args.upgrade {
        return Ok(upgrade(&run, &config, global)?);
    }
    if args.daemon {
        nix::unistd::setsid().context("leave the session")?;
    }
    // The keeper holds what everything else depends on and needs little memory.
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-900") {
        tracing::debug!(%error, "not protected from the out-of-memory killer");
    }
    let mut arguments = log_arguments(global);
    arguments.push("node".to_owned());
    if let Some(usual) = priority::raise_keeper() {
        arguments.push(format!("--nice={}", usual.nice));
        let group = usual.group;
        arguments.extend(group.map(|group| format!("--group-nice={group}")));
    }
    let node = serde_json::to_value(&config).context("encode the configuration")?;
    let keeper = KeeperConfig {
        run,
        worker: WorkerCommand {
            program: args
                .worker_program
                .clone()
                .unwrap_or_else(|| "/proc/self/exe".into()),
            arguments,
            before: Some(priority::raise_session),
        },
        node: (!args.inherit).then_some(node),
        abort_after: args.abort_after.unwrap_or(config.node.abort_after).0,
        hang_after: HANG_AFTER,
        stay: args.stay,
        take_over: args.take_over,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let end =
        keeper::run(keeper).with_context(|| format!("keep {}", config.cache.hot.dir.display()))?;
    tracing::info!(?end, "keeper ends");
    Ok(())
}

/// The configuration of a worker: file, then flags.
pub(super) fn node_config(
    global: &Global,
    hot: Option<&Path>,
    hot_size: Option<ByteSize>,
) -> anyhow::Result<NodeConfig> {
    let mut config = Config::load(global.config.as_deref())?;
    let dir = hot.map_or_else(|| config.cache.hot.dir.clone(), Path::to_owned);
    let dir = if dir.as_os_str().is_empty() {
        PathBuf::from(DEFAULT_HOT)
    } else {
        dir
    };
    config.cache.hot.dir = std::path::absolute(&dir)
        .with_context(|| format!("use the hot directory {}", dir.display()))?;
    config.cache.hot.size = hot_size.or(config.cache.hot.size);
    config
        .check()
        .context("check the configuration with --hot-size")?;
    Ok(config)
}

fn log_arguments(global: &Global) -> Vec<String> {
    let format = clap::ValueEnum::to_possible_value(&global.log_format);
    let format = format.map_or_else(String::new, |value| value.get_name().to_owned());
    vec![
        "--log".into(),
        global.log.clone(),
        "--log-format".into(),
        format,
    ]
}

/// Connects to the keeper of a run directory, starting one when there is none.
pub(super) fn find_or_start(
    run: &RunDir,
    config: &NodeConfig,
    global: &Global,
    limit: Duration,
) -> anyhow::Result<KeeperClient> {
    match KeeperClient::connect(run, limit) {
        Ok(client) => return Ok(client),
        Err(keeper::ClientError::Absent) => {}
        Err(error) => return Err(error).context("reach the keeper"),
    }
    start(run, config, global, &[])?;
    KeeperClient::connect(run, limit).context("reach the keeper that was just started")
}

fn upgrade(run: &RunDir, config: &NodeConfig, global: &Global) -> anyhow::Result<()> {
    KeeperClient::connect(run, ANSWER_LIMIT).with_context(|| {
        format!(
            "upgrade the keeper of {}; name its --hot",
            config.cache.hot.dir.display()
        )
    })?;
    start(run, config, global, &["--take-over", "--inherit"])
}

/// Starts a keeper in the background; returns when it answers and, if it takes mounts over, its
/// worker serves them.
fn start(run: &RunDir, config: &NodeConfig, global: &Global, extra: &[&str]) -> anyhow::Result<()> {
    run.create()
        .with_context(|| format!("make {}; try --run-dir", run.path().display()))?;
    let log = run
        .log_file("keeper")
        .context("open the keeper's log file")?;
    let mut command = Command::new("/proc/self/exe");
    command
        .args(log_arguments(global))
        .arg("--run-dir")
        .arg(global.run_base());
    if let Some(file) = &global.config {
        command.arg("--config").arg(std::path::absolute(file)?);
    }
    command
        .args(["keeper", "--daemon", "--hot"])
        .arg(&config.cache.hot.dir);
    if let Some(size) = config.cache.hot.size {
        command.arg("--hot-size").arg(size.to_string());
    }
    // Credentials belong to single mounts and travel over the socket only.
    for (name, _) in std::env::vars_os() {
        if CREDENTIAL_PREFIXES
            .iter()
            .any(|prefix| name.to_string_lossy().starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    let mut child = command
        .args(extra)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/")
        .spawn()
        .context("start the keeper")?;
    let takes_over = !extra.is_empty();
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let answer = KeeperClient::connect(run, ANSWER_LIMIT).and_then(|client| client.status());
        match answer {
            Ok((status, mounts)) => {
                let ours = status.keeper_pid == child.id();
                let serves = mounts.iter().all(|mount| mount.state != "waiting")
                    && status.worker.is_some_and(|worker| worker.ready);
                if !takes_over || ours && serves {
                    return Ok(());
                }
            }
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| log_hint(run));
            }
            Err(_) => {}
        }
        if let Some(status) = child.try_wait()? {
            // Another keeper may have been quicker; then that one answers.
            if takes_over || KeeperClient::connect(run, ANSWER_LIMIT).is_err() {
                bail!(
                    "start the keeper: it ended with {status}; {}",
                    log_hint(run)
                );
            }
        }
        if Instant::now() >= deadline {
            bail!(
                "start the keeper: not ready after {START_LIMIT:?}; {}",
                log_hint(run)
            );
        }
        pause(10);
    }
}

fn log_hint(run: &RunDir) -> String {
    format!(
        "see {} and worker.log beside it",
        run.log_path("keeper").display()
    )
}

/// A keeper tells nobody that it is up, so one asks again after a while.
pub(super) fn pause(milliseconds: u16) {
    let mut nothing: [PollFd<'_>; 0] = [];
    poll(&mut nothing, PollTimeout::from(milliseconds)).ok();
}

//! One Terrace node of a test: hot directory, run directory, mounts, keeper and worker.
//!
//! Dropping it unmounts, ends both processes and removes the files, whatever the test did. A
//! watchdog aborts the node's FUSE connections when a test takes too long: a request that hangs then
//! fails with an error, and the test with it, instead of the whole run.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A test that takes longer is stuck.
const WATCHDOG: Duration = Duration::from_secs(120);

/// A command that takes longer is stuck.
const COMMAND: Duration = Duration::from_secs(60);

/// A node of its own.
pub(crate) struct Node {
    root: TempDir,
    /// Command and arguments that every `terrace` of this node is run through (`nsenter ...`).
    inside: Vec<String>,
    environment: Vec<(String, String)>,
    mounts: Mutex<Vec<PathBuf>>,
    connections: Arc<Mutex<Vec<u32>>>,
    watchdog: Option<(SyncSender<()>, JoinHandle<()>)>,
}

impl Node {
    /// A node with an empty hot tier, on the disk the build output lies on.
    pub(crate) fn new() -> Self {
        Self::inside(&[])
    }

    /// A node whose processes run through a command such as `nsenter --net=...`.
    pub(crate) fn inside(command: &[String]) -> Self {
        Self::watched(command, WATCHDOG)
    }

    /// A node of a test that may take so long.
    pub(crate) fn patient(limit: Duration) -> Self {
        Self::watched(&[], limit)
    }

    fn watched(command: &[String], limit: Duration) -> Self {
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for directory in ["hot", "run"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        let connections = Arc::new(Mutex::new(Vec::<u32>::new()));
        let watched = Arc::clone(&connections);
        let (alive, ended) = sync_channel::<()>(1);
        let thread = std::thread::spawn(move || {
            if ended.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                eprintln!("watchdog: the test is stuck, aborting its mounts");
                for connection in watched.lock().unwrap().iter() {
                    abort(*connection);
                }
            }
        });
        Self {
            root,
            inside: command.to_vec(),
            environment: Vec::new(),
            mounts: Mutex::default(),
            connections,
            watchdog: Some((alive, thread)),
        }
    }

    /// Sets a variable of the environment of every `terrace` of this node.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Directory of the hot tier.
    pub(crate) fn hot(&self) -> PathBuf {
        self.root.path().join("hot")
    }

    /// A directory for the test's own files, removed with the node.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        let path = self.root.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Mounts `source`; the mount point. Panics with the command's words when it fails.
    pub(crate) fn mount(&self, source: &str, options: &[&str]) -> PathBuf {
        let mountpoint = self.mountpoint();
        let (hot, target) = (self.hot(), mountpoint.to_str().unwrap().to_owned());
        let mut arguments = vec!["mount", source, &target, "--hot", hot.to_str().unwrap()];
        arguments.extend_from_slice(options);
        self.succeed(&arguments);
        self.watch(&mountpoint);
        mountpoint
    }

    /// A directory to mount on. What is mounted there goes with the node.
    pub(crate) fn mountpoint(&self) -> PathBuf {
        let mut mounts = self.mounts.lock().unwrap();
        let mountpoint = self.scratch(&format!("mount-{}", mounts.len()));
        mounts.push(mountpoint.clone());
        mountpoint
    }

    /// Puts what is mounted there under the watchdog.
    pub(crate) fn watch(&self, mountpoint: &Path) {
        let device = fs::metadata(mountpoint).unwrap().dev();
        let minor = nix::sys::stat::minor(device);
        self.connections
            .lock()
            .unwrap()
            .push(u32::try_from(minor).unwrap());
    }

    /// Runs `terrace ...`; what it printed. Panics when it fails.
    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.terrace(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "terrace {arguments:?}: {}: {said}",
            output.status
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `terrace ...` to its end.
    pub(crate) fn terrace(&self, arguments: &[&str]) -> Output {
        // Files and not pipes: a daemon that keeps its starter's output open must not block the test.
        let [out, err] = ["out", "err"].map(|name| self.root.path().join(name));
        let mut child = self
            .command(arguments)
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + COMMAND;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("terrace {arguments:?} did not end within {COMMAND:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Output {
            status,
            stdout: fs::read(out).unwrap(),
            stderr: fs::read(err).unwrap(),
        }
    }

    /// `terrace ...` of this node, to be started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let run_dir = self.root.path().join("run");
        let mut words = self.inside.clone();
        words.extend([
            env!("CARGO_BIN_EXE_terrace").to_owned(),
            "--log".to_owned(),
            "warn".to_owned(),
        ]);
        words.extend(["--run-dir".to_owned(), run_dir.to_str().unwrap().to_owned()]);
        words.extend(arguments.iter().map(|word| (*word).to_owned()));
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// The document of `terrace status --json`.
    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.succeed(&["status", "--json"])).unwrap()
    }

    /// Process id of `keeper` or `worker`, when it runs.
    pub(crate) fn pid(&self, process: &str) -> Option<i32> {
        let output = self.terrace(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        i32::try_from(status[process]["pid"].as_i64()?).ok()
    }

    /// Ends the worker as a crash does, once there is one; when it was ended.
    pub(crate) fn kill_worker(&self) -> Instant {
        let pid = self.worker();
        let moment = Instant::now();
        kill(pid);
        moment
    }

    /// Ends the worker as soon as `now` says so, or after `patience`; whether it did say so.
    pub(crate) fn kill_worker_when(&self, now: impl Fn() -> bool, patience: Duration) -> bool {
        let pid = self.worker();
        let deadline = Instant::now() + patience;
        let mut hit = now();
        while !hit && Instant::now() < deadline {
            hit = now();
        }
        kill(pid);
        hit
    }

    fn worker(&self) -> i32 {
        let deadline = Instant::now() + COMMAND;
        loop {
            match self.pid("worker") {
                Some(pid) => return pid,
                None => assert!(Instant::now() < deadline, "no worker was started"),
            }
        }
    }

    fn take_down(&self) {
        let processes: Vec<i32> = ["keeper", "worker"]
            .iter()
            .filter_map(|name| self.pid(name))
            .collect();
        for mountpoint in self.mounts.lock().unwrap().drain(..).rev() {
            if is_mounted(&mountpoint) {
                self.terrace(&["umount", mountpoint.to_str().unwrap()]);
            }
            if is_mounted(&mountpoint) {
                let _ = nix::mount::umount2(&mountpoint, nix::mount::MntFlags::MNT_DETACH);
            }
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while processes.iter().any(|pid| is_running(*pid)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        for pid in processes.into_iter().filter(|pid| is_running(*pid)) {
            kill(pid);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A test that has failed already must not abort the run by failing again here.
        let taken_down =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.take_down()));
        if taken_down.is_err() {
            eprintln!("the node could not be taken down cleanly");
        }
        if let Some((alive, thread)) = self.watchdog.take() {
            drop(alive);
            let _ = thread.join();
        }
    }
}

/// Aborts a FUSE connection: every request of it fails.
pub(crate) fn abort(connection: u32) {
    let _ = fs::write(format!("/sys/fs/fuse/connections/{connection}/abort"), "1");
}

/// Whether something is mounted exactly there.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts
        .lines()
        .any(|line| line.split(' ').nth(4) == path.to_str())
}

/// Whether a Terrace process of that id runs (and is not a zombie).
pub(crate) fn is_running(pid: i32) -> bool {
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.contains("terrace")
}

fn kill(pid: i32) {
    let _ = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    );
}

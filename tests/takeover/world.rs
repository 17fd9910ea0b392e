//! One node of a test, and everything it starts: ended by pid and unmounted when it is dropped, also
//! after a panic. A watchdog ends the mounts of a test that takes too long.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A test that takes longer is stuck.
const WATCHDOG: Duration = Duration::from_secs(600);

/// Anything that is waited for takes less.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends the test with a skip line when this machine cannot mount.
macro_rules! need_mount {
    ($test:literal) => {
        if !nix::unistd::geteuid().is_root() || std::fs::File::open("/dev/fuse").is_err() {
            println!("SKIP {}: needs root and /dev/fuse", $test);
            return;
        }
    };
}

pub(crate) use need_mount;

/// A node with directories of its own.
#[derive(Debug)]
pub(crate) struct World {
    root: tempfile::TempDir,
    /// Command and arguments that every `terrace` is run through (`nsenter ...`).
    inside: Vec<String>,
    children: Mutex<Vec<Child>>,
    mounts: Mutex<Vec<PathBuf>>,
    watchdog: Option<(SyncSender<()>, JoinHandle<()>)>,
}

impl World {
    /// Directories only; the first mount starts the rest.
    pub(crate) fn start() -> Self {
        Self::inside(&[])
    }

    /// The same, its processes run through a command such as `nsenter --net=...`.
    pub(crate) fn inside(command: &[String]) -> Self {
        let place = std::env::var_os("TERRACE_TEST_DIR");
        let place = place.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
        let root = tempfile::tempdir_in(place).unwrap();
        let place = root.path().to_owned();
        let (sender, ended) = sync_channel(1);
        let thread = std::thread::spawn(move || {
            if ended.recv_timeout(WATCHDOG) == Err(RecvTimeoutError::Timeout) {
                eprintln!("the test is stuck: its processes are ended");
                end_processes(&place);
            }
        });
        let world = Self {
            root,
            inside: command.to_vec(),
            children: Mutex::default(),
            mounts: Mutex::default(),
            watchdog: Some((sender, thread)),
        };
        for directory in ["hot", "run", "source"] {
            world.scratch(directory);
        }
        world
    }

    /// A directory of this test.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        let path = self.root.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// What is mounted.
    pub(crate) fn source(&self) -> PathBuf {
        self.root.path().join("source")
    }

    /// [`World::source`] as a URL.
    pub(crate) fn source_url(&self) -> String {
        format!("file://{}", self.source().display())
    }

    /// The hot directory.
    pub(crate) fn hot(&self) -> PathBuf {
        self.root.path().join("hot")
    }

    fn binary() -> PathBuf {
        PathBuf::from(env!("CARGO_BIN_EXE_terrace"))
    }

    /// The same program as another file, as after the installation of a new version.
    pub(crate) fn new_binary(&self, number: usize) -> PathBuf {
        let path = self.scratch("versions").join(format!("terrace-{number}"));
        fs::copy(Self::binary(), &path).unwrap();
        path
    }

    fn command(&self, binary: &Path) -> Command {
        let mut words = self
            .inside
            .iter()
            .map(AsRef::as_ref)
            .chain([binary.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .arg("--run-dir")
            .arg(self.root.path().join("run"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end: status and what it said.
    fn execute(&self, binary: &Path, arguments: &[&str]) -> (i32, String) {
        let said = tempfile::NamedTempFile::new_in(self.root.path()).unwrap();
        let mut child = self
            .command(binary)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(said.reopen().unwrap())
            .spawn()
            .unwrap();
        let mut status = None;
        wait_for("the command's end", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        let text = fs::read_to_string(said.path()).unwrap();
        (status.unwrap().code().unwrap_or(-1), text)
    }

    /// Runs a command that must succeed with a given binary.
    pub(crate) fn run_with(&self, binary: &Path, arguments: &[&str]) {
        let (status, said) = self.execute(binary, arguments);
        assert_eq!(status, 0, "terrace {arguments:?}: {said}");
    }

    /// Mounts; the mount point.
    pub(crate) fn mount(&self, source: &str, options: &[&str]) -> PathBuf {
        let mountpoint = self.mountpoint();
        let (status, said) = self.try_mount(source, &mountpoint, options);
        assert_eq!(status, 0, "mount: {said}\n{}", self.logs());
        mountpoint
    }

    fn mountpoint(&self) -> PathBuf {
        let number = self.mounts.lock().unwrap().len();
        let mountpoint = self.scratch(&format!("mount{number}"));
        self.mounts.lock().unwrap().push(mountpoint.clone());
        mountpoint
    }

    /// Mounts or not: status and what was said.
    pub(crate) fn try_mount(
        &self,
        source: &str,
        mountpoint: &Path,
        options: &[&str],
    ) -> (i32, String) {
        let hot = self.hot();
        let mut arguments = vec!["mount", source, mountpoint.to_str().unwrap(), "--hot"];
        arguments.push(hot.to_str().unwrap());
        arguments.extend_from_slice(options);
        self.execute(&Self::binary(), &arguments)
    }

    /// `terrace mount --foreground`, running.
    pub(crate) fn mount_in_foreground(&self) -> (PathBuf, Child) {
        let mountpoint = self.mountpoint();
        let child = self
            .command(&Self::binary())
            .args([
                "mount",
                "--foreground",
                &self.source_url(),
                mountpoint.to_str().unwrap(),
            ])
            .arg("--hot")
            .arg(self.hot())
            .spawn()
            .unwrap();
        (mountpoint, child)
    }

    /// Unmounts.
    pub(crate) fn umount(&self, mountpoint: &Path) {
        self.run_with(&Self::binary(), &["umount", mountpoint.to_str().unwrap()]);
    }

    fn run_directory(&self) -> Option<PathBuf> {
        let mut entries = fs::read_dir(self.root.path().join("run")).ok()?;
        entries.next()?.ok().map(|entry| entry.path())
    }

    /// Pid of the worker; 0 without one.
    pub(crate) fn worker(&self) -> i32 {
        let pid = || -> Option<i32> {
            let text = fs::read_to_string(self.run_directory()?.join("worker.pid")).ok()?;
            text.split(' ').next()?.parse().ok()
        };
        pid().unwrap_or(0)
    }

    /// Pid of the keeper; 0 without one.
    pub(crate) fn keeper(&self) -> i32 {
        let keeper = |pid: &i32| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments
                .split(|byte| *byte == 0)
                .any(|word| word == b"keeper")
        };
        self.processes().into_iter().rfind(keeper).unwrap_or(0)
    }

    /// Keepers and workers of this test, the youngest last.
    pub(crate) fn processes(&self) -> Vec<i32> {
        processes(self.root.path())
    }

    /// Sends a signal to a process of this test.
    pub(crate) fn signal(&self, pid: i32, signal: Signal) {
        assert!(pid > 1, "no such process");
        kill(Pid::from_raw(pid), signal).ok();
    }

    /// Starts a keeper whose workers can be made unable to start.
    pub(crate) fn start_breakable_keeper(&self, abort_after: &str) {
        let script = self.root.path().join("worker.sh");
        let broken = self.root.path().join("broken");
        fs::remove_file(&broken).ok();
        let text = format!(
            "#!/bin/sh\n[ -e '{}' ] && exit 7\nexec '{}' \"$@\"\n",
            broken.display(),
            Self::binary().display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let log = File::create(self.root.path().join("keeper.log")).unwrap();
        let child = self
            .command(&Self::binary())
            .args(["keeper", "--abort-after", abort_after, "--worker-program"])
            .arg(script)
            .arg("--hot")
            .arg(self.hot())
            .stderr(log)
            .spawn()
            .unwrap();
        self.children.lock().unwrap().push(child);
        wait_for("the keeper", || {
            self.run_directory()
                .is_some_and(|run| run.join("keeper.sock").exists())
        });
    }

    /// The worker dies and none can start.
    pub(crate) fn break_worker(&self) {
        fs::write(self.root.path().join("broken"), "").unwrap();
        self.signal(self.worker(), Signal::SIGKILL);
    }

    /// Workers can start again.
    pub(crate) fn repair_worker(&self) {
        fs::remove_file(self.root.path().join("broken")).unwrap();
    }

    /// What keeper and worker said, for the message of a failed test.
    pub(crate) fn logs(&self) -> String {
        let Some(run) = self.run_directory() else {
            return String::new();
        };
        let log = |name: &str| fs::read_to_string(run.join(name)).unwrap_or_default();
        let text = log("keeper.log") + &log("worker.log");
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        let mounts = std::mem::take(&mut *self.mounts.lock().unwrap());
        for mountpoint in mounts.iter().filter(|path| is_mounted(path)) {
            umount2(mountpoint, MntFlags::MNT_DETACH).ok();
        }
        end_processes(self.root.path());
        for child in self.children.lock().unwrap().iter_mut() {
            child.kill().ok();
            child.wait().ok();
        }
        if let Some((sender, thread)) = self.watchdog.take() {
            drop(sender);
            thread.join().ok();
        }
    }
}

/// Processes whose directories are below `root`: keepers name it, workers have their log there.
fn processes(root: &Path) -> Vec<i32> {
    let run = root.join("run");
    let belongs = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let log = fs::read_link(format!("/proc/{pid}/fd/2")).unwrap_or_default();
        let words: Vec<_> = words.split(|byte| *byte == 0).collect();
        let daemon = words
            .iter()
            .any(|word| *word == b"keeper" || *word == b"node");
        let named = words
            .iter()
            .any(|word| *word == run.as_os_str().as_encoded_bytes());
        daemon && (named || log.starts_with(&run))
    };
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut pids: Vec<i32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.retain(belongs);
    pids.sort_unstable();
    pids
}

fn end_processes(root: &Path) {
    // A keeper may start one more worker while it is being ended.
    for _ in 0..3 {
        for pid in processes(root) {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether something is mounted exactly there.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts
        .lines()
        .any(|line| line.split(' ').nth(4) == path.to_str())
}

/// Whether a process runs (a zombie does not).
pub(crate) fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Waits until something has happened; fails when it takes too long.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

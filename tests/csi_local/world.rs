//! A disk on a loop device, a kubelet's directory, and the driver in one process or two.
//!
//! Dropping it ends the driver and takes every mount below its directory down.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use terrace_csi::mount_table;
use terrace_csi::wire::controller_client::ControllerClient;
use terrace_csi::wire::node_client::NodeClient;
use terrace_csi::wire::volume_capability::access_mode::Mode;
use terrace_csi::wire::volume_capability::{AccessMode, AccessType, MountVolume};
use terrace_csi::wire::*;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::Channel;

/// Longest time for anything, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(100);

/// Size of the disk; sparse.
const DISK: u64 = 6 << 30;

pub(crate) const MIB: i64 = 1 << 20;

pub(crate) struct World {
    pub(crate) runtime: Runtime,
    directory: tempfile::TempDir,
    drivers: Vec<Child>,
}

impl World {
    /// Drivers of these roles; `None`, with a line that says why, where this machine has no such disk.
    pub(crate) fn new(test: &str, roles: &[&str]) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let (image, disk) = (
            directory.path().join("image"),
            directory.path().join("disk"),
        );
        for name in ["disk", "kubelet", "kubelet/pods"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        File::create(&image).unwrap().set_len(DISK).unwrap();
        let made = run("mkfs.btrfs", &["-q".as_ref(), image.as_ref()])
            .and_then(|()| run("mount", &["-oloop".as_ref(), image.as_ref(), disk.as_ref()]));
        if let Err(why) = made {
            println!("SKIP {test}: no btrfs on a loop device here: {why}");
            return None;
        }
        let mut world = Self {
            runtime: Runtime::new().unwrap(),
            directory,
            drivers: Vec::new(),
        };
        world.start(roles);
        Some(world)
    }

    /// Starts drivers; returns when they listen.
    pub(crate) fn start(&mut self, roles: &[&str]) {
        self.start_with(roles, &[]);
    }

    /// The same, with more arguments.
    pub(crate) fn start_with(&mut self, roles: &[&str], more: &[&str]) {
        for role in roles {
            let path = |name: &str| self.directory.path().join(name);
            let log = File::create(path(&format!("{role}.log"))).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_terrace"));
            command.args([
                "csi",
                "--driver",
                "local",
                "--role",
                role,
                "--node-id",
                "node-1",
            ]);
            command
                .arg("--endpoint")
                .arg(format!("unix://{}", self.socket(role).display()));
            command
                .arg("--kubelet-dir")
                .arg(self.kubelet())
                .arg("--state")
                .arg(path("state"));
            command.arg("--scratch").arg(path("disk/scratch"));
            command
                .arg("--scratch-mount")
                .arg(path("disk").canonicalize().unwrap());
            command.args(["--scratch-keep-free", "64MiB"]).args(more);
            command
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log);
            // Kept before it is waited for: a driver that does not come up is ended, too.
            self.drivers.push(command.spawn().unwrap());
            let begun = Instant::now();
            while std::os::unix::net::UnixStream::connect(self.socket(role)).is_err() {
                let ended = self.drivers.last_mut().unwrap().try_wait().unwrap();
                let said = || fs::read_to_string(path(&format!("{role}.log"))).unwrap();
                assert!(ended.is_none() && begun.elapsed() < PATIENCE, "{}", said());
                self.pause(20);
            }
        }
    }

    /// Ends every driver as a crash does.
    pub(crate) fn kill(&mut self) {
        for mut child in self.drivers.drain(..) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// A crash, and the driver that comes after it.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.start(&["all"]);
    }

    pub(crate) fn socket(&self, role: &str) -> PathBuf {
        self.directory.path().join(format!("{role}.sock"))
    }

    pub(crate) fn kubelet(&self) -> PathBuf {
        self.directory
            .path()
            .canonicalize()
            .unwrap()
            .join("kubelet")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Mounts below the kubelet's directory.
    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let table = mount_table().unwrap().into_iter();
        let ours = table.filter(|entry| entry.target.starts_with(self.kubelet()));
        ours.map(|entry| entry.target).collect()
    }

    /// Names in a directory of the base directory.
    pub(crate) fn names(&self, below: &str) -> Vec<String> {
        let listing = fs::read_dir(self.file("disk/scratch").join(below)).unwrap();
        listing
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// Waits until something is so.
    pub(crate) fn eventually(&self, what: &str, mut so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !so() {
            assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
            self.pause(50);
        }
    }

    fn pause(&self, milliseconds: u64) {
        let pause = async { tokio::time::sleep(Duration::from_millis(milliseconds)).await };
        self.runtime.block_on(pause);
    }

    async fn channel(&self, role: &str) -> Channel {
        let uri = format!("unix:{}", self.socket(role).display());
        let endpoint = tonic::transport::Endpoint::from_shared(uri).unwrap();
        endpoint.timeout(PATIENCE).connect().await.unwrap()
    }

    pub(crate) async fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel("all").await)
    }

    pub(crate) async fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel("all").await)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for mut child in self.drivers.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let ours = self.directory.path().canonicalize().unwrap();
        for entry in mount_table().unwrap().iter().rev() {
            if entry.target.starts_with(&ours) {
                let _ = umount2(&entry.target, MntFlags::MNT_DETACH);
            }
        }
    }
}

pub(crate) fn capability(mode: Mode) -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}

pub(crate) fn create_request(name: &str, bytes: i64) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(CapacityRange {
            required_bytes: bytes,
            limit_bytes: 0,
        }),
        volume_capabilities: vec![capability(Mode::SingleNodeMultiWriter)],
        parameters: [("scratch".to_owned(), "true".to_owned())].into(),
        ..CreateVolumeRequest::default()
    }
}

/// Makes a call again while it is told that another one is under way.
pub(crate) async fn patiently<T>(
    mut call: impl AsyncFnMut() -> Result<T, Status>,
) -> Result<T, Status> {
    loop {
        match call().await {
            Err(status) if status.code() == tonic::Code::Aborted => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            done => return done,
        }
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> Result<(), String> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let output = command
        .output()
        .map_err(|why| format!("{program}: {why}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

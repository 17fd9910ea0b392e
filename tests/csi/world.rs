//! A catalog with one dataset, a node with its keeper, and the driver in one process or two.
//!
//! Dropping it ends the driver, unmounts what is left below the kubelet's directory, and takes the node
//! and the catalog down.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use terrace_csi::wire::controller_client::ControllerClient;
use terrace_csi::wire::node_client::NodeClient;
use terrace_csi::wire::volume_capability::access_mode::Mode;
use terrace_csi::wire::volume_capability::{AccessMode, AccessType, MountVolume};
use terrace_csi::wire::{
    CreateVolumeRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, Volume, VolumeCapability,
};
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::Channel;

use crate::served::Served;
use crate::support::data::noise;
use crate::support::node::Node;

/// Longest time for anything, on a machine that does other things too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(100);

/// Files of the dataset, by name.
pub(crate) const FILES: [(&str, usize); 3] = [("a.bin", 100_000), ("b.bin", 1), ("c.bin", 1 << 20)];

/// The one tenant that the node knows.
pub(crate) const TENANT: &str = "vision";

pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) served: Served,
    drivers: Vec<(&'static str, Child)>,
    keeper: Child,
    pub(crate) node: Node,
    extra: Vec<String>,
}

impl World {
    /// One driver for controller and node.
    pub(crate) fn new() -> Self {
        Self::with(&["all"], &[])
    }

    /// Drivers of these roles, each with these options besides the usual ones.
    pub(crate) fn with(roles: &[&'static str], extra: &[&str]) -> Self {
        let served = Served::start();
        let node = Node::patient(3 * PATIENCE);
        publish(&served);
        let keeper = spawn_keeper(&node);
        fs::create_dir_all(node.scratch("kubelet").join("pods")).unwrap();
        let mut world = Self {
            runtime: Runtime::new().unwrap(),
            served,
            drivers: Vec::new(),
            keeper,
            node,
            extra: extra.iter().map(ToString::to_string).collect(),
        };
        world.keeper_answers();
        for role in roles {
            world.start(role);
        }
        world
    }

    fn keeper_answers(&self) {
        eventually("the keeper answers", || self.node.pid("keeper").is_some());
    }

    /// Ends keeper and worker as a crash of the machine's memory does: both at once.
    pub(crate) fn lose_daemon(&mut self) {
        let worker = self.node.pid("worker").unwrap();
        self.keeper.kill().unwrap();
        let worker = nix::unistd::Pid::from_raw(worker);
        nix::sys::signal::kill(worker, nix::sys::signal::Signal::SIGKILL).unwrap();
        self.keeper.wait().unwrap();
    }

    pub(crate) fn start_keeper(&mut self) {
        self.keeper = spawn_keeper(&self.node);
        self.keeper_answers();
    }

    /// Starts a driver; returns when its socket is there.
    pub(crate) fn start(&mut self, role: &'static str) {
        let socket = self.socket(role);
        let endpoint = format!("unix://{}", socket.display());
        let paths = [
            self.node.scratch("state"),
            self.kubelet(),
            self.node.hot(),
            self.served.token_file(),
            self.shared(),
        ];
        let [state, kubelet, hot, token, shared] =
            paths.each_ref().map(|path| path.to_str().unwrap());
        let mut words = vec![
            "csi",
            "--endpoint",
            &endpoint,
            "--driver",
            "data",
            "--role",
            role,
            "--node-id",
            "node-1",
        ];
        words.extend(["--state", state, "--kubelet-dir", kubelet, "--hot", hot]);
        words.extend(["--catalog", self.served.url(), "--token-file", token]);
        words.extend(["--directories", shared]);
        words.extend(self.extra.iter().map(String::as_str));
        // Everything that a log can say, for the test of what it must not say.
        let run_dir = self.node.scratch("run");
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrace"));
        command.args(["--log", "debug", "--run-dir"]).arg(run_dir);
        command.args(words);
        let log = self.log(role);
        let mut child = spawn(command, &log);
        eventually("the driver listens", || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{}", fs::read_to_string(&log).unwrap());
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        self.drivers.push((role, child));
    }

    /// Ends every driver as a crash does.
    pub(crate) fn kill(&mut self) {
        for (_, mut child) in self.drivers.drain(..) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Ends and starts the driver of all roles.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.start("all");
    }

    pub(crate) fn socket(&self, role: &str) -> PathBuf {
        self.node.scratch("sockets").join(format!("{role}.sock"))
    }

    /// What a driver has logged, as a file.
    pub(crate) fn log(&self, role: &str) -> PathBuf {
        self.node.scratch("logs").join(role)
    }

    pub(crate) fn kubelet(&self) -> PathBuf {
        self.node.scratch("kubelet")
    }

    /// What stands for a shared file system: the one directory that the driver may serve.
    pub(crate) fn shared(&self) -> PathBuf {
        self.node.scratch("shared")
    }

    /// Where a kubelet stages a volume.
    pub(crate) fn staging(&self, name: &str) -> PathBuf {
        let directory = self.kubelet().join("plugins/kubernetes.io/csi").join(name);
        fs::create_dir_all(&directory).unwrap();
        directory.join("globalmount")
    }

    /// Where a kubelet wants a volume of a pod; it makes the parent only.
    pub(crate) fn target(&self, pod: &str) -> PathBuf {
        let volumes = format!("pods/{pod}/volumes/kubernetes.io~csi/pv");
        let directory = self.kubelet().join(volumes);
        fs::create_dir_all(&directory).unwrap();
        directory.join("mount")
    }

    pub(crate) fn channel(&self) -> Channel {
        let uri = format!("unix:{}", self.socket("all").display());
        let endpoint = tonic::transport::Endpoint::try_from(uri).unwrap();
        // A driver that was just started again has another socket behind the name.
        self.runtime.block_on(endpoint.connect()).unwrap()
    }

    pub(crate) fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel())
    }

    pub(crate) fn client(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel())
    }

    pub(crate) fn create(&self, name: &str, more: &[(&str, &str)]) -> Result<Volume, Status> {
        let mut controller = self.controller();
        let request = create_request(name, more);
        let made = self.runtime.block_on(controller.create_volume(request))?;
        Ok(made.into_inner().volume.unwrap())
    }

    pub(crate) fn stage(&self, request: &NodeStageVolumeRequest) -> Result<(), Status> {
        let mut client = self.client();
        let staged = client.node_stage_volume(request.clone());
        self.runtime.block_on(staged).map(drop)
    }

    pub(crate) fn publish(&self, request: &NodePublishVolumeRequest) -> Result<(), Status> {
        let mut client = self.client();
        let published = client.node_publish_volume(request.clone());
        self.runtime.block_on(published).map(drop)
    }

    pub(crate) fn unpublish(&self, volume: &str, target: &Path) -> Result<(), Status> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: volume.to_owned(),
            target_path: text(target),
        };
        let mut client = self.client();
        let done = client.node_unpublish_volume(request);
        self.runtime.block_on(done).map(drop)
    }

    pub(crate) fn unstage(&self, volume: &str, staging: &Path) -> Result<(), Status> {
        let request = NodeUnstageVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: text(staging),
        };
        let mut client = self.client();
        let done = client.node_unstage_volume(request);
        self.runtime.block_on(done).map(drop)
    }

    /// What is mounted below the kubelet's directory.
    pub(crate) fn mounts(&self) -> Vec<String> {
        let kubelet = text(&self.kubelet());
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = table.lines().filter(|line| {
            let target = line.split(' ').nth(4);
            target.is_some_and(|target| target.starts_with(&kubelet))
        });
        below.map(str::to_owned).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for (_, child) in &mut self.drivers {
            let _ = child.kill();
            let _ = child.wait();
        }
        for line in self.mounts().iter().rev() {
            let target = line.split(' ').nth(4).unwrap_or_default();
            let _ = nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH);
        }
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

pub(crate) fn capability(mode: Mode) -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}

/// A volume of the newest version.
pub(crate) fn create_request(name: &str, more: &[(&str, &str)]) -> CreateVolumeRequest {
    let parameters = [("dataset", "ads.clicks")].iter().chain(more);
    CreateVolumeRequest {
        name: name.to_owned(),
        volume_capabilities: vec![capability(Mode::MultiNodeReaderOnly)],
        parameters: parameters
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..CreateVolumeRequest::default()
    }
}

pub(crate) fn stage_request(volume: &Volume, staging: &Path, mode: Mode) -> NodeStageVolumeRequest {
    NodeStageVolumeRequest {
        volume_id: volume.volume_id.clone(),
        staging_target_path: text(staging),
        volume_capability: Some(capability(mode)),
        volume_context: volume.volume_context.clone(),
        ..NodeStageVolumeRequest::default()
    }
}

pub(crate) fn publish_request(
    stage: &NodeStageVolumeRequest,
    target: &Path,
) -> NodePublishVolumeRequest {
    NodePublishVolumeRequest {
        volume_id: stage.volume_id.clone(),
        staging_target_path: stage.staging_target_path.clone(),
        target_path: text(target),
        volume_capability: stage.volume_capability.clone(),
        volume_context: stage.volume_context.clone(),
        readonly: true,
        publish_context: HashMap::new(),
        secrets: HashMap::new(),
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// What the dataset's files hold, read through a directory that shows it.
pub(crate) fn assert_shows(directory: &Path) {
    for (seed, (name, length)) in (0..).zip(FILES) {
        let found = fs::read(directory.join(name)).unwrap();
        assert!(found == noise(seed, length), "{name} has other bytes");
    }
}

pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn spawn(mut command: Command, log: &Path) -> Child {
    let mut options = File::options();
    let log = options.create(true).append(true).open(log).unwrap();
    let out = log.try_clone().unwrap();
    command.stdin(Stdio::null()).stdout(out).stderr(log);
    command.spawn().unwrap()
}

fn spawn_keeper(node: &Node) -> Child {
    let config = node.scratch("config").join("terrace.toml");
    fs::write(&config, format!("[tenants.{TENANT}]\n")).unwrap();
    let (config, hot) = (text(&config), text(&node.hot()));
    let keeper = node.command(&["--config", &config, "keeper", "--stay", "--hot", &hot]);
    spawn(keeper, &node.scratch("logs").join("keeper"))
}

/// Writes the dataset where the catalog watches, and waits until it is a version.
fn publish(served: &Served) {
    let place = served.scratch("lake");
    let table = place.join("ads.db/clicks");
    fs::create_dir_all(&table).unwrap();
    for (seed, (name, length)) in (0..).zip(FILES) {
        fs::write(table.join(name), noise(seed, length)).unwrap();
    }
    served.succeed(&["sync", "add", &format!("file://{}", place.display())]);
    eventually("the dataset has a version", || {
        // Newer than the files, also on a file system whose clock is coarse.
        fs::write(table.join("_SUCCESS"), b"").unwrap();
        let list = served.succeed(&["dataset", "list", "--json"]);
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        let mut all = list.as_array().unwrap().iter();
        all.any(|one| one["name"] == "ads.clicks" && one["latest"] == 1)
    });
}

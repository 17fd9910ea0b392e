//! `terrace up` of a test, with its mount: started, killed, started again, ended. See [`Node`].
//!
//! Dropping it kills the process; keeper, worker and mount go with the node.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::http;
use super::node::{Node, is_mounted, is_running};

/// No start and no end takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module text.
pub(crate) struct Up<'a> {
    node: &'a Node,
    mountpoint: PathBuf,
    process: Child,
    /// `host:port` of the catalog, the same after every start.
    address: String,
}

impl<'a> Up<'a> {
    pub(crate) fn start(node: &'a Node) -> Self {
        let mountpoint = node.mountpoint();
        let (process, address) = spawn(node, &mountpoint, "127.0.0.1:0");
        node.watch(&mountpoint);
        Self {
            node,
            mountpoint,
            process,
            address,
        }
    }

    /// Where the tables are.
    pub(crate) fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Address of the catalog.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The token of its admin.
    pub(crate) fn token(&self) -> String {
        let token = fs::read_to_string(data(self.node).join("token")).unwrap();
        token.trim().to_owned()
    }

    /// Ends the catalog as a crash does. The mount stays.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again, over the mount that is still there.
    pub(crate) fn restart(&mut self) {
        (self.process, self.address) = spawn(self.node, &self.mountpoint, &self.address);
    }

    /// Asks the catalog as its admin; panics unless it says yes.
    pub(crate) fn ask(&self, method: &str, route: &str, body: &serde_json::Value) -> String {
        let token = format!("Bearer {}", self.token());
        let headers = [
            ("Authorization", token.as_str()),
            ("Content-Type", "application/json"),
        ];
        let url = format!("http://{}/api/v1/{route}", self.address);
        let body = body.to_string();
        let (status, said) = http::send(method, &url, &headers, body.as_bytes());
        assert!(
            (200..300).contains(&status),
            "{method} {route}: {status} {said}"
        );
        said
    }

    /// Ends it as its user does; nothing of it may be left.
    pub(crate) fn end(mut self) {
        let processes = ["keeper", "worker"].map(|name| self.node.pid(name).unwrap());
        let own = Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        kill(own, Signal::SIGTERM).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.process.try_wait().unwrap() {
                Some(status) => break status,
                None => pause("terrace up does not end", deadline),
            }
        };
        assert!(status.success(), "terrace up: {status}");
        assert!(!is_mounted(&self.mountpoint), "the mount is left");
        for pid in processes {
            while is_running(pid) {
                pause("a process of the node is left", deadline);
            }
        }
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn pause(what: &str, deadline: Instant) {
    assert!(Instant::now() < deadline, "{what}");
    std::thread::sleep(Duration::from_millis(20));
}

/// What it keeps; made by itself, for its owner only.
fn data(node: &Node) -> PathBuf {
    node.scratch("up").join("data")
}

/// Starts it, and waits for what it says last.
fn spawn(node: &Node, mountpoint: &Path, listen: &str) -> (Child, String) {
    let (data, hot) = (data(node), node.hot());
    let log = node.scratch("up").join("log");
    let paths = [data.as_path(), mountpoint, hot.as_path()].map(|path| path.to_str().unwrap());
    let words = [
        "up", "--data", paths[0], "--mount", paths[1], "--hot", paths[2], "--listen", listen,
    ];
    let mut process = node
        .command(&words)
        .stdout(Stdio::piped())
        .stderr(
            File::options()
                .create(true)
                .append(true)
                .open(&log)
                .unwrap(),
        )
        .spawn()
        .unwrap();
    let mut address = None;
    for line in BufReader::new(process.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        address = address.or_else(|| {
            let (_, address) = line.strip_prefix("catalog")?.split_once("http://")?;
            Some(address.trim().trim_end_matches('/').to_owned())
        });
        if line.starts_with("end") {
            return (process, address.unwrap());
        }
    }
    let _ = process.kill();
    let _ = process.wait();
    panic!("terrace up ended: {}", fs::read_to_string(log).unwrap());
}

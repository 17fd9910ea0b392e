//! A network namespace of a test: another machine, as far as the network is concerned.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Namespaces that this process has made.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A namespace with a loopback device only; ports of the servers are brought in with
/// [`Namespace::forward`]. Removed when dropped.
pub(crate) struct Namespace {
    name: String,
    forwarders: Vec<Child>,
}

impl Namespace {
    /// Makes one. Needs root.
    pub(crate) fn new(name: &str) -> Self {
        // Tests of one process run side by side.
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("terrace-{name}-{}-{number}", std::process::id());
        let made = Self {
            name,
            forwarders: Vec::new(),
        };
        ip(&["netns", "add", &made.name]);
        ip(&["-n", &made.name, "link", "set", "lo", "up"]);
        made
    }

    /// Makes the port of `url` (`http://127.0.0.1:port`) reachable inside, at the same address.
    pub(crate) fn forward(&mut self, url: &str) {
        let port = url.rsplit(':').next().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/forward.py");
        let mut child = Command::new("python3")
            .args([script, &self.name, port])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        self.forwarders.push(child);
        assert_eq!(line.trim(), "ready", "the port was not forwarded");
    }

    /// The command through which a program runs inside, in the test's mount namespace.
    pub(crate) fn enter(&self) -> [String; 2] {
        [
            "nsenter".to_owned(),
            format!("--net=/run/netns/{}", self.name),
        ]
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for child in &mut self.forwarders {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}: {status}");
}

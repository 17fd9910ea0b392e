//! Cold stores of directory volumes: `terrace mount file:///DIR MOUNT --rw --cold URL`, a real kernel
//! mount and a real S3 server.
//!
//! `store` moves contents and looks at them with the programs people use, `faults` takes the store,
//! the worker and the programs away in the middle, `level` is the level `cold` of durability,
//! `commands` is what people type. How one file moves, step by step, is tested beside the code
//! (`fuse/src/directory/tiering`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "other suites use the rest of it")]
mod support;

mod commands;
mod faults;
mod level;
mod store;

use std::fs;
use std::path::{Path, PathBuf};

use support::data::noise;
use support::node::Node;

/// A mounted volume with a cold store.
struct Volume {
    node: Node,
    below: PathBuf,
    mount: PathBuf,
}

impl Volume {
    /// Mounts an empty directory with this cold store.
    fn with(node: Node, cold: &str, options: &[&str]) -> Self {
        let below = node.scratch("below");
        let source = format!("file://{}", below.display());
        let all = [&["--rw", "--cold", cold], options].concat();
        let mount = node.mount(&source, &all);
        Self { node, below, mount }
    }

    /// With a directory of this machine as the cold store.
    fn with_directory(options: &[&str]) -> (Self, PathBuf) {
        let node = Node::new();
        let cold = node.scratch("cold");
        let url = format!("file://{}", cold.display());
        (Self::with(node, &url, options), cold)
    }

    /// Writes a file through the volume.
    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.mount.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// `terrace volume WORD PATH... --json`; the sums of each path.
    fn run(&self, word: &str, paths: &[&Path], options: &[&str]) -> Vec<serde_json::Value> {
        let mut arguments = vec!["volume", word, "--json"];
        arguments.extend(paths.iter().map(|path| path.to_str().unwrap()));
        arguments.extend_from_slice(options);
        let said = self.node.succeed(&arguments);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        said["results"].as_array().unwrap().clone()
    }

    /// Moves what is at these paths; how many files went.
    fn demote(&self, paths: &[&Path]) -> u64 {
        let sums = self.run("demote", paths, &[]);
        sums.iter()
            .map(|sums| sums["moved"].as_u64().unwrap())
            .sum()
    }

    /// A counter of the cold store, as the worker tells it.
    fn cold(&self, name: &str) -> u64 {
        let status = self.node.status();
        status["mounts"][0]["cold"][name].as_u64().unwrap()
    }

    /// The length of the file itself.
    fn length_below(&self, name: &str) -> u64 {
        fs::metadata(self.below.join(name)).unwrap().len()
    }
}

/// Bytes of a file, by its number.
fn bytes_of(number: u64) -> Vec<u8> {
    noise(number, 20_000 + (number as usize * 77_777) % 900_000)
}

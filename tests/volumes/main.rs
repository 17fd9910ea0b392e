//! Directory volumes: `terrace mount file:///DIR MOUNT --rw`, a real kernel mount of a directory on
//! the disk the build output lies on.
//!
//! `posix` runs the POSIX suite, `exerciser` one file with every way to write it, `differential` the
//! same operations here and on a plain directory, `soak` kills workers under writers, `escape` tries
//! to get out, `manners` what no other one sees, `spaces` limits, `holes` what goes through besides
//! names and bytes, `power` a power loss, `pace` measures,
//! `durability` does all of that to staged files. `shared` and `nodes` have GlusterFS below, `stacked`
//! another file system in user space; `copies` looks at what is read from the SSD.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod copies;
mod differential;
#[expect(dead_code, reason = "shared with the tests of the hot tier")]
#[path = "../../cache/tests/hot/disk.rs"]
mod disk;
mod durability;
mod escape;
mod exerciser;
mod holes;
mod manners;
#[expect(dead_code, reason = "shared with tests whose nodes talk to servers")]
#[path = "../support/namespace.rs"]
mod namespace;
mod nodes;
#[path = "../support/numbers.rs"]
mod numbers;
mod pace;
mod posix;
mod power;
mod shared;
mod soak;
mod spaces;
mod stacked;
mod staged_spaces;
#[expect(dead_code, reason = "shared with the tests of read-only mounts")]
#[path = "../takeover/world.rs"]
mod world;

use std::path::{Path, PathBuf};

use world::World;

/// A volume of its own: the directory, and where it is mounted.
struct Volume {
    world: World,
    below: PathBuf,
    mount: PathBuf,
    /// Removes `below`, after the mount is gone, where it is not in the world's own directory.
    _place: Option<tempfile::TempDir>,
}

impl Volume {
    /// Mounts a fresh directory for reading and writing.
    fn new(options: &[&str]) -> Self {
        let world = World::start();
        let below = world.source();
        Self::mounted(world, below, options)
    }

    /// Mounts this directory, on another file system.
    fn below(directory: &Path, options: &[&str]) -> Self {
        Self::mounted(World::start(), directory.to_owned(), options)
    }

    /// Mounts a fresh directory in this one, on another file system.
    fn fresh_below(directory: &Path, options: &[&str]) -> Self {
        let place = tempfile::tempdir_in(directory).unwrap();
        let volume = Self::below(place.path(), options);
        Self {
            _place: Some(place),
            ..volume
        }
    }

    /// A volume whose bytes all go through the daemon.
    fn without_passthrough(options: &[&str]) -> Self {
        let world = World::start();
        let file = world.scratch("config").join("terrace.toml");
        std::fs::write(&file, "[fuse]\npassthrough = false\n").unwrap();
        let below = world.source();
        let all = [&["--config", file.to_str().unwrap()], options].concat();
        Self::mounted(world, below, &all)
    }

    fn mounted(world: World, below: PathBuf, options: &[&str]) -> Self {
        let all = [&["--rw"], options].concat();
        let mount = world.mount(&format!("file://{}", below.display()), &all);
        Self {
            world,
            below,
            mount,
            _place: None,
        }
    }

    /// What `terrace status --json` says about the mount.
    fn status(&self) -> serde_json::Value {
        let asked = std::process::Command::new(env!("CARGO_BIN_EXE_terrace"))
            .arg("--run-dir")
            .arg(self.world.scratch("run"))
            .args(["status", "--json"])
            .output()
            .unwrap();
        let status: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
        status["mounts"][0].clone()
    }
}

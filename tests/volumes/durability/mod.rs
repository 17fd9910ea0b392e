//! Volumes with levels of durability: what is staged on this node's SSD, and what becomes of it.
//!
//! `levels` are the promises one by one, `patterns` what programs do when they save, `faults` a full
//! disk, a directory that refuses, another node, `killed` workers, `power` cuts, `pace` measures,
//! `suite` is the POSIX suite.

mod faults;
mod killed;
mod levels;
mod pace;
mod patterns;
mod power;
mod suite;

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Volume;
use crate::world::{World, wait_for};

/// Everything is staged.
const LOCAL: &str = "fsync=local,close=local";

/// A volume whose files are staged.
struct Staged {
    volume: Volume,
    /// Part of the spool that the directory has.
    spool: PathBuf,
}

impl Staged {
    fn new(rules: &[&str], options: &[&str]) -> Self {
        let mut all: Vec<&str> = rules
            .iter()
            .flat_map(|rule| ["--durability", rule])
            .collect();
        all.extend(["--ttl", "0s"]);
        all.extend(options);
        let volume = Volume::new(&all);
        let named = options
            .iter()
            .skip_while(|option| **option != "--spool")
            .nth(1);
        let spool = named.map_or_else(|| volume.world.scratch("hot-spool"), PathBuf::from);
        let spool = part_of(&spool);
        Self { volume, spool }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.volume.mount.join(name)
    }

    fn below(&self, name: &str) -> PathBuf {
        self.volume.below.join(name)
    }

    fn status(&self) -> Value {
        status(&self.volume.world, &self.volume.mount)
    }

    /// A number of the spool's status.
    fn number(&self, name: &str) -> u64 {
        self.status()["spool"][name].as_u64().unwrap()
    }

    /// `terrace volume flush --level shared` of a path.
    fn flush(&self, path: &Path) -> (bool, String) {
        let path = path.to_str().unwrap();
        ask(
            &self.volume.world,
            &["volume", "flush", "--level", "shared", path],
        )
    }

    /// Waits until nothing is staged any more.
    fn wait_until_drained(&self) {
        wait_for("everything in the directory", || self.number("files") == 0);
    }

    /// Files in `data` of the spool.
    fn data(&self) -> usize {
        fs::read_dir(self.spool.join("data")).unwrap().count()
    }

    /// Files in `lost+found` with what is said about them.
    fn lost(&self) -> Vec<(Vec<u8>, String)> {
        let entries = fs::read_dir(self.spool.join("lost+found")).unwrap();
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "why") {
                let why = fs::read_to_string(format!("{}.why", path.display())).unwrap();
                found.push((fs::read(path).unwrap(), why));
            }
        }
        found
    }
}

/// The one part of a spool.
fn part_of(spool: &Path) -> PathBuf {
    let mut parts = fs::read_dir(spool)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    parts
        .next()
        .expect("the mount has made its part of the spool")
}

/// Runs a command of the node: whether it succeeded, and what it said.
fn ask(world: &World, arguments: &[&str]) -> (bool, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_terrace"))
        .arg("--run-dir")
        .arg(world.scratch("run"))
        .args(arguments)
        .output()
        .unwrap();
    let said = [done.stdout, done.stderr].concat();
    (
        done.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// `terrace volume status --json`.
fn status(world: &World, path: &Path) -> Value {
    let (good, said) = ask(
        world,
        &["volume", "status", "--json", path.to_str().unwrap()],
    );
    assert!(good, "{said}");
    serde_json::from_str(&said).unwrap()
}

/// Value of an extended attribute.
fn attribute(path: &Path, name: &str) -> io::Result<String> {
    let (path, name) = (
        CString::new(path.as_os_str().as_bytes()).unwrap(),
        CString::new(name).unwrap(),
    );
    let mut room = [0_u8; 64];
    // SAFETY: both strings end, and `room` is as long as said.
    let length = unsafe {
        nix::libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            room.as_mut_ptr().cast(),
            room.len(),
        )
    };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    Ok(String::from_utf8_lossy(&room[..length]).into_owned())
}

/// How safe a file is now.
fn durability(path: &Path) -> String {
    attribute(path, "user.terrace.durability").unwrap()
}

/// How many of its bytes are on the SSD only.
fn spooled(path: &Path) -> u64 {
    let bytes = attribute(path, "user.terrace.spooled_bytes").unwrap();
    bytes.parse().unwrap()
}

/// Opens a new file for writing.
fn create(path: &Path) -> File {
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    options.open(path).unwrap()
}

/// What was refused, as a number.
fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

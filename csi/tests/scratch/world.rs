//! A file system of its own for a test, with a base directory and a kubelet's directory on it.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, umount2};
use terrace_csi::scratch::{Expected, NewVolume, QuotaKind, Scratch, ScratchConfig};
use terrace_csi::{Kubelet, Target, VolumeId, mount_table};

pub(crate) const MIB: u64 = 1 << 20;

/// A mounted file system that goes with its world.
pub(crate) struct World {
    directory: tempfile::TempDir,
    pub(crate) mount: PathBuf,
    pub(crate) kubelet: Kubelet,
}

impl World {
    /// A file system of that type on a loop device; `None`, with a line that says why, where this
    /// machine cannot have it.
    pub(crate) fn new(test: &str, fs_type: &str, size: u64) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        let mount = directory.path().join("fs");
        std::fs::create_dir(&mount).unwrap();
        std::fs::File::create(&image)
            .unwrap()
            .set_len(size)
            .unwrap();
        let made = run(
            &format!("mkfs.{fs_type}"),
            &["-q".as_ref(), image.as_os_str()],
        )
        .and_then(|()| {
            run(
                "mount",
                &[
                    "-o".as_ref(),
                    "loop".as_ref(),
                    image.as_os_str(),
                    mount.as_os_str(),
                ],
            )
        });
        if let Err(why) = made {
            println!("SKIP {test}: no {fs_type} on a loop device here: {why}");
            return None;
        }
        Some(Self::on(directory, &mount))
    }

    /// A world on a file system that somebody else mounted.
    pub(crate) fn on(directory: tempfile::TempDir, mount: &Path) -> Self {
        let kubelet = directory.path().join("kubelet");
        std::fs::create_dir(&kubelet).unwrap();
        Self {
            kubelet: Kubelet::open(&kubelet).unwrap(),
            mount: mount.canonicalize().unwrap(),
            directory,
        }
    }

    pub(crate) fn config(&self, kind: Option<QuotaKind>) -> ScratchConfig {
        ScratchConfig {
            expected: Expected {
                mount: Some(self.mount.clone()),
                root: false,
            },
            kind,
            ..ScratchConfig::new(&self.mount.join("scratch"))
        }
    }

    pub(crate) fn open(&self, kind: Option<QuotaKind>) -> Scratch {
        Scratch::open(&self.config(kind)).unwrap()
    }

    /// Mounts a volume below the kubelet's directory.
    pub(crate) fn attach(&self, scratch: &Scratch, id: &VolumeId) -> Target {
        let path = self.kubelet.root().join(format!("pods/{id}/mount"));
        let target = self.kubelet.make(&path).unwrap();
        scratch.attach(id, &target).unwrap();
        scratch.attach(id, &target).unwrap();
        target
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let ours = self.directory.path().canonicalize().unwrap();
        for entry in mount_table().unwrap().iter().rev() {
            if entry.target.starts_with(&ours) {
                let _ = umount2(&entry.target, MntFlags::MNT_DETACH);
            }
        }
    }
}

/// A request for a volume.
pub(crate) fn asked(name: &str, size: u64) -> NewVolume {
    NewVolume {
        name: name.to_owned(),
        size,
        ..NewVolume::default()
    }
}

/// What lies in a directory of the base directory.
pub(crate) fn names(scratch: &Scratch, below: &str) -> Vec<String> {
    let listing = std::fs::read_dir(scratch.base().join(below)).unwrap();
    listing
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Nothing is left of volumes that are gone.
pub(crate) fn assert_empty(scratch: &Scratch) {
    for below in ["volumes", "snapshots", "making", "trash", "ids"] {
        assert_eq!(names(scratch, below), Vec::<String>::new(), "{below}");
    }
    assert!(names(scratch, "records").iter().all(|name| name == "LOCK"));
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> Result<(), String> {
    let path = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .output();
    let output = output.map_err(|why| format!("{program}: {why}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

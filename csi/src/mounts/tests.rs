//! Targets below the kubelet's directory, against links and swaps; the lines of mountinfo.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::table::parse_line;
use super::*;

/// A kubelet's directory and a place outside it.
struct World {
    _directory: tempfile::TempDir,
    kubelet: Kubelet,
    outside: PathBuf,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        std::fs::create_dir(base.join("kubelet")).unwrap();
        std::fs::create_dir(base.join("outside")).unwrap();
        std::fs::write(base.join("outside/sentinel"), "untouched").unwrap();
        Self {
            kubelet: Kubelet::open(&base.join("kubelet")).unwrap(),
            outside: base.join("outside"),
            _directory: directory,
        }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.kubelet.root().join(below)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for entry in mount_table().unwrap().iter().rev() {
            if entry.target.starts_with(self.kubelet.root()) {
                let _ = umount2(&entry.target, MntFlags::MNT_DETACH);
            }
        }
    }
}

/// Whether this process may mount at all.
fn cannot_mount(test: &str) -> bool {
    let may = nix::unistd::geteuid().is_root() && {
        let probe = tempfile::tempdir().unwrap();
        let made = mount(
            Some("none"),
            probe.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            NONE,
        );
        made.is_ok() && umount2(probe.path(), MntFlags::MNT_DETACH).is_ok()
    };
    if !may {
        println!("SKIP {test}: this process may not mount");
    }
    !may
}

// A line read wrongly makes the driver unmount the wrong thing, or nothing.
#[test]
fn mountinfo_lines_are_understood() {
    let line =
        br"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:2 - ext3 /dev/r\134t rw,prjquota";
    let entry = parse_line(line).unwrap();
    assert_eq!(entry.id, 36);
    assert_eq!(entry.device, (98, 0));
    assert_eq!(entry.root, Path::new("/mnt1"));
    assert_eq!(entry.target, Path::new("/mnt 2"));
    assert_eq!(entry.fs_type, "ext3");
    assert_eq!(entry.source, r"/dev/r\t");
    assert!(entry.has_option("noatime") && entry.has_option("prjquota"));
    assert!(!entry.has_option("quota"));
    for junk in [
        &b""[..],
        b"1",
        b"1 2 3 4 5 6 7",
        b"x 35 98:0 / / rw - a b c",
        b"1 2 9 / / rw - a b c",
    ] {
        assert_eq!(parse_line(junk), None, "{junk:?}");
    }
}

proptest::proptest! {
    // A process may give its mount any name; reading the table must not end the driver.
    #[test]
    fn no_line_of_mountinfo_panics(line in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = parse_line(&line);
    }
}

// A target outside the kubelet's directory would let a request mount over, and remove, anything.
#[test]
fn paths_outside_are_refused() {
    let world = World::new();
    std::fs::create_dir(world.path("pods")).unwrap();
    symlink(&world.outside, world.path("link")).unwrap();
    symlink(&world.outside, world.path("pods/target")).unwrap();
    let root = world.kubelet.root().to_str().unwrap().to_owned();
    for bad in [
        "some/path".to_owned(),
        String::new(),
        "/".to_owned(),
        root.clone(),
        format!("{root}/"),
        format!("{root}/../outside"),
        format!("{root}/pods/../../outside"),
        format!("{root}/pods/./x"),
        format!("{root}//pods/x"),
        format!("{root}x/pods"),
        format!("{root}/link/x"),
        format!("{root}/pods/target"),
        format!("{root}/pods/a\0b"),
        format!("{root}/{}", "x/".repeat(4096)),
    ] {
        let made = world.kubelet.make(Path::new(&bad));
        assert!(
            matches!(made, Err(MountError::Outside { .. })),
            "{bad:?}: {made:?}"
        );
    }
    assert_eq!(std::fs::read_dir(&world.outside).unwrap().count(), 1);
}

// A second publish, an unpublish of nothing and a restart between two steps are everyday calls.
#[test]
fn a_bind_can_be_repeated_and_is_restricted() {
    if cannot_mount("a_bind_can_be_repeated_and_is_restricted") {
        return;
    }
    let world = World::new();
    let target = world
        .kubelet
        .make(&world.path("pods/uid/volume/mount"))
        .unwrap();
    for read_only in [false, true, true] {
        let options = BindOptions {
            read_only,
            no_exec: true,
        };
        target.bind(&world.outside, options).unwrap();
        let entry = target.mounted().unwrap().unwrap();
        assert!(
            ["nosuid", "nodev", "noexec"]
                .iter()
                .all(|o| entry.has_option(o)),
            "{entry:?}"
        );
        assert_eq!(
            std::fs::write(target.path().join("x"), "x").is_err(),
            read_only
        );
    }
    let other = world.path("other");
    std::fs::create_dir(&other).unwrap();
    let refused = target.bind(&other, BindOptions::default());
    assert!(
        matches!(refused, Err(MountError::Occupied { .. })),
        "{refused:?}"
    );
    assert!(matches!(
        target.unmount(|_| false),
        Err(MountError::Occupied { .. })
    ));
    // Made again while mounted: the same target, and the mount stays.
    let again = world.kubelet.make(target.path()).unwrap();
    assert!(again.mounted().unwrap().is_some());
    assert!(again.unmount(|_| true).unwrap());
    assert!(!again.unmount(|_| true).unwrap());
    again.remove().unwrap();
    again.remove().unwrap();
    assert!(!target.path().exists());
    assert!(world.outside.join("sentinel").exists());
    assert!(
        world
            .kubelet
            .find(&world.path("gone/target"))
            .unwrap()
            .is_none()
    );
}

// A pod that swaps a directory for a link while a target is made has mounted over files of the node
// in other drivers.
#[test]
fn a_swapped_directory_leads_nowhere() {
    let world = World::new();
    let (inner, link) = (world.path("swap"), world.path("link"));
    std::fs::create_dir(&inner).unwrap();
    symlink(&world.outside, &link).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let stop = Arc::clone(&stop);
        let (inner, link) = (inner.clone(), link.clone());
        move || {
            let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
            let here = nix::fcntl::AT_FDCWD;
            let mut swaps = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                nix::fcntl::renameat2(here, &inner, here, &link, flags).unwrap();
                swaps += 1;
            }
            swaps
        }
    });
    for turn in 0..2000 {
        let path = world.path(&format!("swap/made-{turn}"));
        if let Ok(target) = world.kubelet.make(&path) {
            target.remove().unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(swapper.join().unwrap() > 0, "the swap never happened");
    let left: Vec<_> = std::fs::read_dir(&world.outside).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

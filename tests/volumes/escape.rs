//! Attempts to reach what lies outside of a volume.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Volume;
use crate::world::need_mount;

/// Exchanges of a directory and a link, at least; the look-ups race with them.
const FLIPS: u32 = 3000;

/// Look-ups at most.
const ATTEMPTS: u32 = 200_000;

/// Look-ups that found a directory, and others that found the link, at least.
const SEEN: u32 = 10;

// SEMANTICS S45: without it a tenant could read and write the node's own files through a volume.
#[test]
fn no_link_and_no_dots_lead_out() {
    need_mount!("no_link_and_no_dots_lead_out");
    let volume = Volume::new(&["--ttl", "0s"]);
    let outside = volume.world.scratch("outside");
    fs::write(outside.join("sentinel"), "untouched").unwrap();
    // Links are what they say, to the caller; the daemon follows none of them.
    symlink(&outside, volume.below.join("absolute")).unwrap();
    symlink("../outside", volume.below.join("relative")).unwrap();
    assert_eq!(
        fs::read_link(volume.mount.join("relative"))
            .unwrap()
            .to_str(),
        Some("../outside")
    );
    let kind = fs::symlink_metadata(volume.mount.join("absolute")).unwrap();
    assert!(kind.file_type().is_symlink());
    // Beside the mount point lies another `outside` than beside the directory.
    let above = volume.mount.join("..").canonicalize().unwrap();
    assert_eq!(
        above,
        volume.mount.parent().unwrap().canonicalize().unwrap()
    );
}

// SEMANTICS S45: without it a directory exchanged for a link between two looks would be followed by the
// daemon, with its own privileges.
#[test]
fn a_race_of_directory_and_link_is_never_followed() {
    need_mount!("a_race_of_directory_and_link_is_never_followed");
    let volume = Volume::new(&["--ttl", "0s"]);
    let outside = volume.world.scratch("outside");
    fs::write(outside.join("sentinel"), "untouched").unwrap();
    let (real, link) = (volume.below.join("flip"), volume.below.join("link"));
    fs::create_dir(&real).unwrap();
    fs::write(real.join("inside"), "x").unwrap();
    symlink(&outside, &link).unwrap();
    let stop = AtomicBool::new(false);
    let exchange = || {
        nix::fcntl::renameat2(
            nix::fcntl::AT_FDCWD,
            &real,
            nix::fcntl::AT_FDCWD,
            &link,
            nix::fcntl::RenameFlags::RENAME_EXCHANGE,
        )
        .unwrap();
    };
    // The caller would follow the link by itself; a caller who does not is the daemon's test.
    let how = nix::fcntl::OpenHow::new()
        .flags(nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_CREAT)
        .mode(nix::sys::stat::Mode::from_bits_truncate(0o600))
        .resolve(nix::fcntl::ResolveFlag::RESOLVE_NO_SYMLINKS);
    let (mut through, mut refused) = (0_u32, 0_u32);
    std::thread::scope(|scope| {
        let flipping = scope.spawn(|| {
            let mut flips = 0;
            while !stop.load(Ordering::Relaxed) || flips < FLIPS {
                exchange();
                flips += 1;
            }
        });
        let mount = fs::File::open(&volume.mount).unwrap();
        while !flipping.is_finished() {
            for name in ["flip/made", "flip/sentinel"] {
                match nix::fcntl::openat2(&mount, name, how) {
                    Ok(_) => through += 1,
                    Err(_) => refused += 1,
                }
            }
            let enough = through >= SEEN && refused >= SEEN;
            if enough || through + refused > ATTEMPTS {
                stop.store(true, Ordering::Relaxed);
            }
        }
        flipping.join().unwrap();
    });
    println!("{through} opened inside, {refused} refused");
    assert!(through >= SEEN && refused >= SEEN, "nothing raced");
    assert_eq!(
        fs::read_to_string(outside.join("sentinel")).unwrap(),
        "untouched"
    );
    let names: Vec<_> = fs::read_dir(&outside)
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(names, ["sentinel"]);
}

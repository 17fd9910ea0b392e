//! The hot directory: its file system, space, and whether passthrough can use it.

use std::fs;
use std::path::Path;

use nix::sys::statfs::{self, statfs};
use nix::sys::statvfs::statvfs;
use terrace_cache::units::ByteSize;

use super::Check;

/// Less free space than this is hardly a cache.
const FREE_WANTED: u64 = 10 << 30;
/// Kernel readahead of the disk below this makes sequential warm reads slow.
const READAHEAD_KB_WANTED: u64 = 1024;

pub(super) fn examine(hot: &Path) -> Vec<Check> {
    let Some(dir) = hot.ancestors().find(|dir| dir.is_dir()) else {
        return vec![Check::fail(
            "hot directory",
            hot.display().to_string(),
            "name a directory",
        )];
    };
    let mut checks = vec![file_system(hot, dir), space(dir)];
    checks.extend(readahead(dir));
    checks
}

fn file_system(hot: &Path, dir: &Path) -> Check {
    let name = "hot file system";
    let Ok(stat) = statfs(dir) else {
        return Check::warn(
            name,
            format!("statfs {}", dir.display()),
            "name a directory",
        );
    };
    let place = if dir == hot {
        String::new()
    } else {
        " (to be created)".to_owned()
    };
    let found = |kind: &str| format!("{}{place}: {kind}", hot.display());
    match stat.filesystem_type() {
        statfs::EXT4_SUPER_MAGIC => Check::ok(name, found("ext4")),
        statfs::XFS_SUPER_MAGIC => Check::ok(name, found("xfs")),
        statfs::BTRFS_SUPER_MAGIC => Check::ok(name, found("btrfs")),
        statfs::OVERLAYFS_SUPER_MAGIC => Check::warn(
            name,
            found("overlayfs"),
            "put the hot directory on a real file system (a host path or local volume)",
        ),
        statfs::TMPFS_MAGIC => Check::warn(
            name,
            found("tmpfs"),
            "it is memory: use the node's SSD instead",
        ),
        statfs::FUSE_SUPER_MAGIC | statfs::NFS_SUPER_MAGIC => Check::fail(
            name,
            found("a network or FUSE file system"),
            "use a local disk for the hot tier; a shared file system is for --warm",
        ),
        other => Check::warn(
            name,
            found(&format!("type {:#x}", other.0)),
            "ext4 and xfs are tested",
        ),
    }
}

fn space(dir: &Path) -> Check {
    match statvfs(dir) {
        Ok(stat) => {
            let free = stat.blocks_available() * stat.fragment_size();
            let found = format!("{} free", ByteSize(free));
            if free >= FREE_WANTED {
                Check::ok("hot space", found)
            } else {
                Check::warn("hot space", found, "free some space or choose another disk")
            }
        }
        Err(error) => Check::warn("hot space", format!("statvfs: {error}"), ""),
    }
}

/// Passthrough reads use the readahead of the disk below, not of FUSE.
fn readahead(dir: &Path) -> Option<Check> {
    use std::os::unix::fs::MetadataExt;
    let device = fs::metadata(dir).ok()?.dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    let kb: u64 = fs::read_to_string(&path).ok()?.trim().parse().ok()?;
    Some(if kb >= READAHEAD_KB_WANTED {
        Check::ok("disk readahead", format!("{kb} KiB"))
    } else {
        Check::warn(
            "disk readahead",
            format!("{kb} KiB"),
            &format!("echo {READAHEAD_KB_WANTED} > {path} makes warm sequential reads faster"),
        )
    })
}

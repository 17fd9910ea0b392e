//! Kernel, privileges and FUSE.

use std::fs;
use std::os::unix::fs::FileTypeExt;

use super::Check;

/// First kernel with FUSE passthrough.
const PASSTHROUGH_SINCE: (u32, u32) = (6, 9);
/// First kernel that queues the requests of a dead worker again (FUSE_NOTIFY_RESEND).
const RESEND_SINCE: (u32, u32) = (6, 9);
/// Bit of CAP_SYS_ADMIN in the capability sets of /proc/self/status.
const CAP_SYS_ADMIN: u64 = 1 << 21;
/// Open files a busy node needs: one for each hot object that is open, and the index.
const FILES_WANTED: u64 = 65_536;

pub(super) fn examine() -> Vec<Check> {
    vec![
        kernel(),
        device(),
        privilege(),
        passthrough(),
        files(),
        pages(),
    ]
}

fn kernel() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match version(release) {
        Some(found) if found >= PASSTHROUGH_SINCE.max(RESEND_SINCE) => Check::ok(
            "kernel",
            format!("Linux {release}: passthrough and take-over of mounts"),
        ),
        Some(_) => Check::warn(
            "kernel",
            format!("Linux {release}: no FUSE passthrough, reads go through the daemon"),
            "use Linux 6.9 or later for native speed and for mounts that outlive the worker",
        ),
        None => Check::warn(
            "kernel",
            format!("unreadable release `{release}`"),
            "is this Linux?",
        ),
    }
}

/// `6.18.44-fc` -> (6, 18).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn device() -> Check {
    let hint = "load the module (modprobe fuse), or give the container the device /dev/fuse";
    match fs::metadata("/dev/fuse") {
        Ok(meta) if meta.file_type().is_char_device() => {
            match fs::File::options().read(true).write(true).open("/dev/fuse") {
                Ok(_) => Check::ok("fuse device", "/dev/fuse opens"),
                Err(error) => Check::fail("fuse device", format!("open /dev/fuse: {error}"), hint),
            }
        }
        Ok(_) => Check::fail("fuse device", "/dev/fuse is not a device", hint),
        Err(error) => Check::fail("fuse device", format!("/dev/fuse: {error}"), hint),
    }
}

fn privilege() -> Check {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    if effective & CAP_SYS_ADMIN != 0 {
        Check::ok("privilege", "CAP_SYS_ADMIN: mounts and passthrough")
    } else {
        Check::fail(
            "privilege",
            "no CAP_SYS_ADMIN",
            "run as root, or give the container CAP_SYS_ADMIN; mount(2) and passthrough need it",
        )
    }
}

/// What can be told without a mount; each mount probes the hot directory itself, see its status.
fn passthrough() -> Check {
    match terrace_fuse::probe::environment() {
        Ok(()) => Check::ok("passthrough", "warm reads at the speed of the disk"),
        Err(why) => Check::warn(
            "passthrough",
            why.to_string(),
            "reads go through the daemon until this is changed",
        ),
    }
}

fn files() -> Check {
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    match limit {
        Ok((_, hard)) if hard >= FILES_WANTED => Check::ok("open files", format!("up to {hard}")),
        Ok((_, hard)) => Check::warn(
            "open files",
            format!("up to {hard}"),
            "raise the hard limit to 65536 (LimitNOFILE= in the unit, or ulimit -Hn)",
        ),
        Err(error) => Check::warn("open files", format!("limit unreadable: {error}"), ""),
    }
}

fn pages() -> Check {
    let path = "/proc/sys/fs/fuse/max_pages_limit";
    match fs::read_to_string(path)
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
    {
        Some(pages) if pages < 256 => Check::warn(
            "request size",
            format!("at most {} KiB", pages * 4),
            "set fs.fuse.max_pages_limit to 256 for requests of 1 MiB",
        ),
        Some(pages) => Check::ok("request size", format!("up to {} KiB", pages * 4)),
        None => Check::ok("request size", "up to 1 MiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::version;

    // Without it doctor would misjudge kernels such as 6.10 (not older than 6.9).
    #[test]
    fn releases_compare_by_number() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("6.9"), Some((6, 9)));
        assert!(version("6.10.1") > version("6.9.12"));
        assert_eq!(version("garbage"), None);
    }
}

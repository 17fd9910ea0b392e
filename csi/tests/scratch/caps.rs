//! Caps under a kernel that has them: that they reach it, and that a writer feels them.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use terrace_csi::scratch::{CapError, IoCaps, IoControl};

use crate::world::World;

/// Where the guest has its control groups.
const GROUPS: &str = "/sys/fs/cgroup/all";

/// Bytes per second of the capped writer.
const RATE: u32 = 1 << 20;

/// Seconds that the capped writer takes at that rate.
const SECONDS: u32 = 4;

/// A cap is written to the group of the pod, for the disk that the volume lies on, and holds there.
pub(crate) fn caps_hold(world: &World, volume: &Path) {
    let control = match IoControl::find() {
        Ok(control) => control,
        Err(why) => return println!("SKIP project_quotas_hold_in_a_guest (caps): {why}"),
    };
    let root = Path::new(GROUPS);
    std::fs::write(root.join("cgroup.subtree_control"), "+io").unwrap();
    let pod = root.join("kubepods/podaa-bb");
    std::fs::create_dir_all(&pod).unwrap();
    std::fs::write(root.join("kubepods/cgroup.subtree_control"), "+io").unwrap();
    let device = world.open(None).device();
    let free = write(&pod, volume);
    let capped = [("writeBytesPerSecond".to_owned(), RATE.to_string())];
    let caps = IoCaps::parse(&capped.into()).unwrap();
    control.cap_pod("aa-bb", device, caps).unwrap();
    let limits = || std::fs::read_to_string(pod.join("io.max")).unwrap();
    assert!(limits().contains(&format!("wbps={RATE}")), "{:?}", limits());
    let slow = write(&pod, volume);
    // A slow machine makes it longer, never shorter.
    let least = Duration::from_secs(u64::from(SECONDS) / 2);
    assert!(
        slow >= least,
        "{SECONDS} MiB were written in {slow:?} under a cap of 1 MiB/s"
    );
    control.cap_pod("aa-bb", device, IoCaps::default()).unwrap();
    assert!(!limits().contains("wbps"), "{:?}", limits());
    let absent = control.cap_pod("cc", device, caps);
    assert!(matches!(absent, Err(CapError::NoPod(_))), "{absent:?}");
    let ratio = slow.as_secs_f64() / free.as_secs_f64();
    println!(
        "caps hold: {SECONDS} MiB in {free:.1?} without a cap, {slow:.1?} at 1 MiB/s, {ratio:.1} times"
    );
}

/// How long a process of the pod takes to write to the disk.
fn write(pod: &Path, volume: &Path) -> Duration {
    let groups = pod.join("cgroup.procs");
    let script = format!(
        "echo $$ > {} && exec dd if=/dev/zero of={} bs=65536 count={} oflag=direct 2>/dev/null",
        groups.display(),
        volume.join("capped").display(),
        SECONDS * RATE / 65536,
    );
    let began = Instant::now();
    let status = Command::new("/bin/sh").args(["-c", &script]).status();
    assert!(
        status.unwrap().success(),
        "dd failed below {}",
        volume.display()
    );
    began.elapsed()
}

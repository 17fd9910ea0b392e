//! Project quotas and caps under a kernel that has them: user-mode Linux, a kernel that is a program.
//!
//! The guest's root is this machine's, read-only; its disks are images; its first process is a script
//! that mounts what the test needs, runs this very test binary, prints how it ended, and turns the
//! guest off.

use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::MsFlags;
use terrace_csi::scratch::QuotaKind;

use crate::caps::caps_hold;
use crate::kills::projects_survive;
use crate::limits::{copies_are_apart, limits_hold};
use crate::spaces::projects_limit_spaces;
use crate::world::{MIB, World};

/// Set inside the guest: where its disks are mounted.
const INSIDE: &str = "TERRACE_TEST_GUEST";

/// What the script prints before the result of the tests.
const RESULT: &str = "guest result:";

const SCRIPT: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /mnt
mkdir /mnt/dev /mnt/xfs /mnt/ext4 /mnt/tmp
mknod /mnt/dev/ubda b 98 0
mknod /mnt/dev/ubdb b 98 16
mount -t xfs -o prjquota /mnt/dev/ubda /mnt/xfs
mount -t tmpfs tmpfs /sys/fs/cgroup
mkdir /sys/fs/cgroup/all
mount -t cgroup2 cgroup2 /sys/fs/cgroup/all
TMPDIR=/mnt/tmp TERRACE_TEST_GUEST=/mnt "$BINARY" --exact guest::inside_the_guest --nocapture
echo "guest result: $?"
echo o > /proc/sysrq-trigger
read forever
"#;

/// Sets an image up as a disk of the guest.
fn disk(
    directory: &Path,
    name: &str,
    program: &str,
    arguments: &[&str],
) -> Result<PathBuf, String> {
    let path = directory.join(name);
    std::fs::File::create(&path)
        .unwrap()
        .set_len(400 * MIB)
        .unwrap();
    let mut command = Command::new(program);
    command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .args(arguments)
        .arg(&path);
    let output = command
        .output()
        .map_err(|why| format!("{program}: {why}"))?;
    if output.status.success() {
        return Ok(path);
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Lets the guest's kernel find no extended processor state (NT_X86_XSTATE), by a filter of system
/// calls. It knows processors only up to its own age, and ends when this one has more state than that.
fn hide_large_state() -> std::io::Result<()> {
    const GET_REGISTERS: u32 = 0x4204;
    const EXTENDED_STATE: u32 = 0x202;
    let step = |code: u32, yes: u8, no: u8, value: u32| libc::sock_filter {
        code: code as u16,
        jt: yes,
        jf: no,
        k: value,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    // `struct seccomp_data`: number of the call, then arguments of 8 bytes from byte 16.
    let mut steps = [
        step(load, 0, 0, 0),
        step(equal, 0, 5, libc::SYS_ptrace as u32),
        step(load, 0, 0, 16),
        step(equal, 0, 3, GET_REGISTERS),
        step(load, 0, 0, 16 + 2 * 8),
        step(equal, 0, 1, EXTENDED_STATE),
        step(answer, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENODEV as u32),
        step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the arguments are those of prctl(2), and the program lives until the call returns.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ) == 0
    };
    if set {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

// Without a guest nothing shows that project quotas, which most nodes use, hold at all.
#[test]
fn project_quotas_hold_in_a_guest() {
    let test = "project_quotas_hold_in_a_guest";
    let Some(kernel) = ["/usr/bin/linux.uml", "/usr/bin/linux"]
        .iter()
        .find(|p| Path::new(p).exists())
    else {
        println!("SKIP {test}: no user-mode Linux (package user-mode-linux)");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let disks = disk(directory.path(), "xfs", "mkfs.xfs", &["-q"]).and_then(|xfs| {
        let features = [
            "-q",
            "-F",
            "-O",
            "quota,project",
            "-E",
            "quotatype=prjquota",
        ];
        Ok((xfs, disk(directory.path(), "ext4", "mkfs.ext4", &features)?))
    });
    let (xfs, ext4) = match disks {
        Ok(disks) => disks,
        Err(why) => return println!("SKIP {test}: no disks for the guest: {why}"),
    };
    let script = directory.path().join("init");
    let binary = std::env::current_exe().unwrap();
    let text = SCRIPT.replace("$BINARY", &binary.to_string_lossy());
    std::fs::write(&script, text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let mut guest = Command::new(kernel);
    guest.args([
        "mem=512M",
        "root=/dev/root",
        "rootfstype=hostfs",
        "rootflags=/",
        "ro",
        "quiet",
    ]);
    guest.arg(format!("init={}", script.display()));
    guest
        .arg(format!("ubda={}", xfs.display()))
        .arg(format!("ubdb={}", ext4.display()));
    guest.args(["con=null", "con0=null,fd:1"]);
    // SAFETY: between fork and exec only two system calls are made, with data of this frame.
    unsafe { guest.pre_exec(hide_large_state) };
    guest
        .env("HOME", directory.path())
        .env("TMPDIR", directory.path());
    let output = guest
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let told = |line: &&str| line.contains("SKIP ") || line.contains("caps hold");
    for line in printed.lines().filter(told) {
        println!("{}", line.trim());
    }
    let result = printed.lines().find_map(|line| line.split_once(RESULT));
    let (_, code) = result.unwrap_or_else(|| panic!("the guest told no result:\n{printed}"));
    assert_eq!(code.trim(), "0", "{printed}");
    // A guest that ran no test would be quiet, too.
    assert!(printed.contains("limits of xfs hold"), "{printed}");
}

// The other half of the test above, run inside. Does nothing elsewhere.
#[test]
fn inside_the_guest() {
    let Ok(disks) = std::env::var(INSIDE) else {
        return;
    };
    let disks = Path::new(&disks);
    let world = |name: &str| World::on(tempfile::tempdir().unwrap(), &disks.join(name));
    limits_hold(&world("xfs"), QuotaKind::XfsProject, true);
    copies_are_apart(&world("xfs"), None);
    projects_survive(&world("xfs"), QuotaKind::XfsProject);
    projects_limit_spaces(&disks.join("xfs"));
    println!("limits of xfs hold");
    if mount_ext4(disks) {
        obey_limits();
        limits_hold(&world("ext4"), QuotaKind::Ext4Project, true);
        projects_limit_spaces(&disks.join("ext4"));
        println!("limits of ext4 hold");
    } else {
        println!(
            "SKIP project_quotas_hold_in_a_guest (ext4): the guest's kernel has no quotas for it"
        );
    }
    caps_hold(&world("xfs"), &disks.join("xfs"));
}

/// Loads the kernel's modules for quotas of ext4 and mounts the second disk.
fn mount_ext4(disks: &Path) -> bool {
    let release = nix::sys::utsname::uname().unwrap().release().to_owned();
    let modules = Path::new("/usr/lib/uml/modules")
        .join(release)
        .join("kernel/fs/quota");
    for name in ["quota_tree.ko", "quota_v2.ko"] {
        let Ok(module) = std::fs::File::open(modules.join(name)) else {
            return false;
        };
        // SAFETY: the descriptor is open, and the parameters are an empty C string.
        let loaded =
            unsafe { libc::syscall(libc::SYS_finit_module, module.as_raw_fd(), c"".as_ptr(), 0) };
        if loaded != 0 {
            println!("{name}: {}", std::io::Error::last_os_error());
            return false;
        }
    }
    let (device, at) = (disks.join("dev/ubdb"), disks.join("ext4"));
    nix::mount::mount(
        Some(&device),
        &at,
        Some("ext4"),
        MsFlags::empty(),
        Some("prjquota"),
    )
    .is_ok()
}

/// Gives up CAP_SYS_RESOURCE for this thread: ext4 lets who has it write beyond every limit. The
/// containers of a pod have it not.
fn obey_limits() {
    #[repr(C)]
    struct Header(u32, i32);
    let header = Header(0x2008_0522, 0);
    let mut sets = [[0_u32; 3]; 2];
    // SAFETY: for this version the kernel reads the header and reads or writes two sets of three
    // words, which is what the pointers lead to.
    let done = unsafe {
        let got = libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr());
        sets[0][0] &= !(1 << 24);
        got == 0 && libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) == 0
    };
    assert!(done, "{}", std::io::Error::last_os_error());
}

//! The take-over alone: keeper, link and session with a file system of a few lines, on a real mount.
//!
//! The program is its own keeper (`keeper RUN_DIR`) and worker (`worker`), so that killing one is
//! killing a process. Without arguments it runs the tests. Everything it starts ends with it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::print_stdout,
    reason = "a test program without harness tells its own results"
)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyOpen, Request,
};
use terrace_fuse::adapter::MAX_REQUEST;
use terrace_fuse::keeper::worker::{Orders, WorkerLink};
use terrace_fuse::keeper::{
    KeeperClient, KeeperConfig, KernelOptions, MountSpec, RunDir, Secrets, WorkerCommand, kernel,
};
use terrace_fuse::session::{Device, Primer, SessionConfig, serve_filesystem};

const FILES: u64 = 8;
const SIZE: u64 = 1 << 20;

/// The word at every 8-byte offset of a file tells the file and the offset.
fn word(file: u64, offset: u64) -> u64 {
    (file << 48) | offset
}

/// `f0`..`f7`, never cached, so that every operation needs a worker.
#[derive(Debug)]
struct Tiny(Arc<Primer>);

/// Whether the memory is there that the largest request at this place would need.
fn is_present(request: &Request) -> bool {
    let begin = std::ptr::from_ref(request).map_addr(|address| address & !4095);
    let mut pages = vec![0; 1 + (MAX_REQUEST as usize).div_ceil(4096)];
    // SAFETY: has one byte for every page that is asked for; nothing is written elsewhere.
    let asked = unsafe {
        libc::mincore(
            begin.cast_mut().cast(),
            pages.len() * 4096,
            pages.as_mut_ptr(),
        )
    };
    asked == 0 && pages.iter().all(|page| page & 1 == 1)
}

impl Tiny {
    fn attr(ino: u64) -> FileAttr {
        let directory = ino == 1;
        FileAttr {
            ino: INodeNo(ino),
            size: if directory { 0 } else { SIZE },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if directory {
                FileType::Directory
            } else {
                FileType::RegularFile
            },
            perm: if directory { 0o555 } else { 0o444 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }
}

impl Filesystem for Tiny {
    fn forget(&self, request: &Request, node: INodeNo, _: u64) {
        self.0.meets(request, node);
    }

    // A request taken into memory that is not there would be lost with a worker that is killed just then.
    fn lookup(&self, request: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if !is_present(request) {
            return reply.error(Errno::EFAULT);
        }
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix('f')?.parse::<u64>().ok());
        match number.filter(|number| *number < FILES) {
            Some(number) => reply.entry(&Duration::ZERO, &Self::attr(number + 2), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::ZERO, &Self::attr(ino.0));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let end = SIZE.min(offset + u64::from(size));
        let words = (offset..end).step_by(8);
        let data: Vec<u8> = words
            .flat_map(|at| word(ino.0 - 2, at).to_le_bytes())
            .collect();
        reply.data(&data);
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        for number in offset..FILES {
            let name = format!("f{number}");
            if reply.add(INodeNo(number + 2), number + 1, FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }
}

/// The worker: serves [`Tiny`] for every mount.
struct TinyOrders(WorkerLink);

impl Orders for TinyOrders {
    fn mount(&mut self, spec: MountSpec, _: OwnedFd, device: Option<Device>) {
        match device {
            Some(device) => self.attach(&spec.id, device),
            None => self.0.prepared(&spec.id),
        }
    }

    fn attach(&mut self, id: &str, device: Device) {
        let link = self.0.clone();
        let config = SessionConfig::default();
        let session = serve_filesystem(Tiny, device, &config, |reply| {
            link.answered(id, reply);
            Ok(())
        })
        .unwrap();
        link.mounted(id);
        let id = id.to_owned();
        std::thread::spawn(move || {
            session.join().unwrap();
            link.ended(&id);
        });
    }

    fn unmounted(&mut self, _: &str) {}

    fn stop(&mut self) {
        std::process::exit(0);
    }
}

fn worker() {
    // A worker that does not come up is a worker that exits at once.
    let (link, greeting) = WorkerLink::greeted().unwrap();
    let broken = greeting.node["broken"].as_str().map(PathBuf::from);
    if broken.is_some_and(|path| path.exists()) {
        std::process::exit(7);
    }
    link.ready();
    link.clone().run(&mut TinyOrders(link));
}

fn keeper(run: &Path, take_over: bool) {
    let config = KeeperConfig {
        run: RunDir::at(run.to_owned()),
        worker: WorkerCommand {
            before: None,
            program: "/proc/self/exe".into(),
            arguments: vec!["worker".into()],
        },
        node: Some(serde_json::json!({ "broken": run.join("broken") })),
        abort_after: Duration::from_secs(2),
        hang_after: Duration::from_secs(30),
        stay: false,
        take_over,
        version: "test".into(),
    };
    terrace_fuse::keeper::run(config).unwrap();
}

/// A mounted [`Tiny`]; everything ends with it.
struct World {
    dir: tempfile::TempDir,
    keepers: Vec<Child>,
    workers: Vec<u32>,
}

impl World {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        let mut world = Self {
            dir,
            keepers: Vec::new(),
            workers: Vec::new(),
        };
        world.start_keeper(false);
        let spec = MountSpec {
            id: "tiny".into(),
            mountpoint: world.mountpoint(),
            source: "tiny".into(),
            kernel: KernelOptions::default(),
            options: serde_json::Value::Null,
            credentials: Secrets::default(),
        };
        world.client().mount(spec).unwrap();
        world
    }

    fn run(&self) -> RunDir {
        RunDir::at(self.dir.path().join("run"))
    }

    fn mountpoint(&self) -> PathBuf {
        self.dir.path().join("mnt").canonicalize().unwrap()
    }

    fn start_keeper(&mut self, take_over: bool) {
        let run = self.run();
        run.create().unwrap();
        let child = Command::new("/proc/self/exe")
            .arg(if take_over { "upgrade" } else { "keeper" })
            .arg(run.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id();
        self.keepers.push(child);
        wait_for("the keeper", || {
            KeeperClient::connect(&run, Duration::from_secs(5))
                .and_then(|client| client.status())
                .is_ok_and(|(status, _)| status.keeper_pid == pid)
        });
    }

    fn client(&self) -> KeeperClient {
        KeeperClient::connect(&self.run(), Duration::from_secs(20)).unwrap()
    }

    /// Pid of a worker that is not in `known`.
    fn next_worker(&mut self) -> u32 {
        let mut found = 0;
        wait_for("a new worker", || {
            let Ok((status, _)) = self.client().status() else {
                return false;
            };
            found = status.worker.map_or(0, |worker| worker.pid);
            found != 0 && !self.workers.contains(&found)
        });
        self.workers.push(found);
        found
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let mountpoint = self.dir.path().join("mnt");
        kernel::detach(&mountpoint).ok();
        for keeper in &mut self.keepers {
            keeper.kill().ok();
            keeper.wait().ok();
        }
        for worker in &self.workers {
            kill(*worker);
        }
    }
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Threads that read, list and open all the time and stop at the first wrong thing.
struct Load {
    stop: Arc<AtomicBool>,
    operations: Arc<AtomicU64>,
    threads: Vec<JoinHandle<io::Result<Duration>>>,
}

impl Load {
    fn start(mountpoint: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let operations = Arc::new(AtomicU64::new(0));
        let threads = (0..FILES)
            .map(|file| {
                let (stop, operations) = (Arc::clone(&stop), Arc::clone(&operations));
                let root = mountpoint.to_owned();
                std::thread::spawn(move || {
                    let mut longest = Duration::ZERO;
                    while !stop.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        check_once(&root, file)?;
                        longest = longest.max(begun.elapsed());
                        operations.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(longest)
                })
            })
            .collect();
        Self {
            stop,
            operations,
            threads,
        }
    }

    /// Longest time one round took.
    fn finish(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let longest = self
            .threads
            .into_iter()
            .map(|thread| thread.join().unwrap().unwrap())
            .max();
        longest.unwrap()
    }
}

fn check_once(root: &Path, file: u64) -> io::Result<()> {
    let mut data = vec![0; 64 << 10];
    let open = File::open(root.join(format!("f{file}")))?;
    for at in [0, SIZE / 2, SIZE - 65536] {
        open.read_exact_at(&mut data, at)?;
        for (index, bytes) in data.chunks_exact(8).enumerate() {
            let found = u64::from_le_bytes(bytes.try_into().unwrap());
            assert_eq!(found, word(file, at + index as u64 * 8), "wrong bytes");
        }
    }
    assert_eq!(fs::read_dir(root)?.count() as u64, FILES, "wrong listing");
    Ok(())
}

/// Without it a crash of the worker would reach applications.
fn killed_workers_are_not_noticed() {
    let mut world = World::start();
    let load = Load::start(&world.mountpoint());
    for _ in 0..20 {
        let worker = world.next_worker();
        std::thread::sleep(Duration::from_millis(20));
        kill(worker);
    }
    let longest = load.finish();
    println!("  20 kills, longest round {longest:?}");
    assert!(!world.client().umount(&world.mountpoint()).unwrap());
}

/// SEMANTICS S16.
/// Without it an upgrade of keeper and worker would break running jobs.
fn an_upgrade_is_not_noticed() {
    let mut world = World::start();
    let load = Load::start(&world.mountpoint());
    for _ in 0..3 {
        world.next_worker();
        world.start_keeper(true);
        let mut old = world.keepers.remove(0);
        assert!(old.wait().unwrap().success());
    }
    world.next_worker();
    println!("  3 upgrades, longest round {:?}", load.finish());
    assert!(!world.client().umount(&world.mountpoint()).unwrap());
    assert!(
        world.keepers[0].wait().unwrap().success(),
        "the last umount ends the keeper"
    );
}

/// Without it a crash of the keeper would leave mounts that nobody could ever manage again.
fn a_killed_keeper_is_replaced_and_its_worker_adopted() {
    let mut world = World::start();
    let load = Load::start(&world.mountpoint());
    let worker = world.next_worker();
    let mut keeper = world.keepers.remove(0);
    keeper.kill().unwrap();
    keeper.wait().unwrap();
    let before = load.operations.load(Ordering::Relaxed);
    wait_for("reads without a keeper", || {
        load.operations.load(Ordering::Relaxed) > before + 20
    });
    world.start_keeper(false);
    let (status, mounts) = world.client().status().unwrap();
    assert_eq!(status.worker.unwrap().pid, worker, "the worker went on");
    assert_eq!((mounts.len(), mounts[0].state.as_str()), (1, "serving"));
    kill(worker);
    world.next_worker();
    load.finish();
    assert!(!world.client().umount(&world.mountpoint()).unwrap());
}

/// SEMANTICS S17.
/// Without it applications would hang for ever when the worker cannot start any more.
fn a_worker_that_does_not_come_back_ends_the_mount() {
    let mut world = World::start();
    fs::write(world.run().path().join("broken"), "").unwrap();
    kill(world.next_worker());
    let begun = Instant::now();
    let error = File::open(world.mountpoint().join("f0")).unwrap_err();
    let waited = begun.elapsed();
    println!("  freed after {waited:?} with {error}");
    assert!((1..15).contains(&waited.as_secs()));
    wait_for("the mount point", || {
        kernel::find_mount(&world.mountpoint()).unwrap().is_none()
    });
}

/// Without it a busy mount point could not be freed, or its users would lose their files.
fn a_busy_mount_is_detached_and_served_to_the_last_user() {
    let mut world = World::start();
    let mut open = File::open(world.mountpoint().join("f3")).unwrap();
    assert!(world.client().umount(&world.mountpoint()).unwrap(), "busy");
    assert!(kernel::find_mount(&world.mountpoint()).unwrap().is_none());
    kill(world.next_worker());
    let mut data = Vec::new();
    open.read_to_end(&mut data).unwrap();
    assert_eq!(data.len() as u64, SIZE);
    drop(open);
    wait_for("the keeper's end", || {
        world.keepers[0].try_wait().unwrap().is_some()
    });
}

/// Whether every thread of a process is stopped; see proc_pid_stat(5).
fn is_stopped(process: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap();
        stat.rsplit(')').next().unwrap().starts_with(" T ")
    })
}

/// Without it a hung worker would make its mounts impossible to remove.
fn a_stopped_worker_does_not_hold_up_umount() {
    let mut world = World::start();
    let worker = world.next_worker();
    let open = File::open(world.mountpoint().join("f3")).unwrap();
    let pid = nix::unistd::Pid::from_raw(worker.cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    // A thread that has not stopped yet would answer the read.
    wait_for("the worker's stop", || is_stopped(worker));
    let reader = std::thread::spawn(move || (&open).read(&mut [0; 8]));
    std::thread::sleep(Duration::from_millis(100));
    assert!(world.client().umount(&world.mountpoint()).unwrap(), "busy");
    reader.join().unwrap().unwrap_err();
    wait_for("the keeper's end", || {
        world.keepers[0].try_wait().unwrap().is_some()
    });
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "worker"] => return worker(),
        [_, "keeper", run] => return keeper(Path::new(run), false),
        [_, "upgrade", run] => return keeper(Path::new(run), true),
        _ => {}
    }
    if !nix::unistd::geteuid().is_root() || File::open("/dev/fuse").is_err() {
        println!("SKIP takeover: needs root and /dev/fuse");
        return;
    }
    let tests: [(&str, fn()); 6] = [
        (
            "killed_workers_are_not_noticed",
            killed_workers_are_not_noticed,
        ),
        ("an_upgrade_is_not_noticed", an_upgrade_is_not_noticed),
        (
            "a_killed_keeper_is_replaced_and_its_worker_adopted",
            a_killed_keeper_is_replaced_and_its_worker_adopted,
        ),
        (
            "a_worker_that_does_not_come_back_ends_the_mount",
            a_worker_that_does_not_come_back_ends_the_mount,
        ),
        (
            "a_busy_mount_is_detached_and_served_to_the_last_user",
            a_busy_mount_is_detached_and_served_to_the_last_user,
        ),
        (
            "a_stopped_worker_does_not_hold_up_umount",
            a_stopped_worker_does_not_hold_up_umount,
        ),
    ];
    let filter = arguments
        .get(1)
        .filter(|argument| !argument.starts_with('-'));
    for (name, test) in tests {
        if filter.is_none_or(|filter| name.contains(filter.as_str())) {
            test();
            println!("test {name} ... ok");
        }
    }
}

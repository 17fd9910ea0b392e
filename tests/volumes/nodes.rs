//! Two nodes, each in a network namespace of its own, with its own hot tier and its own client of one
//! real shared file system, on one directory.
//!
//! Every block of every file says which version of the file it is of. A writer on either node makes the
//! next version, truncating, over the last one or by renaming, closes it, and only then says so. Who opens
//! afterwards, on whichever node, must find no block of an older version; and while nobody writes, exactly
//! the last version, by read(2), by stat(2) and in a map.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use memmap2::Mmap;

use crate::Volume;
use crate::namespace::Namespace;
use crate::numbers::{Numbers, mix};
use crate::shared::need_shared;
use crate::world::{World, need_mount, wait_for};

const FILES: u64 = 6;
/// Operations of each worker, unless `TERRACE_TEST_OPERATIONS` says otherwise.
const OPERATIONS: u64 = 150;
/// Workers on each node.
const WORKERS: u64 = 2;
/// A block: number of the file, version, number of the block, and a check of these.
const BLOCK: usize = 512;

/// Two volumes of one directory.
struct Nodes {
    volumes: [Volume; 2],
    _namespaces: [Namespace; 2],
    _place: tempfile::TempDir,
}

impl Nodes {
    fn new([one, other]: [PathBuf; 2], options: &[&str]) -> Self {
        let place = tempfile::tempdir_in(&one).unwrap();
        let namespaces = ["one", "other"].map(Namespace::new);
        let name = place.path().file_name().unwrap();
        let below = [one.join(name), other.join(name)];
        wait_for("the directory on the other node", || below[1].is_dir());
        let volumes = [0, 1].map(|node: usize| {
            let world = World::inside(&namespaces[node].enter());
            Volume::mounted(world, below[node].clone(), options)
        });
        Self {
            volumes,
            _namespaces: namespaces,
            _place: place,
        }
    }

    fn mount(&self, node: usize) -> &Path {
        &self.volumes[node].mount
    }

    fn copies_read(&self, node: usize) -> u64 {
        self.volumes[node].status()["copies"]["opens"]
            .as_u64()
            .unwrap()
    }
}

/// What is known of a file.
#[derive(Default)]
struct Known {
    /// Held for reading by those who want nobody to write.
    writing: RwLock<()>,
    /// Version that was begun last.
    begun: AtomicU64,
    /// Version that was closed last.
    closed: AtomicU64,
}

fn block(file: u64, version: u64, number: u64) -> [u8; BLOCK] {
    let words = [
        file,
        version,
        number,
        mix(file ^ mix(version) ^ mix(number << 32)),
    ];
    let mut bytes = [0; BLOCK];
    for part in bytes.chunks_mut(32) {
        for (place, word) in part.chunks_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }
    bytes
}

/// Whether these are whole blocks of one version.
fn is_whole(file: u64, version: u64, bytes: &[u8]) -> bool {
    let blocks = bytes.chunks(BLOCK).enumerate();
    let mut blocks = blocks.map(|(number, bytes)| bytes == block(file, version, number as u64));
    blocks.all(|whole| whole)
}

/// The versions that the parts of a file say they are of; what is not written yet may be a hole.
fn versions_in(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let version = |part: &[u8]| u64::from_le_bytes(part[8..16].try_into().unwrap());
    bytes
        .chunks_exact(32)
        .map(version)
        .filter(|version| *version > 0)
}

fn blocks_of(version: u64) -> u64 {
    1 + mix(version) % 40
}

fn path(mount: &Path, file: u64) -> PathBuf {
    mount.join(format!("file{file}"))
}

/// Makes the next version of a file.
fn write(mount: &Path, file: u64, known: &Known, how: u64) {
    let _alone = known.writing.write().unwrap();
    let version = known.begun.fetch_add(1, SeqCst) + 1;
    let bytes: Vec<u8> = (0..blocks_of(version))
        .flat_map(|number| block(file, version, number))
        .collect();
    let name = path(mount, file);
    let temporary = name.with_extension(format!("{version}"));
    let renames = how % 3 == 2;
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(how.is_multiple_of(3))
        .open(if renames { &temporary } else { &name });
    let mut written = written.unwrap();
    written.write_all(&bytes).unwrap();
    written.set_len(bytes.len() as u64).unwrap();
    drop(written);
    if renames {
        fs::rename(&temporary, &name).unwrap();
    }
    known.closed.store(version, SeqCst);
}

/// Reads a file; `quiet`: while nobody writes it.
fn read(mount: &Path, file: u64, known: &Known, quiet: bool) {
    let guard = quiet.then(|| known.writing.read().unwrap());
    let least = known.closed.load(SeqCst);
    let name = path(mount, file);
    let mut opened = match File::open(&name) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && least == 0 => return,
        // Replaced by another node between the look-up and the open, as on any shared file system.
        Err(error) if !quiet && error.raw_os_error() == Some(nix::libc::ESTALE) => return,
        other => other.unwrap_or_else(|error| panic!("{}: {error}", name.display())),
    };
    let mut bytes = Vec::new();
    opened.read_to_end(&mut bytes).unwrap();
    let most = known.begun.load(SeqCst);
    for version in versions_in(&bytes) {
        assert!(
            (least..=most).contains(&version),
            "file {file}: a part of version {version}; {least} was closed before the open"
        );
    }
    if guard.is_some() && least > 0 {
        let length = blocks_of(least) * BLOCK as u64;
        assert!(
            is_whole(file, least, &bytes),
            "file {file}, version {least}: bytes"
        );
        assert_eq!(
            bytes.len() as u64,
            length,
            "file {file}, version {least}: length"
        );
        assert_eq!(
            opened.metadata().unwrap().len(),
            length,
            "file {file}, version {least}: size"
        );
        // SAFETY: nobody writes to the file while the lock is held.
        let map = unsafe { Mmap::map(&opened) }.unwrap();
        assert!(
            map[..] == bytes[..],
            "file {file}, version {least}: the map differs"
        );
    }
}

/// Writes and reads on both mounts; what is known of the files then.
fn check(mounts: [&Path; 2]) -> Vec<Known> {
    let operations = std::env::var("TERRACE_TEST_OPERATIONS");
    let operations: u64 = operations.map_or(OPERATIONS, |number| number.parse().unwrap());
    let known: Vec<Known> = (0..FILES).map(|_| Known::default()).collect();
    std::thread::scope(|scope| {
        for worker in 0..2 * WORKERS {
            let (mount, known) = (mounts[(worker % 2) as usize], &known);
            scope.spawn(move || {
                let mut numbers = Numbers::new(worker + 500);
                for _ in 0..operations {
                    let file = numbers.below(FILES);
                    let of = &known[file as usize];
                    match numbers.below(8) {
                        0 | 1 => write(mount, file, of, numbers.next()),
                        2..5 => read(mount, file, of, true),
                        _ => read(mount, file, of, false),
                    }
                }
            });
        }
    });
    let written: u64 = known.iter().map(|known| known.closed.load(SeqCst)).sum();
    assert!(
        written > operations / 4,
        "only {written} versions were written"
    );
    println!(
        "{} operations, {written} versions",
        2 * WORKERS * operations
    );
    known
}

// SEMANTICS S97: without it a node would go on with old bytes after another one has closed new ones.
#[test]
fn what_is_closed_on_one_node_is_opened_on_the_other() {
    let places = need_shared!("what_is_closed_on_one_node_is_opened_on_the_other");
    let nodes = Nodes::new(places, &["--ssd-cache", "on", "--ttl", "0s"]);
    let known = check([nodes.mount(0), nodes.mount(1)]);
    copies_change_over(&nodes, &known[0]);
}

/// A file that is read from copies on both nodes is written on one.
fn copies_change_over(nodes: &Nodes, known: &Known) {
    for writer in [0, 1] {
        write(nodes.mount(writer), 0, known, 0);
        for node in [0, 1] {
            let before = nodes.copies_read(node);
            wait_for("a copy", || {
                read(nodes.mount(node), 0, known, true);
                std::thread::sleep(Duration::from_millis(100));
                nodes.copies_read(node) > before
            });
        }
        write(nodes.mount(writer), 0, known, 1);
        for node in [0, 1] {
            read(nodes.mount(node), 0, known, true);
        }
    }
}

/// flock(2), without waiting.
fn locked(file: &File) -> Result<(), nix::errno::Errno> {
    // SAFETY: a descriptor and a number.
    let done =
        unsafe { nix::libc::flock(file.as_raw_fd(), nix::libc::LOCK_EX | nix::libc::LOCK_NB) };
    nix::errno::Errno::result(done).map(drop)
}

/// fcntl(2) over the whole file, without waiting.
fn locked_range(file: &File) -> Result<(), nix::errno::Errno> {
    // SAFETY: a zeroed lock is a whole valid one: from the start to the end.
    let mut lock: nix::libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = nix::libc::F_WRLCK as i16;
    // SAFETY: `lock` outlives the call.
    let done =
        unsafe { nix::libc::fcntl(file.as_raw_fd(), nix::libc::F_OFD_SETLK, &raw const lock) };
    nix::errno::Errno::result(done).map(drop)
}

// SEMANTICS S48, S98: without it a program could believe that its lock holds on another node.
#[test]
fn locks_are_of_one_node_or_refused() {
    let places = need_shared!("locks_are_of_one_node_or_refused");
    let nodes = Nodes::new(places.clone(), &[]);
    File::create_new(nodes.mount(0).join("file")).unwrap();
    let open = |nodes: &Nodes, node: usize| {
        let name = nodes.mount(node).join("file");
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(name)
            .unwrap()
    };
    let [here, here_too, there] = [0, 0, 1].map(|node| open(&nodes, node));
    for lock in [locked, locked_range] {
        assert_eq!(lock(&here), Ok(()));
        assert_eq!(lock(&here_too), Err(nix::errno::Errno::EAGAIN));
        assert_eq!(lock(&there), Ok(()), "of another node");
    }
    drop(nodes);
    let nodes = Nodes::new(places, &["-o", "locks=none"]);
    File::create_new(nodes.mount(0).join("file")).unwrap();
    for node in [0, 1] {
        let file = open(&nodes, node);
        for lock in [locked, locked_range] {
            assert_eq!(lock(&file), Err(nix::errno::Errno::ENOLCK), "node {node}");
        }
    }
}

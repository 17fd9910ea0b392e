//! Opens, mappings, direct reads, fills, completions and evictions from many threads through a real
//! mount. Rules of the kernel that no model knows show up here.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fs_support;
#[path = "fs_support/mount.rs"]
mod mount;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fs_support::{Extras, TestFile, World};
use memmap2::{Mmap, MmapOptions};
use mount::{Mounted, base, can_mount};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use terrace_fuse::fs::Profile;

const THREADS: u64 = 8;
const SECONDS: u64 = 12;
const FILL_ON_OPEN: u64 = 1 << 20;

fn key(world: &World, file: &TestFile) -> String {
    let data = world.data.to_str().unwrap().trim_start_matches('/');
    format!("{data}/{}", file.name)
}

/// What one thread keeps open.
enum Held {
    File(File),
    Direct(File),
    Map(Mmap),
}

fn open(mount: &Mounted, file: &TestFile, random: &mut StdRng) -> Held {
    let path = mount.path(&file.name);
    let kind = random.random_range(0..10);
    if kind == 0 {
        let direct = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path);
        return Held::Direct(direct.unwrap_or_else(|error| panic!("{path:?}: {error}")));
    }
    let open = File::open(&path).unwrap_or_else(|error| panic!("open {path:?}: {error}"));
    match kind {
        // SAFETY: files of the mount are immutable.
        1 | 2 => Held::Map(unsafe { MmapOptions::new().map(&open).unwrap() }),
        // SAFETY: as above.
        3 => Held::Map(unsafe { MmapOptions::new().map_copy_read_only(&open).unwrap() }),
        _ => Held::File(open),
    }
}

fn read(held: &Held, file: &TestFile, random: &mut StdRng) -> u64 {
    let offset = random.random_range(0..file.size);
    let length = random.random_range(1..65_536_u64);
    let expected = |offset, length: usize| file.bytes(offset..offset + length as u64);
    match held {
        Held::File(open) => {
            let mut buffer = vec![0; length as usize];
            let got = open.read_at(&mut buffer, offset).unwrap();
            assert!(
                buffer[..got] == expected(offset, buffer.len()),
                "{file:?} {offset}"
            );
            got as u64
        }
        Held::Direct(open) => {
            let mut buffer = MmapOptions::new().len(65_536).map_anon().unwrap();
            let offset = offset / 4096 * 4096;
            let got = open.read_at(&mut buffer, offset).unwrap();
            assert!(
                buffer[..got] == expected(offset, 65_536),
                "{file:?} {offset} direct"
            );
            got as u64
        }
        Held::Map(map) => {
            let end = (offset + length).min(file.size);
            let seen = &map[offset as usize..end as usize];
            assert!(seen == file.bytes(offset..end), "{file:?} {offset} mapped");
            seen.len() as u64
        }
    }
}

fn reader(world: &World, mount: &Mounted, seed: u64, until: Instant) -> (u64, u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut held: Vec<(Held, &TestFile)> = Vec::new();
    let (mut opens, mut bytes) = (0, 0);
    while Instant::now() < until {
        if held.len() < 3 && random.random_bool(0.5) {
            let file = &world.files[random.random_range(0..world.files.len())];
            held.push((open(mount, file, &mut random), file));
            opens += 1;
        } else if !held.is_empty() && random.random_bool(0.4) {
            held.swap_remove(random.random_range(0..held.len()));
        }
        if let Some((held, file)) = held.get(random.random_range(0..held.len().max(1))) {
            bytes += read(held, file, &mut random);
        }
        if random.random_bool(0.02) {
            let listed = std::fs::read_dir(mount.path("")).unwrap().count();
            assert_eq!(listed, world.files.len() + 1);
        }
    }
    (opens, bytes)
}

/// Evicts what nobody uses, holds the store back for it, and lets it go a little later.
fn disturb(world: &World, seed: u64, until: Instant) -> u64 {
    let mut random = StdRng::seed_from_u64(seed);
    let mut evicted = 0;
    while Instant::now() < until {
        let file = &world.files[random.random_range(0..world.files.len())];
        let digest = world.object(file).id().digest();
        if world.cache.hot().evict(&digest).unwrap() {
            evicted += 1;
            if file.size > FILL_ON_OPEN {
                world.gate.hold(&key(world, file));
            }
        }
        std::thread::sleep(Duration::from_millis(random.random_range(1..10)));
        let file = &world.files[random.random_range(0..world.files.len())];
        world.gate.let_go(&key(world, file));
    }
    for file in &world.files {
        world.gate.let_go(&key(world, file));
    }
    evicted
}

// Without it an open or a read could fail, or give wrong bytes, when files are opened, completed and
// evicted at the same time.
#[test]
fn no_error_and_no_wrong_byte_whatever_happens_at_once() {
    if !can_mount("no_error_and_no_wrong_byte_whatever_happens_at_once") {
        return;
    }
    let sizes = [
        (5 << 20) + 1,
        3 << 20,
        (2 << 20) + 4097,
        (1 << 20) + 1,
        1 << 20,
        100_000,
        4096,
        77,
    ];
    let names: Vec<String> = (0..32).map(|number| format!("f{number}")).collect();
    let files: Vec<(&str, u64)> = names
        .iter()
        .map(String::as_str)
        .zip(sizes.into_iter().cycle())
        .collect();
    let world = World::new(&base(), &files, Extras::default());
    let mount = Mounted::new(world.file_system(Profile::Default, world.wanted(), FILL_ON_OPEN));
    let until = Instant::now() + Duration::from_secs(SECONDS);
    let (opens, bytes, evicted) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for seed in 0..THREADS {
            let (world, mount, opens, bytes) = (&world, &mount, &opens, &bytes);
            scope.spawn(move || {
                let (o, b) = reader(world, mount, seed, until);
                opens.fetch_add(o, Relaxed);
                bytes.fetch_add(b, Relaxed);
            });
        }
        evicted.fetch_add(disturb(&world, 99, until), Relaxed);
    });
    let status = mount.fs.status();
    println!(
        "{} opens, {} MB checked, {} evictions, {status:?}",
        opens.load(Relaxed),
        bytes.load(Relaxed) / 1_000_000,
        evicted.load(Relaxed)
    );
    assert_eq!(status.errors.values().sum::<u64>(), 0, "{status:?}");
    assert!(
        evicted.load(Relaxed) > 0 && status.opens_cached > 0,
        "it proved something"
    );
    if status.passthrough {
        assert!(
            status.opens_passthrough > 0 && status.reincarnations > 0,
            "{status:?}"
        );
    }
}

//! What a volume costs beside its directory, measured in turns.
//!
//! A source tree of 5,000 files is unpacked (create, write, mode, time), walked, compiled (read each
//! file and some headers, write an object, rename it) and removed. Then one file is written and read.
//! Nothing here fails for its time: that is for a quiet machine and a reader.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::Volume;
use crate::shared::need_shared;
use crate::world::{need_mount, wait_for};

const DIRECTORIES: u32 = 250;
const FILES: u32 = 20;
const SOURCE: usize = 6 << 10;
const OBJECT: usize = 12 << 10;
/// Headers that each compilation looks for in each of these places.
const HEADERS: u32 = 2;
const ROUNDS: usize = 1;
/// Bytes of the one file, and of one write.
const LARGE: usize = 128 << 20;
const BLOCK: usize = 1 << 20;

fn path(root: &Path, directory: u32, file: u32) -> PathBuf {
    root.join(format!("src/d{directory}/f{file}.c"))
}

fn unpack(root: &Path, directories: u32) {
    let text = vec![b'/'; SOURCE];
    for directory in 0..directories {
        fs::create_dir_all(root.join(format!("src/d{directory}"))).unwrap();
        for file in 0..FILES {
            let mut made = File::create_new(path(root, directory, file)).unwrap();
            made.write_all(&text).unwrap();
            made.set_permissions(fs::Permissions::from_mode(0o644))
                .unwrap();
            made.set_modified(UNIX_EPOCH + Duration::from_secs(1_700_000_000))
                .unwrap();
        }
    }
}

fn walk(root: &Path) -> usize {
    let (mut found, mut left) = (0, vec![root.to_owned()]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            found += 1;
            if entry.metadata().unwrap().is_dir() {
                left.push(entry.path());
            }
        }
    }
    found
}

fn compile(root: &Path, directories: u32) {
    let object = vec![b'o'; OBJECT];
    fs::create_dir(root.join("out")).unwrap();
    for directory in 0..directories {
        for file in 0..FILES {
            for header in 0..HEADERS {
                // Most are not in the first place that is looked at.
                fs::metadata(root.join(format!("src/d{directory}/h{header}.h"))).unwrap_err();
                fs::metadata(path(root, header, file)).unwrap();
            }
            let text = fs::read(path(root, directory, file)).unwrap();
            assert_eq!(text.len(), SOURCE);
            let made = root.join(format!("out/d{directory}-f{file}.o"));
            let temporary = made.with_extension("tmp");
            fs::write(&temporary, &object).unwrap();
            fs::rename(&temporary, &made).unwrap();
        }
    }
}

/// Seconds of each part.
fn job(root: &Path, directories: u32) -> [f64; 4] {
    fs::create_dir(root).unwrap();
    let mut seconds = [0.0; 4];
    let mut part = |at: usize, work: &dyn Fn()| {
        let began = Instant::now();
        work();
        seconds[at] = began.elapsed().as_secs_f64();
    };
    part(0, &|| unpack(root, directories));
    part(1, &|| assert!(walk(root) > (directories * FILES) as usize));
    part(2, &|| compile(root, directories));
    part(3, &|| fs::remove_dir_all(root).unwrap());
    seconds
}

/// MiB per second of writing (with fsync) and of reading.
fn one_file(root: &Path) -> [f64; 2] {
    let path = root.join("large");
    let mut block = vec![7; BLOCK];
    let rate = |began: Instant| (LARGE >> 20) as f64 / began.elapsed().as_secs_f64();
    let began = Instant::now();
    let mut file = File::create_new(&path).unwrap();
    for _ in 0..LARGE / BLOCK {
        file.write_all(&block).unwrap();
    }
    file.sync_all().unwrap();
    let written = rate(began);
    let mut file = File::open(&path).unwrap();
    let began = Instant::now();
    for _ in 0..LARGE / BLOCK {
        file.read_exact(&mut block).unwrap();
    }
    let read = rate(began);
    fs::remove_file(&path).unwrap();
    [written, read]
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Ratios of a volume to the directory beside it: of a build, part by part, and of all of it.
fn builds(volume: &Path, plain: &Path, directories: u32) {
    let (mut parts, mut totals) = (vec![Vec::new(); 4], Vec::new());
    for round in 0..ROUNDS {
        let name = format!("round{round}");
        let beside = job(&plain.join(&name), directories);
        let here = job(&volume.join(&name), directories);
        for (part, ratios) in parts.iter_mut().enumerate() {
            ratios.push(here[part] / beside[part]);
        }
        totals.push(here.iter().sum::<f64>() / beside.iter().sum::<f64>());
        println!("beside {beside:.2?} s, on the volume {here:.2?} s");
    }
    let parts: Vec<f64> = parts.into_iter().map(median).collect();
    println!(
        "a build of {} files takes {:.2} times as long as in the directory: unpack {:.2}, walk {:.2}, \
         compile {:.2}, remove {:.2}",
        directories * FILES,
        median(totals),
        parts[0],
        parts[1],
        parts[2],
        parts[3],
    );
}

// Without it nobody would know what a volume costs.
#[test]
fn the_pace_of_a_build_and_of_one_file() {
    need_mount!("the_pace_of_a_build_and_of_one_file");
    let volume = Volume::new(&[]);
    let plain = volume.world.scratch("plain");
    builds(&volume.mount, &plain, DIRECTORIES);
    let mut files = vec![Vec::new(); 2];
    for _ in 0..ROUNDS {
        let (beside, here) = (one_file(&plain), one_file(&volume.mount));
        for (part, ratios) in files.iter_mut().enumerate() {
            ratios.push(here[part] / beside[part]);
        }
    }
    let files: Vec<f64> = files.into_iter().map(median).collect();
    println!(
        "one file: written at {:.2} of the directory's rate, read at {:.2}",
        files[0], files[1]
    );
}

/// Directories of the tree on a shared file system, where each operation takes longer.
fn directories() -> u32 {
    let asked = std::env::var("TERRACE_TEST_DIRECTORIES");
    asked.map_or(20, |number| number.parse().unwrap())
}

// Without it nobody would know what a volume costs beside the shared file system it shows.
#[test]
fn the_pace_of_a_build_on_a_shared_file_system() {
    let [place, _] = need_shared!("the_pace_of_a_build_on_a_shared_file_system");
    let volume = Volume::fresh_below(&place, &[]);
    let plain = tempfile::tempdir_in(&place).unwrap();
    builds(&volume.mount, plain.path(), directories());
}

/// Seconds of reading every file of the tree.
fn read_again(root: &Path, directories: u32) -> f64 {
    let began = Instant::now();
    for directory in 0..directories {
        for file in 0..FILES {
            let text = fs::read(path(root, directory, file)).unwrap();
            assert_eq!(text.len(), SOURCE);
        }
    }
    began.elapsed().as_secs_f64()
}

// Without it nobody would know whether copies on the SSD are worth their space.
#[test]
fn the_pace_of_reading_a_tree_again() {
    let [place, _] = need_shared!("the_pace_of_reading_a_tree_again");
    let volume = Volume::fresh_below(&place, &[]);
    let (plain, directories) = (tempfile::tempdir_in(&place).unwrap(), directories());
    for root in [plain.path(), &volume.mount] {
        unpack(root, directories);
        read_again(root, directories);
    }
    let files = u64::from(directories * FILES);
    wait_for("copies of all files", || {
        volume.status()["copies"]["filled"].as_u64().unwrap() >= files
    });
    let mut ratios = Vec::new();
    for _ in 0..5 {
        let (beside, here) = (
            read_again(plain.path(), directories),
            read_again(&volume.mount, directories),
        );
        println!("beside {beside:.3} s, on the volume {here:.3} s");
        ratios.push(beside / here);
    }
    let copies = &volume.status()["copies"];
    assert!(copies["opens"].as_u64().unwrap() >= 4 * files, "{copies}");
    println!(
        "{files} files are read again {:.2} times as fast as on the shared file system",
        median(ratios)
    );
}

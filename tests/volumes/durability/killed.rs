//! Workers that are killed while files are staged and copied.
//!
//! Each writer goes round and round as programs save: a new file, some writes, fsync or only close, a
//! rename over the last one, now and then a file that stays open and grows. What was acknowledged is
//! noted outside of the volume, and compared here and in the directory below.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{LOCAL, Staged, create};
use crate::numbers::{Numbers, mix};
use crate::world::{need_mount, wait_for};

const WRITERS: u64 = 3;
const KILLS: u64 = 25;
/// Names of each writer.
const NAMES: u64 = 12;

pub(super) fn content(seed: u64, length: u64) -> Vec<u8> {
    (0..length)
        .map(|at| mix((at / 8) ^ mix(seed)) as u8)
        .collect()
}

/// What a file has to be: seed and length, or more of the same seed.
pub(super) type Acknowledged = BTreeMap<String, (u64, u64)>;

/// Whether a file is what was acknowledged, or a later state of the same.
pub(super) fn check(path: &Path, (seed, length): (u64, u64)) -> Result<(), String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let whole = content(seed, bytes.len() as u64);
    if (bytes.len() as u64) < length || bytes != whole {
        return Err(format!(
            "{}: {} of {length} bytes, {}",
            path.display(),
            bytes.len(),
            if bytes == whole {
                "too short"
            } else {
                "other ones"
            }
        ));
    }
    Ok(())
}

/// One round of a writer; every call must succeed.
fn round(
    home: &Path,
    writer: u64,
    number: u64,
    open: &mut Option<Growing>,
    told: &mut Acknowledged,
) {
    let seed = (writer << 40) | number;
    let name = format!("writer{writer}-{}", number % NAMES);
    let length = 1 + mix(seed) % 300_000;
    let temporary = home.join(format!("{name}.tmp"));
    let mut file = create(&temporary);
    for part in content(seed, length).chunks(65_536) {
        file.write_all(part).unwrap();
    }
    if number.is_multiple_of(3) {
        drop(file); // its close is as good
    } else {
        file.sync_all().unwrap();
        drop(file);
    }
    fs::rename(&temporary, home.join(&name)).unwrap();
    told.insert(name, (seed, length));
    let grows = open.get_or_insert_with(|| Growing::new(home, writer, number));
    grows.grow();
    told.insert(grows.name.clone(), (grows.seed, grows.length));
    if number % 7 == 6 {
        *open = None;
    }
}

/// A file that stays open for some rounds.
struct Growing {
    name: String,
    file: File,
    seed: u64,
    length: u64,
}

impl Growing {
    fn new(home: &Path, writer: u64, number: u64) -> Self {
        let name = format!("log{writer}-{number}");
        Self {
            file: create(&home.join(&name)),
            name,
            seed: (writer << 40) | (number << 20) | 1,
            length: 0,
        }
    }

    fn grow(&mut self) {
        let whole = content(self.seed, self.length + 5000);
        let part = &whole[self.length as usize..];
        self.file.write_all_at(part, self.length).unwrap();
        self.file.sync_data().unwrap();
        self.length += 5000;
    }
}

// SEMANTICS S44, S70: without it a worker's death would lose what a program was told is safe, or bring a
// file into the directory that is a mix of two.
#[test]
fn workers_are_killed_while_files_are_staged_and_copied() {
    need_mount!("workers_are_killed_while_files_are_staged_and_copied");
    let wanted = std::env::var("TERRACE_TEST_KILLS");
    let wanted = wanted.map_or(KILLS, |kills| kills.parse().unwrap());
    let staged = Staged::new(&[LOCAL], &[]);
    let stop = AtomicBool::new(false);
    let mut waiting = 0;
    let told: Vec<(Acknowledged, u64)> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (home, stop) = (&staged.volume.mount, &stop);
                scope.spawn(move || {
                    let (mut told, mut open, mut number) = (Acknowledged::new(), None, 0);
                    while !stop.load(Ordering::Relaxed) {
                        round(home, writer, number, &mut open, &mut told);
                        number += 1;
                    }
                    (told, number)
                })
            })
            .collect();
        let (mut numbers, mut last) = (Numbers::new(91), 0);
        for _ in 0..wanted {
            if writers.iter().any(|writer| writer.is_finished()) {
                break;
            }
            let world = &staged.volume.world;
            wait_for("another worker", || {
                world.worker() != last && world.worker() != 0
            });
            std::thread::sleep(Duration::from_millis(50 + numbers.below(300)));
            last = world.worker();
            world.signal(last, Signal::SIGKILL);
            waiting += u64::from(staged.data() > 0);
        }
        wait_for("the last worker", || staged.volume.world.worker() != last);
        stop.store(true, Ordering::Relaxed);
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect()
    });
    let rounds: u64 = told.iter().map(|(_, rounds)| rounds).sum();
    let files: usize = told.iter().map(|(told, _)| told.len()).sum();
    println!(
        "{wanted} kills, {waiting} with staged files, {rounds} rounds, {files} files acknowledged"
    );
    assert!(waiting * 2 > wanted, "nothing was staged when workers died");
    let both = |place: &Path| {
        for (name, acknowledged) in told.iter().flat_map(|(told, _)| told) {
            check(&place.join(name), *acknowledged).unwrap();
        }
    };
    both(&staged.volume.mount);
    let (good, said) = staged.flush(&staged.volume.mount);
    assert!(good, "{said}");
    both(&staged.volume.below);
    let lost = staged.lost();
    assert!(lost.is_empty(), "{}", lost[0].1);
    wait_for("an empty spool", || staged.data() == 0);
}

// SEMANTICS S70: without it a program that goes on writing while no worker lives would lose what it wrote.
#[test]
fn an_open_file_goes_on_over_the_death_of_its_worker() {
    need_mount!("an_open_file_goes_on_over_the_death_of_its_worker");
    let staged = Staged::new(&[LOCAL], &[]);
    let path = staged.path("file");
    let mut file = create(&path);
    file.write_all(b"before").unwrap();
    let deleted = create(&staged.path("deleted"));
    deleted.write_all_at(b"still here", 0).unwrap();
    fs::remove_file(staged.path("deleted")).unwrap();
    let world = &staged.volume.world;
    let old = world.worker();
    world.signal(old, Signal::SIGKILL);
    file.write_all(b" and after").unwrap();
    wait_for("another worker", || {
        world.worker() != old && world.worker() != 0
    });
    file.sync_all().unwrap();
    assert_eq!(file.metadata().unwrap().len(), 16);
    assert_eq!(fs::read(&path).unwrap(), b"before and after");
    let mut bytes = [0; 10];
    deleted.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"still here");
    assert_eq!(deleted.metadata().unwrap().len(), 10);
    deleted.sync_all().unwrap();
    drop((file, deleted));
    staged.wait_until_drained();
    assert_eq!(fs::read(staged.below("file")).unwrap(), b"before and after");
    wait_for("an empty spool", || staged.data() == 0);
    assert!(staged.lost().is_empty());
}

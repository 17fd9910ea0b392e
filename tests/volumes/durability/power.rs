//! Power cuts: the file system that has the spool and the directory stops in the middle of everything,
//! and all that was not yet on its device is gone.
//!
//! Each cycle mounts what the last one has left, compares everything that was acknowledged, writes more
//! while files stay open, so that there is staged data at the cut, and is cut at a moment the seed says.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;

use super::faults::disk_or_skip;
use super::killed::{Acknowledged, check, content};
use super::{LOCAL, part_of};
use crate::disk::{Disk, Power};
use crate::numbers::{Numbers, mix};
use crate::world::{World, need_mount};

/// Cuts on each file system, unless `TERRACE_TEST_CUTS` says otherwise.
const CUTS: u64 = 25;
/// How long killed processes may take to end.
const DEATH: Duration = Duration::from_secs(240);
/// Files that stay open.
const OPEN: usize = 4;

struct Machine {
    disk: Disk,
    world: World,
    mount: PathBuf,
}

impl Machine {
    fn start(disk: Disk) -> Self {
        fs::create_dir(disk.path().join("below")).unwrap();
        let world = World::start();
        let mount = world.scratch("volume");
        Self { disk, world, mount }
    }

    fn boot(&self) {
        let source = format!("file://{}", self.disk.path().join("below").display());
        let spool = self.disk.path().join("spool");
        let options = [
            "--rw",
            "--durability",
            LOCAL,
            "--spool",
            spool.to_str().unwrap(),
        ];
        let (status, said) = self.world.try_mount(&source, &self.mount, &options);
        assert_eq!(status, 0, "{said}\n{}", self.world.logs());
    }

    /// After the cut nobody of the machine lives, and the disk is what it was.
    fn down(&mut self) {
        for pid in self.world.processes() {
            self.world.signal(pid, Signal::SIGKILL);
        }
        // Their last calls wait for a disk that is going away, which takes its time on a busy machine.
        let begun = Instant::now();
        while !self.world.processes().is_empty() {
            let left = self.world.processes();
            assert!(begun.elapsed() < DEATH, "{left:?} do not die");
            std::thread::sleep(Duration::from_millis(5));
        }
        umount2(&self.mount, MntFlags::MNT_DETACH).ok();
        self.disk.unmount();
        self.disk.mount().unwrap();
    }

    fn staged(&self) -> usize {
        let data = part_of(&self.disk.path().join("spool")).join("data");
        fs::read_dir(data).unwrap().count()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for pid in self.world.processes() {
            self.world.signal(pid, Signal::SIGKILL);
        }
        umount2(&self.mount, MntFlags::MNT_DETACH).ok();
    }
}

/// Saves files until the disk is gone, and begins the cut after some of them. Only what a call has
/// answered while there was power is noted.
fn save(
    mount: &Path,
    cycle: u64,
    power: &Power,
    told: &mut Acknowledged,
    mut cut: impl FnMut(u64),
) -> io::Result<()> {
    let mut note = |name: &str, what: (u64, u64)| {
        if power.is_on() {
            told.insert(name.to_owned(), what);
        }
    };
    let mut open: VecDeque<File> = VecDeque::new();
    for number in 0.. {
        cut(number);
        let seed = (cycle << 32) | number;
        let length = 1 + mix(seed) % 200_000;
        let (name, bytes) = (format!("file{cycle}-{number}"), content(seed, length));
        let path = mount.join(&name);
        match number % 3 {
            // Temporary file, fsync, rename, fsync of the directory.
            0 => {
                let temporary = mount.join(format!("{name}.tmp"));
                let file = File::create(&temporary)?;
                file.write_all_at(&bytes, 0)?;
                file.sync_all()?;
                fs::rename(&temporary, &path)?;
                File::open(mount)?.sync_all()?;
                note(&name, (seed, length));
                open.push_back(file);
            }
            // Written and synced twice, and left open.
            1 => {
                let file = File::create(&path)?;
                for part in [0..length / 2, length / 2..length] {
                    file.write_all_at(&bytes[part.start as usize..part.end as usize], part.start)?;
                    file.sync_data()?;
                    note(&name, (seed, part.end));
                }
                open.push_back(file);
            }
            // Written and closed.
            _ => {
                let file = File::create(&path)?;
                file.write_all_at(&bytes, 0)?;
                nix::unistd::close(file)?;
                note(&name, (seed, length));
            }
        }
        if open.len() > OPEN {
            open.pop_front();
        }
    }
    Ok(())
}

fn cut_the_power(disk: Disk, seed: u64) {
    let cuts = std::env::var("TERRACE_TEST_CUTS");
    let cuts = cuts.map_or(CUTS, |cuts| cuts.parse().unwrap());
    let mut machine = Machine::start(disk);
    let (mut numbers, mut told) = (Numbers::new(seed), Acknowledged::new());
    let (mut checked, mut staged, mut with_staged) = (0, 0, 0);
    for cycle in 0..=cuts {
        machine.boot();
        for (name, acknowledged) in &told {
            let kept = check(&machine.mount.join(name), *acknowledged);
            assert!(
                kept.is_ok(),
                "cut {cycle}: {kept:?}\n{}",
                machine.world.logs()
            );
            checked += 1;
        }
        if cycle == cuts {
            break;
        }
        // What was compared makes room.
        for name in std::mem::take(&mut told).into_keys() {
            fs::remove_file(machine.mount.join(name)).unwrap();
        }
        let handle = machine.disk.handle();
        // Not before some files are open, and then in the middle of whatever is done.
        let after = 3 + numbers.below(12);
        let pause = Duration::from_micros(numbers.below(20_000));
        let power = Power::default();
        std::thread::scope(|scope| {
            let (handle, power) = (&handle, &power);
            let end = save(&machine.mount, cycle, power, &mut told, |number| {
                if number == after {
                    scope.spawn(move || {
                        std::thread::sleep(pause);
                        power.cut(handle);
                    });
                }
            });
            assert!(end.is_err(), "the disk was never cut");
        });
        drop(handle);
        machine.down();
        let left = machine.staged();
        staged += left;
        with_staged += u64::from(left > 0);
    }
    println!(
        "{cuts} power cuts, {with_staged} with staged files ({staged} of them), {checked} acknowledged \
         files there"
    );
    assert!(checked > 0, "nothing was acknowledged");
    assert!(
        with_staged * 10 >= cuts * 9,
        "nothing was staged at the cuts"
    );
}

// SEMANTICS S71: without it what a program was told is safe would be gone with the power.
#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    need_mount!("a_power_cut_loses_nothing_that_was_acknowledged");
    let disk = disk_or_skip!(
        "a_power_cut_loses_nothing_that_was_acknowledged",
        Disk::ext4(512 << 20, &[])
    );
    cut_the_power(disk, 5);
}

// SEMANTICS S71: without it the promise would hold on one file system only; XFS orders data and metadata
// differently.
#[test]
fn a_power_cut_on_xfs_loses_nothing_that_was_acknowledged() {
    need_mount!("a_power_cut_on_xfs_loses_nothing_that_was_acknowledged");
    let disk = disk_or_skip!(
        "a_power_cut_on_xfs_loses_nothing_that_was_acknowledged",
        Disk::xfs(512 << 20)
    );
    cut_the_power(disk, 6);
}

//! Power that is cut under a volume: the directory's file system stops where it is, and what was not on
//! its device never gets there.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use crate::Volume;
use crate::disk::{Disk, Power};
use crate::numbers::Numbers;
use crate::world::need_mount;

const WRITERS: u64 = 3;
const CYCLES: u64 = 3;
const DISK: u64 = 320 << 20;

fn content(writer: u64, round: u64) -> Vec<u8> {
    let mut numbers = Numbers::new((writer << 32) | round);
    let length = 1 + numbers.below(60_000);
    (0..length).map(|_| numbers.next() as u8).collect()
}

/// Writes, syncs and publishes until the power is gone; notes each file after its last sync, unless the
/// power was gone by then.
fn write(
    home: &Path,
    writer: u64,
    power: &Power,
    acknowledged: &Mutex<BTreeMap<String, (u64, u64)>>,
) {
    let publish = |round: u64| -> std::io::Result<()> {
        let (temporary, name) = (format!("t{writer}"), format!("w{writer}-{}", round % 5));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(home.join(&temporary))?;
        file.write_all(&content(writer, round))?;
        file.sync_all()?;
        fs::rename(home.join(&temporary), home.join(&name))?;
        File::open(home)?.sync_all()?;
        let mut acknowledged = acknowledged.lock().unwrap();
        if power.is_on() {
            acknowledged.insert(name, (writer, round));
        }
        Ok(())
    };
    let mut round = 0;
    while power.is_on() && publish(round).is_ok() {
        round += 1;
    }
}

fn cut(mut disk: Disk, cycle: u64) {
    let place = disk.path().join("volume");
    fs::create_dir(&place).unwrap();
    let volume = Volume::below(&place, &[]);
    let kept = place.join("kept");
    fs::create_dir(&kept).unwrap();
    File::open(&place).unwrap().sync_all().unwrap();
    File::open(disk.path()).unwrap().sync_all().unwrap();
    let home = volume.mount.join("kept");
    let (power, acknowledged) = (Power::default(), Mutex::new(BTreeMap::new()));
    let handle = disk.handle();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (home, power, acknowledged) = (&home, &power, &acknowledged);
            scope.spawn(move || write(home, writer, power, acknowledged));
        }
        crate::world::wait_for("acknowledged files", || {
            acknowledged.lock().unwrap().len() as u64 >= 2 * WRITERS
        });
        std::thread::sleep(Duration::from_millis(Numbers::new(cycle).below(200)));
        power.cut(&handle);
    });
    drop(handle);
    let acknowledged = acknowledged.into_inner().unwrap();
    drop(volume);
    disk.unmount();
    disk.mount().unwrap();
    for (name, (writer, round)) in &acknowledged {
        let found = fs::read(place.join("kept").join(name)).unwrap();
        // A later round may have got there, too, without having been told.
        let whole = (*round..round + 12)
            .step_by(5)
            .any(|round| found == content(*writer, round));
        assert!(
            whole,
            "cycle {cycle}: {name} of round {round} is lost or torn"
        );
    }
    println!(
        "cycle {cycle}: {} files were acknowledged and are there",
        acknowledged.len()
    );
}

// SEMANTICS S43: without it a file whose fsync was answered could be gone, or half, after a power loss.
#[test]
fn what_was_synced_survives_a_power_loss() {
    need_mount!("what_was_synced_survives_a_power_loss");
    for cycle in 0..2 * CYCLES {
        let disk = if cycle % 2 == 0 {
            Disk::ext4(DISK, &[])
        } else {
            Disk::xfs(DISK)
        };
        match disk {
            Ok(disk) => cut(disk, cycle),
            Err(why) => {
                println!("SKIP what_was_synced_survives_a_power_loss: {why}");
                return;
            }
        }
    }
}

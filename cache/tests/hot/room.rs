//! Room: what one newcomer costs the residents, and what the policy hears of the disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use terrace_cache::hot::{BLOCK, HotConfig, HotTier};
use terrace_cache::policy::{Access, Admission, Policy};
use terrace_cache::{DatasetKey, Digest};

use crate::disk::Disk;
use crate::support::{config, directory, filled, open};

const MIB: u64 = 1 << 20;

// Without this, each new file would push out as many as there are rounds of asking, because the bytes
// of the first one come free a moment after it is evicted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_newcomer_costs_one_resident() {
    let directory = directory("room");
    let config = HotConfig {
        limit_bytes: 8 * BLOCK,
        ..config(directory.path())
    };
    let tier = open(&config);
    let mut idle = Vec::new();
    for seed in 0..8 {
        let object = filled(&tier, seed, BLOCK).await;
        tier.sync().unwrap();
        let backing = object.backing().unwrap().unwrap();
        backing.set_idle(true);
        idle.push(backing);
    }
    // Lets go as a file system does: when told, in a thread of its own, a moment later.
    let idle = Arc::new(Mutex::new(idle));
    let (told, hear) = mpsc::sync_channel::<()>(64);
    tier.on_evict(move |_| told.try_send(()).unwrap());
    let held = Arc::clone(&idle);
    let letting_go = std::thread::spawn(move || {
        while hear.recv().is_ok() {
            std::thread::sleep(Duration::from_millis(20));
            held.lock().unwrap().retain(|backing| !backing.is_evicted());
        }
    });
    for seed in 100..103 {
        drop(filled(&tier, seed, BLOCK).await);
        assert_eq!(tier.stats().evicted_objects, seed - 99);
    }
    assert_eq!(idle.lock().unwrap().len(), 5);
    drop(tier);
    letting_go.join().unwrap();
}

/// Notes the capacity it is told.
#[derive(Debug)]
struct Told(Arc<AtomicU64>);

impl Policy for Told {
    fn open(&mut self, _: &Access<'_>) -> Admission {
        Admission::Keep
    }

    fn inserted(&mut self, _: &DatasetKey, _: Digest, _: u64) {}

    fn removed(&mut self, _: &Digest) {}

    fn victims(&mut self, _: u64, _: &dyn Fn(&Digest) -> bool) -> Vec<Digest> {
        Vec::new()
    }

    fn set_capacity(&mut self, bytes: u64) {
        self.0.store(bytes, Ordering::SeqCst);
    }
}

// Without this, the policy would share out space that the watermark keeps from it, and what it admits
// would push out what it promised to keep.
#[tokio::test]
async fn the_policy_is_told_when_others_fill_the_disk() {
    let disk = match Disk::tmpfs(128 * MIB) {
        Ok(disk) => disk,
        Err(reason) => {
            println!("SKIP the_policy_is_told_when_others_fill_the_disk: {reason}");
            return;
        }
    };
    let config = HotConfig {
        limit_bytes: 64 * MIB,
        min_free_bytes: 32 * MIB,
        ..config(&disk.path())
    };
    let told = Arc::new(AtomicU64::new(64 * MIB));
    let tier = HotTier::open(config, Box::new(Told(Arc::clone(&told)))).unwrap();
    let begun = Instant::now();
    let wait_for = async |what: &str, is: &dyn Fn(u64) -> bool| {
        while !is(told.load(Ordering::SeqCst)) {
            let capacity = told.load(Ordering::SeqCst);
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "{what}: {capacity}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // Nothing is written to the tier: it has to find out by itself.
    let foreign = disk.path().join("foreign");
    std::fs::write(&foreign, vec![1; 64 << 20]).unwrap();
    wait_for("less", &|capacity| capacity < 34 * MIB).await;
    std::fs::remove_file(&foreign).unwrap();
    wait_for("all again", &|capacity| capacity == 64 * MIB).await;
    drop(tier);
}

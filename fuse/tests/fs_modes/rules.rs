//! Random runs, files that complete while they are open, and ids that nobody uses.

use crate::fs_support::{Extras, World};
use std::time::Duration;
use terrace_fuse::fs::Opened;
use terrace_fuse::handles::Mode;

use crate::run::*;

// Without it an application could get EIO from open(2), the most likely bug of passthrough, or the
// bytes of another file, when opens, completions, evictions and restarts come in any order.
#[test]
fn no_reply_to_open_breaks_a_rule_of_the_kernel() {
    let mut seen = [0; 4];
    for seed in 0..6 {
        let files = [
            ("large-a", 3 * SMALL + 17),
            ("large-b", 2 * SMALL),
            ("large-c", SMALL + 1),
            ("small-a", SMALL),
            ("small-b", 4096),
            ("small-c", 9),
        ];
        let world = World::new(&std::env::temp_dir(), &files, Extras::default());
        let mut run = Run::new(&world, seed);
        for file in world.files.iter().filter(|file| file.size > SMALL) {
            world.gate.hold(&run.key(file));
        }
        println!("seed {seed}");
        let counts = world.runtime.block_on(async {
            for number in 0..600 {
                run.step(number).await;
            }
            run.finish().await
        });
        for (sum, count) in seen.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    assert!(
        seen.iter().all(|count| *count > 0),
        "it proved nothing: {seen:?}"
    );
}

// Without it a file that completes while somebody has it open stays slow for everybody else.
#[test]
fn a_completed_file_opens_passthrough_while_old_handles_drain() {
    let world = World::new(
        &std::env::temp_dir(),
        &[("f", 3 * SMALL)],
        Extras::default(),
    );
    let run = Run::new(&world, 1);
    let file = world.files[0].clone();
    world.gate.hold(&run.key(&file));
    world.runtime.block_on(async {
        let node = run.node_of("f").await;
        let Opened::Handle {
            fh: old,
            mode: Mode::Cached,
        } = run.fs.open(node, 2, 0).await.unwrap()
        else {
            panic!("an incomplete large file opens cached")
        };
        world.gate.let_go(&run.key(&file));
        // The kernel is told to forget the name, by itself.
        let forgotten = async {
            while run.kernel.0.lock().unwrap().names.contains_key("f") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), forgotten)
            .await
            .unwrap();
        let next = run.node_of("f").await;
        assert_ne!(next, node);
        let opened = run.fs.open(next, 4, 0).await.unwrap();
        let Opened::Handle {
            fh: new,
            mode: Mode::Passthrough(_),
        } = opened
        else {
            panic!("not passthrough: {opened:?}")
        };
        let stale = run.fs.open(node, 6, 0).await.unwrap();
        assert!(
            matches!(
                stale,
                Opened::Handle {
                    mode: Mode::Cached,
                    ..
                }
            ),
            "{stale:?}"
        );
        assert_eq!(
            run.fs.attr(next).unwrap().0.ino,
            run.fs.attr(node).unwrap().0.ino
        );
        let bytes = run.fs.read(node, old, SMALL - 3, 9).await.unwrap();
        assert_eq!(bytes, file.bytes(SMALL - 3..SMALL + 6));
        let status = run.fs.status();
        assert_eq!((status.opens_cached, status.opens_passthrough), (2, 1));
        assert!(status.reincarnations >= 1);
        let Opened::Handle { fh: stale, .. } = stale else {
            unreachable!()
        };
        for fh in [old, new, stale] {
            run.fs.release(fh);
        }
        run.kernel.0.lock().unwrap().names.clear();
        assert_eq!(
            run.node_of("f").await,
            node,
            "the number is back when all have closed"
        );
        run.fs.shutdown().await;
    });
}

// Without it a cache of idle ids would keep the hot tier from evicting anything, or hold the space
// of what it evicted.
#[test]
fn an_idle_id_neither_stops_an_eviction_nor_outlives_it() {
    let world = World::new(&std::env::temp_dir(), &[("f", 5000)], Extras::default());
    let run = Run::new(&world, 1);
    let file = world.files[0].clone();
    world.runtime.block_on(async {
        let node = run.node_of("f").await;
        let open = async |unique| match run.fs.open(node, unique, 0).await.unwrap() {
            Opened::Handle {
                fh,
                mode: Mode::Passthrough(id),
            } => (fh, id),
            other => panic!("not passthrough: {other:?}"),
        };
        let (fh, id) = open(2).await;
        run.fs.release(fh);
        let (fh, again) = open(4).await;
        assert_eq!(again, id, "an idle id is used again");
        let digest = world.object(&file).id().digest();
        let hot = world.cache.hot().clone();
        let evict = async || {
            let hot = hot.clone();
            tokio::task::spawn_blocking(move || hot.evict(&digest))
                .await
                .unwrap()
                .unwrap()
        };
        assert!(!evict().await, "an open file is in use");
        run.fs.release(fh);
        // The tier syncs what is new in the background and holds it that long.
        let evicted = async {
            while !evict().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            while !run.kernel.0.lock().unwrap().ids.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), evicted)
            .await
            .unwrap();
        assert_eq!(run.fs.status().backing_ids, 0);
        let (fh, _) = open(6).await;
        run.fs.release(fh);
        run.fs.shutdown().await;
    });
}

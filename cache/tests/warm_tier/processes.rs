//! Daemons as processes: they share, and one that is killed blocks nobody.
//!
//! The second process is this test binary again, running [`child`] with its orders in a variable.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use terrace_cache::units::Span;
use terrace_cache::warm::WarmConfig;

use crate::support::{MIB, Node, Pattern, config, directories, eventually, files, object};

const ORDERS: &str = "TERRACE_WARM_CHILD";

/// Kills the process it was given, also when the test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn settings(dir: &Path) -> WarmConfig {
    WarmConfig {
        lease_ttl: Span(Duration::from_millis(800)),
        ..config(dir)
    }
}

fn start(dir: &Path, pause_millis: u64) -> Killed {
    let orders = format!("{pause_millis}:{}", dir.display());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["processes::child", "--exact", "--nocapture"])
        .env(ORDERS, orders)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    Killed(child.unwrap())
}

/// Not a test of its own: what the second process does. Reads four objects and prints its counters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(orders) = std::env::var(ORDERS) else {
        return;
    };
    let (pause, dir) = orders.split_once(':').unwrap();
    let pause = Duration::from_millis(pause.parse().unwrap());
    let cold = Pattern {
        pause,
        ..Pattern::default()
    };
    let node = Node::start(settings(Path::new(dir)), cold);
    for n in 0..4 {
        node.check(&object(&format!("p-{n}"), 10 * MIB)).await;
    }
    node.settle().await;
    println!("\nSERVED {}", node.served());
}

// Without this, sharing would hold between tasks of one process only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_read_each_byte_from_the_store_once() {
    for dir in directories("two_processes_read_each_byte_from_the_store_once") {
        let mut children = [start(dir.path(), 2), start(dir.path(), 2)];
        let mut served = 0;
        for Killed(child) in &mut children {
            let out = child.stdout.take().unwrap();
            let text = tokio::task::spawn_blocking(move || std::io::read_to_string(out));
            let text = text.await.unwrap().unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("SERVED "));
            served += line
                .unwrap_or_else(|| panic!("the child failed: {text}"))
                .parse::<u64>()
                .unwrap();
        }
        let total = 40 * MIB;
        assert!(served <= total + total / 50, "{served} of {total}");
    }
}

// Without this, the death of one node would stop the whole cluster from reading an object.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_holder_is_replaced() {
    for dir in directories("a_killed_holder_is_replaced") {
        let holder = start(dir.path(), 200);
        eventually("the holder has begun", || {
            dir.path().join("quarantine").exists() && !files(dir.path(), ".part").is_empty()
        })
        .await;
        let node = Node::start(settings(dir.path()), Pattern::default());
        let object = object("p-0", 10 * MIB);
        let reading = node.check(&object);
        let killing = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            drop(holder);
        };
        tokio::join!(reading, killing);
        node.settle().await;
        let stats = node.stats();
        assert_eq!((stats.leases_broken, stats.fills), (1, 1), "{stats:?}");
        assert!(
            files(dir.path(), ".part").is_empty(),
            "the dead one's part is gone"
        );
        assert_eq!(node.served(), object.size());
    }
}

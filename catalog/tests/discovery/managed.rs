//! Managed tables: old versions stay readable whatever upstream does to its files.

use std::sync::Arc;

use terrace_catalog::collect::{Collection, Collector, LEAST_GRACE};
use terrace_catalog::descriptor::{Descriptor, Kind, Storage};
use terrace_catalog::discovery::{BatchRequest, Discovery, Outcome};
use terrace_catalog::ledger::{Version, VersionState};
use terrace_catalog::manifest::Manifest;
use terrace_catalog::upstream::{UpFile, Upstream};
use terrace_catalog::vault::{Vault, Vaults};
use tokio::sync::mpsc;

use crate::store::Fault;
use crate::vault::{DirectoryVault, count};
use crate::world::{World, batch_id, name, spec};

const TABLE: &str = "ads.clicks";

struct Managed {
    world: World,
    vault: Arc<DirectoryVault>,
}

impl Managed {
    /// A table that is registered with this storage.
    async fn new(storage: Storage) -> Self {
        let mut world = World::new().await;
        let vault = DirectoryVault::new(&world.directory.path().join("cold"));
        let vaults = Vaults::new(vec![Arc::clone(&vault) as Arc<dyn Vault>]);
        world.discovery = Discovery::with_vaults(world.ledger.clone(), vaults);
        let upstream: Arc<dyn Upstream> = Arc::clone(&world.faults) as Arc<dyn Upstream>;
        world
            .discovery
            .add_root_on_demand(spec(), upstream)
            .unwrap();
        let source = format!("{}/ads.db/clicks", world.store.url());
        let mut descriptor = Descriptor::new(Kind::Dataset, name(TABLE), &source);
        descriptor.storage = storage;
        world.ledger.create(descriptor).await.unwrap();
        Self { world, vault }
    }

    /// Writes files of a partition, and its marker.
    fn write(&self, partition: &str, files: &[(&str, &str)]) {
        for (file, text) in files {
            let path = format!("ads.db/clicks/{partition}/{file}");
            self.world
                .write(&path, format!("id,name\n{text}\n").as_bytes());
        }
        self.world
            .write(&format!("ads.db/clicks/{partition}/_SUCCESS"), b"");
    }

    async fn published(&self) -> Version {
        let outcome = self.world.look(TABLE).await;
        assert!(
            matches!(outcome, Outcome::Published(_)),
            "{outcome:?} {}",
            self.world.why(TABLE)
        );
        self.world.latest(TABLE).await.unwrap()
    }

    /// Every file of a version with its bytes, read from where the version says they are.
    async fn read(&self, version: &Version) -> Vec<(String, String)> {
        let manifest = Manifest::open(self.world.ledger.blobs(), &version.manifest)
            .await
            .unwrap();
        let location = &manifest.header().location;
        let home = location
            .strip_prefix(self.vault.url())
            .expect("in the vault");
        let mut read = Vec::new();
        for file in manifest.files("", None, 1000).await.unwrap() {
            let up = UpFile {
                path: format!("{}/{}", home.trim_start_matches('/'), file.path).into(),
                size: file.size,
                mtime_ms: file.mtime_ms,
                token: Arc::clone(&file.token),
            };
            let bytes = self.vault.read(&up, 0..file.size).await.unwrap();
            assert!(file.checksum.is_some());
            read.push((
                file.path.to_string(),
                String::from_utf8(bytes.to_vec()).unwrap(),
            ));
        }
        read
    }

    async fn location(&self, version: &Version) -> String {
        let manifest = Manifest::open(self.world.ledger.blobs(), &version.manifest)
            .await
            .unwrap();
        manifest.header().location.to_string()
    }
}

fn expected(files: &[(&str, &str)]) -> Vec<(String, String)> {
    let file = |(path, text): &(&str, &str)| ((*path).to_owned(), format!("id,name\n{text}\n"));
    files.iter().map(file).collect()
}

// Without it an old version loses its rows when a sync system writes a partition again.
#[tokio::test]
async fn old_versions_outlive_their_originals() {
    let table = Managed::new(Storage::Managed).await;
    table.write("dt=1", &[("a.csv", "1,x"), ("b.csv", "2,y")]);
    let first = table.published().await;
    let of_first = expected(&[("dt=1/a.csv", "1,x"), ("dt=1/b.csv", "2,y")]);
    assert_eq!(table.read(&first).await, of_first);
    // Added: the same place, and nothing copied again.
    table.write("dt=2", &[("a.csv", "3,z")]);
    let second = table.published().await;
    assert_eq!(table.location(&second).await, table.location(&first).await);
    assert_eq!(table.read(&second).await.len(), 3);
    assert_eq!(count(&table.world.directory.path().join("cold")), 3);
    // Replaced and deleted: another place, and the ones before are what they were.
    table.write("dt=1", &[("a.csv", "9,overwritten")]);
    table.world.remove("ads.db/clicks/dt=1/b.csv");
    table.write("dt=1", &[]);
    let third = table.published().await;
    assert_ne!(table.location(&third).await, table.location(&first).await);
    let of_third = expected(&[("dt=1/a.csv", "9,overwritten"), ("dt=2/a.csv", "3,z")]);
    assert_eq!(table.read(&third).await, of_third);
    assert_eq!(table.read(&first).await, of_first);
    table.world.remove("ads.db/clicks/dt=2");
    for version in table
        .world
        .ledger
        .versions(&name(TABLE), 0, 10)
        .await
        .unwrap()
    {
        assert_eq!(version.state, VersionState::Committed);
        table.read(&version).await;
    }
    // Looked at again, and after a restart: nothing is new.
    assert_eq!(table.world.look(TABLE).await, Outcome::Unchanged);
    collects_nothing_that_is_needed(&table).await;
    assert_eq!(table.read(&first).await, of_first);
}

async fn collects_nothing_that_is_needed(table: &Managed) {
    let vaults = Vaults::new(vec![Arc::clone(&table.vault) as Arc<dyn Vault>]);
    let scratch = table.world.directory.path().to_owned();
    let collector = Collector::new(table.world.ledger.clone(), vaults, scratch);
    let (sender, mut items) = mpsc::channel(1000);
    let wanted = Collection {
        grace: LEAST_GRACE,
        dry_run: false,
    };
    let done = collector.run(wanted, &sender).await.unwrap();
    drop(sender);
    assert_eq!(
        (done.taken, done.young),
        (0, done.young),
        "{:?}",
        items.recv().await
    );
}

// The store or the vault fails at any call: no version, or the right one; the next look mends it.
#[tokio::test]
async fn failures_at_any_call_publish_nothing_wrong() {
    let table = Managed::new(Storage::Managed).await;
    table.write("dt=1", &[("a.csv", "1,x")]);
    table.published().await;
    table.write("dt=1", &[("a.csv", "2,y")]);
    let (mut fired, mut version) = (0, 1);
    for call in 0..200 {
        table.vault.fail_at(call);
        let before = table.vault.fired.load(std::sync::atomic::Ordering::SeqCst);
        let outcome = table.world.look(TABLE).await;
        let after = table.vault.fired.load(std::sync::atomic::Ordering::SeqCst);
        fired += after - before;
        table.vault.fail_at(u64::MAX);
        match outcome {
            Outcome::Published(number) => version = number,
            Outcome::Unchanged if version == 2 => break,
            Outcome::Unchanged | Outcome::Unknown(_) => continue,
        }
    }
    assert!(fired >= 4, "{fired} calls of the vault failed");
    assert_eq!(version, 2);
    table.write("dt=1", &[("a.csv", "3,z")]);
    for call in 0..200 {
        table.world.faults.set(Some(Fault::Unanswered(call)));
        let outcome = table.world.look(TABLE).await;
        table.world.faults.set(None);
        if outcome == Outcome::Published(3) {
            let latest = table.world.latest(TABLE).await.unwrap();
            assert_eq!(
                table.read(&latest).await,
                expected(&[("dt=1/a.csv", "3,z")])
            );
            return;
        }
        assert!(!matches!(outcome, Outcome::Published(_)), "{outcome:?}");
    }
    panic!("nothing was published");
}

// A table that becomes managed keeps what it had published; one that stops being it goes on upstream.
#[tokio::test]
async fn storage_can_be_changed() {
    let table = Managed::new(Storage::Reference).await;
    table.write("dt=1", &[("a.csv", "1,x")]);
    table.write("dt=2", &[("a.csv", "2,y")]);
    let first = table.published().await;
    let upstream = format!("{}/ads.db/clicks", table.world.store.url());
    assert_eq!(table.location(&first).await, upstream);
    let change = |storage: Storage| {
        let mut descriptor = Descriptor::new(Kind::Dataset, name(TABLE), &upstream);
        descriptor.storage = storage;
        table.world.ledger.update(descriptor, None)
    };
    change(Storage::Managed).await.unwrap();
    table.write("dt=2", &[("b.csv", "3,z")]);
    let second = table.published().await;
    let all = expected(&[
        ("dt=1/a.csv", "1,x"),
        ("dt=2/a.csv", "2,y"),
        ("dt=2/b.csv", "3,z"),
    ]);
    assert_eq!(table.read(&second).await, all);
    // A batch counts what it adds, not what was copied before.
    let request = |files: u64| -> BatchRequest {
        let text = format!(
            "{{\"mode\":\"append\",\"scope\":{{\"partitions\":[\"dt=1\"]}},\"expect\":{{\"files\":{files}}}}}"
        );
        serde_json::from_str(&text).unwrap()
    };
    table
        .world
        .write("ads.db/clicks/dt=1/b.csv", b"id,name\n4,w\n");
    let discovery = &table.world.discovery;
    let done = discovery
        .batch(&name(TABLE), &batch_id("wrong"), &request(2))
        .await;
    assert!(done.is_err(), "{done:?}");
    let done = discovery
        .batch(&name(TABLE), &batch_id("right"), &request(1))
        .await
        .unwrap();
    assert_eq!(table.read(done.version()).await.len(), 4);
    change(Storage::Reference).await.unwrap();
    table.write("dt=3", &[("a.csv", "5,v")]);
    let last = table.published().await;
    assert_eq!(table.location(&last).await, upstream);
    let manifest = Manifest::open(table.world.ledger.blobs(), &last.manifest)
        .await
        .unwrap();
    for file in manifest.files("", None, 100).await.unwrap() {
        let path = format!("ads.db/clicks/{}", file.path);
        let there = table.world.store.head(&path).await.unwrap();
        assert_eq!((there.size, there.token), (file.size, file.token), "{path}");
    }
}

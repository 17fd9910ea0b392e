//! Numbers of columns: given once, whoever asks, and not lost with the database.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;
use terrace_catalog::kv::Kv;
use terrace_catalog::kv::rocks::RocksKv;
use terrace_catalog::ledger::{ColumnIds, Ledger};

use super::world::World;

/// Gives a number to a column that has none.
fn ensure(ids: &mut ColumnIds, path: &str, kind: &str) {
    if ids.find(path, |known| known == kind).is_none() {
        ids.give(path, kind);
    }
}

// A number that two columns have makes a query read one as the other, for ever.
#[tokio::test]
async fn a_number_is_given_once() {
    let world = World::new();
    let ledger = world.open().await;
    let name = world.dataset(&ledger, "ads.clicks").await;
    let names: Vec<String> = (0..8).map(|at| format!("c{at}")).collect();
    let all = names.iter().map(|column| {
        let name = &name;
        ledger.column_ids(name, move |ids| {
            ensure(ids, "id", "long");
            ensure(ids, column, "string");
        })
    });
    for given in join_all(all).await {
        given.unwrap();
    }
    let before = ledger.dataset(&name).await.unwrap().revision;
    let ids = ledger.column_ids(&name, |ids| ensure(ids, "id", "long"));
    let ids = ids.await.unwrap();
    // Nothing was missing: nothing was written.
    assert_eq!(ledger.dataset(&name).await.unwrap().revision, before);
    let find = |path: &str| ids.find(path, |_| true).unwrap();
    let numbers: BTreeSet<u32> = names.iter().map(|column| find(column)).collect();
    assert_eq!(numbers.len(), 8);
    assert!(!numbers.contains(&find("id")));

    // Another kind of the same name is another column; the descriptor may change beside them.
    let other = ledger.column_ids(&name, |ids| ensure(ids, "id", "string"));
    let other = other.await.unwrap();
    let number = other.find("id", |kind| kind == "string").unwrap();
    assert!(number > 9 && other.find("id", |kind| kind == "long") == Some(find("id")));
    let mut changed = ledger
        .dataset(&name)
        .await
        .unwrap()
        .descriptor
        .as_ref()
        .clone();
    changed.description = "clicks".to_owned();
    ledger.update(changed, None).await.unwrap();

    // The database is lost; mirror files restore them.
    let kv = RocksKv::open(&world.directory.path().join("other")).unwrap();
    let (kv, blobs): (Arc<dyn Kv>, _) = (Arc::new(kv), ledger.blobs());
    let config = world.config();
    Ledger::rebuild(&kv, blobs, &config).await.unwrap();
    let again = Ledger::open(kv, Arc::clone(blobs), config);
    let again = again.await.unwrap();
    let restored = again.column_ids(&name, |_| {}).await.unwrap();
    assert_eq!(restored, other);
}

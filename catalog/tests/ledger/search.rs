//! Lists, searches, and changes of descriptors.

use std::sync::Arc;

use terrace_catalog::descriptor::{Descriptor, Kind};
use terrace_catalog::ledger::{Ledger, LedgerError, Purpose, Query};

use super::memory::MemoryBlobs;
use super::world::World;

async fn found(ledger: &Ledger, query: &Query) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let after = all.last().map(|last| last.parse().unwrap());
        let page = ledger.datasets(query, after.as_ref(), 2).await.unwrap();
        let end = page.len() < 2;
        all.extend(page.iter().map(|dataset| dataset.name().to_string()));
        if end {
            return all;
        }
    }
}

fn text(text: &str) -> Query {
    Query {
        text: text.into(),
        ..Query::default()
    }
}

/// Two replicas on one store, and some datasets.
async fn replicas(world: &World) -> (Ledger, Ledger) {
    let (kv, blobs) = (world.kv(), MemoryBlobs::shared());
    let open = async || {
        let (kv, blobs) = (Arc::clone(&kv), Arc::clone(&blobs));
        Ledger::open(kv, blobs, world.config()).await.unwrap()
    };
    let (one, other) = (open().await, open().await);
    assert!(found(&other, &text("clicks")).await.is_empty());
    for (name, kind) in [
        ("ads.clicks", Kind::Dataset),
        ("ads.views", Kind::Dataset),
        ("ads-eu.clicks", Kind::Dataset),
        ("team.churn", Kind::Model),
        ("web.sessions", Kind::Dataset),
    ] {
        let mut descriptor = Descriptor::new(kind, name.parse().unwrap(), "s3://lake/t");
        descriptor.description = format!("Rows of {name}, from the Web servers");
        descriptor
            .labels
            .insert("Team".into(), name[..3].to_uppercase());
        one.create(descriptor).await.unwrap();
    }
    (one, other)
}

// What cannot be found is registered a second time.
#[tokio::test]
async fn what_was_registered_is_found_by_every_replica() {
    let world = World::new();
    let (_one, other) = replicas(&world).await;
    let everything = found(&other, &Query::default()).await;
    assert_eq!(
        everything,
        [
            "ads-eu.clicks",
            "ads.clicks",
            "ads.views",
            "team.churn",
            "web.sessions"
        ]
    );
    assert_eq!(
        found(&other, &text("CLICKS")).await,
        ["ads-eu.clicks", "ads.clicks"]
    );
    assert_eq!(found(&other, &text("team=web")).await, ["web.sessions"]);
    assert_eq!(found(&other, &text("from the web")).await.len(), 5);
    let of_namespace = Query {
        namespace: Some("ads".into()),
        ..Query::default()
    };
    assert_eq!(
        found(&other, &of_namespace).await,
        ["ads.clicks", "ads.views"]
    );
    let models = Query {
        kind: Some(Kind::Model),
        ..of_namespace.clone()
    };
    assert!(found(&other, &models).await.is_empty());
    let in_both = Query {
        text: "clicks".into(),
        ..of_namespace
    };
    assert_eq!(found(&other, &in_both).await, ["ads.clicks"]);
}

// A replica that missed a change shows what is gone, and hides what is there.
#[tokio::test]
async fn changes_are_found_by_every_replica() {
    let world = World::new();
    let (one, other) = replicas(&world).await;
    assert_eq!(found(&other, &text("views")).await, ["ads.views"]);
    let name = "ads.views".parse().unwrap();
    let before = one.dataset(&name).await.unwrap();
    let mut changed = Descriptor::clone(&before.descriptor);
    changed.description = "impressions".into();
    let after = one
        .update(changed.clone(), Some(before.revision))
        .await
        .unwrap();
    assert_eq!(found(&other, &text("impression")).await, ["ads.views"]);
    let again = one
        .update(before.descriptor.as_ref().clone(), Some(before.revision))
        .await;
    assert!(
        matches!(again, Err(LedgerError::Busy(_))),
        "an update of what was not read"
    );
    assert_eq!(
        one.update(changed, None).await.unwrap(),
        after,
        "nothing changed"
    );
    let last = one.events(0, 1024).await.unwrap().pop().unwrap().sequence;
    one.begin_removal(&name, Purpose::Ordinary).await.unwrap();
    world.pass(86_400_000);
    one.finish_removal(&name, Purpose::Ordinary).await.unwrap();
    let end = one.events(0, 1024).await.unwrap().pop().unwrap().sequence;
    one.trim_events(end).await.unwrap();
    assert!(matches!(
        other.events(last, 10).await,
        Err(LedgerError::Trimmed(_))
    ));
    assert!(found(&other, &text("impression")).await.is_empty());
    assert_eq!(found(&other, &text("clicks")).await.len(), 2);
}

// Two registrations of one name: one of them must hear that it was second.
#[tokio::test]
async fn a_name_is_given_once() {
    let world = World::new();
    let ledger = world.open().await;
    let name = world.dataset(&ledger, "ads.clicks").await;
    let descriptor = Descriptor::new(Kind::Dataset, name.clone(), "s3://lake/other");
    assert!(matches!(
        ledger.create(descriptor).await,
        Err(LedgerError::Exists(_))
    ));
    let model = Descriptor::new(Kind::Model, name, "");
    assert!(matches!(
        ledger.update(model, None).await,
        Err(LedgerError::Refused(_))
    ));
}

//! What is known of nodes, with tokens of a real database and a clock of the test.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use super::*;
use crate::access::{Access, Grants, TokenRequest};
use crate::kv::rocks::RocksKv;

async fn principals(grants: &[&[&str]]) -> Vec<Principal> {
    let directory = tempfile::tempdir().unwrap();
    let kv = RocksKv::open(&directory.path().join("kv")).unwrap();
    let access = Access::new(Arc::new(kv));
    let mut all = Vec::new();
    for grants in grants {
        let request = TokenRequest {
            name: "node".to_owned(),
            grants: Grants::parse(grants).unwrap(),
            expires_ms: None,
        };
        let (token, _) = access.issue(request, 1).await.unwrap();
        all.push(access.check(&token, 1).await.unwrap());
    }
    all
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn heat(dataset: &str, version: u64, is_open: bool) -> Heat {
    Heat {
        dataset: dataset.parse().unwrap(),
        version,
        total_bytes: 10,
        hot_bytes: 4,
        warm_bytes: None,
        is_open,
    }
}

fn tree(heat: Vec<Heat>) -> Said {
    Said {
        mounts: vec![Mounted {
            mountpoint: "/data".to_owned(),
            version: None,
        }],
        heat,
        ..Said::default()
    }
}

// Who has what is soft: a node that is silent must neither look alive nor stay for ever.
#[tokio::test]
async fn a_silent_node_gets_old_and_is_forgotten() {
    let own = principals(&[&["read:*"]]).await.remove(0);
    let presence = Presence::default();
    presence
        .hear(&name("n1"), own, tree(vec![heat("a.b", 1, false)]), 1000)
        .unwrap();
    for (now, fresh) in [(1000, true), (31_000, true), (31_001, false)] {
        let nodes = presence.nodes(now, |_| true);
        assert_eq!((nodes.len(), nodes[0].is_fresh), (1, fresh), "{now}");
        assert_eq!(presence.fresh(now), usize::from(fresh));
        let able = presence.able(&"a.b".parse().unwrap(), 1, Tier::Hot, now);
        assert_eq!(able.len(), usize::from(fresh));
    }
    assert!(presence.nodes(1000 + GONE_MS + 1, |_| true).is_empty());
}

// Without it a tenant's node would say what another tenant reads, or speak for another's node.
#[tokio::test]
async fn a_node_speaks_for_itself_and_of_what_it_may_read() {
    let tokens = principals(&[&["read:ads"], &["read:*"]]).await;
    let presence = Presence::default();
    let said = || tree(vec![heat("ads.clicks", 1, true), heat("hr.pay", 1, true)]);
    let n1 = name("n1");
    presence.hear(&n1, tokens[0].clone(), said(), 0).unwrap();
    let seen = &presence.nodes(0, |_| true)[0].said.heat;
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].dataset.as_str(), "ads.clicks");
    assert!(presence.nodes(0, |_| false)[0].said.heat.is_empty());
    let due = presence.due(&n1, -1, 9);
    assert_eq!(due.hold, [("ads.clicks".parse().unwrap(), 1)]);
    let stolen = presence.hear(&n1, tokens[1].clone(), said(), FRESH_MS);
    assert!(matches!(stolen, Err(PresenceError::Taken(_))), "{stolen:?}");
    let twin = Said {
        instance: "another disk".to_owned(),
        ..said()
    };
    let twin = presence.hear(&n1, tokens[0].clone(), twin, 1);
    assert_eq!(twin, Err(PresenceError::Twin(n1.clone())));
    // A node that got another token is itself again when the old one is silent.
    let later = FRESH_MS + 1;
    presence
        .hear(&n1, tokens[1].clone(), said(), later)
        .unwrap();
    assert_eq!(presence.nodes(later, |_| true)[0].said.heat.len(), 2);
}

// A job that is asked of nodes that cannot do it fails on all of them.
#[tokio::test]
async fn jobs_are_asked_of_nodes_that_can_do_them() {
    let tokens = principals(&[&["read:ads"], &["list:*"]]).await;
    let presence = Presence::default();
    let pinned = |version| Said {
        mounts: vec![Mounted {
            mountpoint: "/clicks".to_owned(),
            version: Some(("ads.clicks".parse().unwrap(), version)),
        }],
        ..Said::default()
    };
    let warm = Said {
        tiers: vec![TierUse {
            name: "warm".to_owned(),
            used_bytes: None,
            limit_bytes: None,
        }],
        ..tree(Vec::new())
    };
    for (node, token, said) in [
        ("all", 0, tree(Vec::new())),
        ("other", 0, pinned(1)),
        ("same", 0, pinned(2)),
        ("stranger", 1, tree(Vec::new())),
        ("unmounted", 0, Said::default()),
        ("warm1", 0, warm.clone()),
        ("warm2", 0, warm),
    ] {
        let reporter = tokens[token].clone();
        presence.hear(&name(node), reporter, said, 0).unwrap();
    }
    let able = |tier| {
        let able = presence.able(&"ads.clicks".parse().unwrap(), 2, tier, 1);
        able.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(able(Tier::Hot), ["all", "same", "warm1", "warm2"]);
    assert_eq!(able(Tier::Warm), ["warm1"]);
}

// A hold that is written with each report wears the disk, and one that is not renewed ends.
#[tokio::test]
async fn holds_are_renewed_now_and_then() {
    let own = principals(&[&["read:*"]]).await.remove(0);
    let presence = Presence::default();
    let n1 = name("n1");
    let hear = |open: bool, now| {
        let said = tree(vec![heat("a.b", 1, open)]);
        presence.hear(&n1, own.clone(), said, now).unwrap();
    };
    hear(true, 0);
    let due = presence.due(&n1, -5, 9);
    assert_eq!((due.hold.len(), due.release.len()), (1, 0));
    presence.done(&n1, &due, 0);
    hear(true, 1);
    assert_eq!(presence.due(&n1, -4, 9), Due::default());
    assert_eq!(presence.due(&n1, 0, 9).hold.len(), 1);
    hear(false, 2);
    let due = presence.due(&n1, -3, 9);
    assert_eq!((due.hold.len(), due.release.len()), (0, 1));
    presence.done(&n1, &due, 2);
    assert_eq!(presence.due(&n1, -3, 9), Due::default());
}

// A catalog of many nodes keeps those that are there.
#[tokio::test]
async fn the_number_of_nodes_is_bounded() {
    let own = principals(&[&["read:*"]]).await.remove(0);
    let presence = Presence::default();
    for number in 0..MAX_NODES {
        let node = name(&format!("n{number}"));
        presence
            .hear(&node, own.clone(), Said::default(), 0)
            .unwrap();
    }
    let late = name("late");
    let refused = presence.hear(&late, own.clone(), Said::default(), 1);
    assert_eq!(refused, Err(PresenceError::Full));
    let after = FRESH_MS + 1;
    presence.hear(&late, own, Said::default(), after).unwrap();
    assert_eq!(presence.nodes(after, |_| true).len(), MAX_NODES);
}

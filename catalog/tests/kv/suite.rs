//! The suite itself: functions over any store.

use bytes::Bytes;
use terrace_catalog::kv::{
    Compare, KeyRange, KvError, MAX_KEY, MAX_OPS, MAX_PAGE, MAX_VALUE, Txn, TxnOutcome,
};

use super::Fixture;
pub(crate) use super::backup::{a_backup_is_one_moment_and_restores, damaged_backups_are_refused};
pub(crate) use super::linear::histories_are_linearizable;

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn revision(outcome: TxnOutcome) -> u64 {
    match outcome {
        TxnOutcome::Committed { revision } => revision,
        TxnOutcome::Conflict { failed } => panic!("compare {failed} did not hold"),
    }
}

pub(crate) async fn transactions_are_all_or_nothing(fixture: Fixture) {
    let kv = &fixture.kv;
    let txn = Txn::new()
        .put(bytes("a"), bytes("1"))
        .put(bytes("b"), bytes("1"));
    let first = revision(kv.txn(txn).await.unwrap());
    let txn = Txn::new()
        .when(Compare::Value(bytes("a"), bytes("1")))
        .when(Compare::Absent(bytes("b")))
        .put(bytes("a"), bytes("2"))
        .put(bytes("c"), bytes("2"))
        .append(bytes("log/"), bytes("2"))
        .delete(bytes("b"));
    assert_eq!(
        kv.txn(txn).await.unwrap(),
        TxnOutcome::Conflict { failed: 1 }
    );
    let keys = [bytes("a"), bytes("b"), bytes("c"), bytes("a")];
    let found = fixture.other.get_many(&keys).await.unwrap();
    let values: Vec<Option<&[u8]>> = found
        .iter()
        .map(|found| found.as_ref().map(|found| &found.value[..]))
        .collect();
    assert_eq!(values, [Some(&b"1"[..]), Some(b"1"), None, Some(b"1")]);
    assert!(
        found[0]
            .as_ref()
            .is_some_and(|found| found.revision == first)
    );
    assert!(
        kv.scan(KeyRange::prefix(b"log/"), 10)
            .await
            .unwrap()
            .is_empty()
    );
    // Operations happen in their order, and a value may be empty.
    let txn = Txn::new()
        .put(bytes("c"), bytes("x"))
        .delete(bytes("c"))
        .put(bytes("a"), Bytes::new())
        .delete(bytes("not there"));
    let second = revision(kv.txn(txn).await.unwrap());
    assert!(second > first);
    assert_eq!(kv.get(b"c").await.unwrap(), None);
    let emptied = kv.get(b"a").await.unwrap().unwrap();
    assert_eq!((emptied.value.len(), emptied.revision), (0, second));
    // A floor for restored keys.
    let floor = Txn {
        floor: 1_000_000,
        ..Txn::new().put(bytes("d"), bytes("1"))
    };
    assert!(revision(kv.txn(floor).await.unwrap()) > 1_000_000);
}

pub(crate) async fn compares_compare(fixture: Fixture) {
    let kv = &fixture.kv;
    let put = Txn::new().put(bytes("k"), bytes("v"));
    let first = revision(kv.txn(put).await.unwrap());
    let change = || Txn::new().put(bytes("done"), bytes("1"));
    let holds = [
        Compare::Absent(bytes("other")),
        Compare::Revision(bytes("k"), first),
        Compare::Value(bytes("k"), bytes("v")),
    ];
    for compare in holds {
        let outcome = fixture
            .other
            .txn(change().when(compare.clone()))
            .await
            .unwrap();
        assert!(
            matches!(outcome, TxnOutcome::Committed { .. }),
            "{compare:?}"
        );
    }
    let fails = [
        Compare::Absent(bytes("k")),
        Compare::Revision(bytes("k"), first + 1),
        Compare::Revision(bytes("k"), u64::MAX),
        Compare::Revision(bytes("other"), 0),
        Compare::Value(bytes("k"), bytes("w")),
        Compare::Value(bytes("k"), Bytes::new()),
        Compare::Value(bytes("other"), Bytes::new()),
    ];
    for compare in fails {
        let outcome = kv.txn(change().when(compare.clone())).await.unwrap();
        assert_eq!(outcome, TxnOutcome::Conflict { failed: 0 }, "{compare:?}");
    }
    // Written again with the same value: another revision.
    let put = Txn::new().put(bytes("k"), bytes("v"));
    assert!(revision(kv.txn(put).await.unwrap()) > first);
    let outcome = kv
        .txn(change().when(Compare::Revision(bytes("k"), first)))
        .await;
    assert_eq!(outcome.unwrap(), TxnOutcome::Conflict { failed: 0 });
}

pub(crate) async fn pages_are_ordered_and_complete(fixture: Fixture) {
    let kv = &fixture.kv;
    let mut keys: Vec<Bytes> = (0..200u32)
        .map(|number| {
            Bytes::from([&b"p/"[..], &number.wrapping_mul(0x9e37_79b9).to_be_bytes()].concat())
        })
        .collect();
    // Keys that only bytes order rightly, and neighbours of the prefix.
    keys.push(Bytes::from_static(b"p/"));
    keys.push(Bytes::from_static(b"p/\xff\xff"));
    keys.push(Bytes::from_static(b"p/\x00"));
    let around = [
        Bytes::from_static(b"p."),
        Bytes::from_static(b"p0"),
        Bytes::from_static(b"\xff"),
    ];
    for part in keys
        .iter()
        .chain(&around)
        .collect::<Vec<_>>()
        .chunks(MAX_OPS)
    {
        let txn = part
            .iter()
            .fold(Txn::new(), |txn, key| txn.put((*key).clone(), bytes("x")));
        revision(kv.txn(txn).await.unwrap());
    }
    keys.sort();
    for page in [1, 7, 4096] {
        let mut found: Vec<Bytes> = Vec::new();
        let mut range = KeyRange::prefix(b"p/");
        loop {
            let items = fixture.other.scan(range.clone(), page).await.unwrap();
            found.extend(items.iter().map(|(key, _)| key.clone()));
            match items.last() {
                Some((last, _)) if items.len() == page => range = range.after(last),
                _ => break,
            }
        }
        assert_eq!(found, keys, "in pages of {page}");
    }
    let all = kv.scan(KeyRange::prefix(b""), MAX_PAGE).await.unwrap();
    assert_eq!(all.len(), keys.len() + around.len());
    let last = kv.scan(KeyRange::prefix(b"\xff"), 10).await.unwrap();
    assert_eq!(last.len(), 1);
    assert!(
        kv.scan(KeyRange::prefix(b"q"), 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        kv.scan(KeyRange::prefix(b"p/").after(b"p0"), 10)
            .await
            .unwrap()
            .is_empty()
    );
}

pub(crate) async fn limits_are_refused(fixture: Fixture) {
    let kv = &fixture.kv;
    let limits = kv.limits();
    assert_eq!((limits.ops, limits.value), (12, 256 << 10));
    let many = (0..=MAX_OPS).fold(Txn::new(), |txn, n| txn.delete(bytes(&n.to_string())));
    let compares = (0..=MAX_OPS).fold(Txn::new(), |txn, n| {
        txn.when(Compare::Absent(bytes(&n.to_string())))
    });
    let long_key = Bytes::from(vec![b'k'; MAX_KEY + 1]);
    let refused = [
        many,
        compares,
        Txn::new().put(bytes("k"), vec![0; MAX_VALUE + 1].into()),
        Txn::new().put(long_key.clone(), Bytes::new()),
        Txn::new().put(Bytes::new(), Bytes::new()),
        Txn::new().append(vec![b'k'; MAX_KEY - 7].into(), Bytes::new()),
    ];
    for txn in refused {
        let error = kv.txn(txn).await.unwrap_err();
        assert!(matches!(error, KvError::Limit { .. }), "{error}");
    }
    assert!(matches!(
        kv.get(&long_key).await,
        Err(KvError::Limit { .. })
    ));
    let range = KeyRange::prefix(b"");
    assert!(matches!(
        kv.scan(range.clone(), MAX_PAGE + 1).await,
        Err(KvError::Limit { .. })
    ));
    assert!(kv.scan(range, 10).await.unwrap().is_empty());
    // And what the limits allow is allowed, all at once.
    let key = |n: usize| Bytes::from([vec![b'k'; MAX_KEY - 1], vec![n as u8]].concat());
    let value = Bytes::from(vec![0xa5; MAX_VALUE]);
    let largest = (0..MAX_OPS).fold(Txn::new(), |txn, n| {
        txn.when(Compare::Absent(key(n))).put(key(n), value.clone())
    });
    revision(kv.txn(largest).await.unwrap());
    assert_eq!(
        fixture.other.get(&key(3)).await.unwrap().unwrap().value,
        value
    );
}

pub(crate) async fn appended_keys_are_never_missed(fixture: Fixture) {
    const WRITERS: u64 = 4;
    const EACH: u64 = 50;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let kv = if writer % 2 == 0 {
            &fixture.kv
        } else {
            &fixture.other
        };
        let kv = std::sync::Arc::clone(kv);
        writers.spawn(async move {
            for number in 0..EACH {
                let text = bytes(&format!("{writer}/{number}"));
                let txn = Txn::new()
                    .append(bytes("log/"), text.clone())
                    .put(text, bytes(""));
                revision(kv.txn(txn).await.unwrap());
            }
        });
    }
    // A reader that only ever looks behind what it has seen.
    let mut watch = fixture.other.watch(b"log/").await.unwrap();
    let mut range = KeyRange::prefix(b"log/");
    let mut seen = Vec::new();
    while seen.len() < (WRITERS * EACH) as usize {
        let page = fixture.other.scan(range.clone(), 7).await.unwrap();
        match page.last() {
            Some((last, _)) => range = range.after(last),
            None => watch.changed().await.unwrap(),
        }
        for (key, stored) in page {
            let at = u64::from_be_bytes(*key.last_chunk::<8>().unwrap());
            assert_eq!(at, stored.revision);
            seen.push(stored.value);
        }
    }
    writers.join_all().await;
    let expected = (0..WRITERS).flat_map(|writer| (0..EACH).map(move |n| format!("{writer}/{n}")));
    let mut expected: Vec<Bytes> = expected.map(|text| bytes(&text)).collect();
    expected.sort();
    seen.sort();
    assert_eq!(seen, expected);
}

pub(crate) async fn a_watch_wakes_after_every_change(fixture: Fixture) {
    let (kv, other) = (&fixture.kv, &fixture.other);
    let mut watch = other.watch(b"k").await.unwrap();
    let mut second = other.watch(b"k").await.unwrap();
    for number in 0..20u32 {
        let value = bytes(&number.to_string());
        revision(
            kv.txn(Txn::new().put(bytes("k"), value.clone()))
                .await
                .unwrap(),
        );
        // As a reader uses it: until it sees what was written.
        while other.get(b"k").await.unwrap().map(|found| found.value) != Some(value.clone()) {
            watch.changed().await.unwrap();
        }
    }
    // Changes before the wait count too, and a deletion is one.
    second.changed().await.unwrap();
    revision(kv.txn(Txn::new().delete(bytes("k"))).await.unwrap());
    while other.get(b"k").await.unwrap().is_some() {
        watch.changed().await.unwrap();
    }
    drop(fixture);
}

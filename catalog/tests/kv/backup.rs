//! Backup and restore, from any store into any store.

use std::sync::Arc;

use terrace_catalog::kv::rocks::RocksKv;
use terrace_catalog::kv::{BackupError, KeyRange, Kv, MAX_PAGE, Txn, TxnOutcome, export, import};

use super::Fixture;
use super::suite::{bytes, revision};

async fn restored(backup: &[u8]) -> Result<(tempfile::TempDir, RocksKv), BackupError> {
    let directory = tempfile::tempdir().unwrap();
    let kv = RocksKv::open(&directory.path().join("kv")).unwrap();
    import(&kv, &mut &backup[..]).await?;
    Ok((directory, kv))
}

pub(crate) async fn a_backup_is_one_moment_and_restores(fixture: Fixture) {
    let kv = &fixture.kv;
    for number in 0..150u32 {
        let txn = (0..10).fold(Txn::new(), |txn, part| {
            txn.put(bytes(&format!("k/{number:04}/{part}")), bytes("x"))
        });
        revision(kv.txn(txn.append(bytes("log/"), bytes("x"))).await.unwrap());
    }
    // Two keys at both ends that are always equal, changed all the time.
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let (kv, stop) = (Arc::clone(&fixture.other), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut number = 0u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                number += 1;
                let value = bytes(&number.to_string());
                let txn = Txn::new()
                    .put(bytes("a"), value.clone())
                    .put(bytes("z"), value);
                revision(kv.txn(txn).await.unwrap());
            }
        })
    };
    let mut backups = Vec::new();
    for _ in 0..5 {
        let mut backup = Vec::new();
        let report = export(kv.as_ref(), &mut backup).await.unwrap();
        assert!(report.keys >= 1650);
        backups.push(backup);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.await.unwrap();
    for backup in &backups {
        let (_directory, copy) = restored(backup).await.unwrap();
        let ends = copy.get_many(&[bytes("a"), bytes("z")]).await.unwrap();
        let values: Vec<_> = ends
            .iter()
            .map(|end| end.as_ref().map(|end| &end.value))
            .collect();
        assert_eq!(values[0], values[1], "two moments in one backup");
    }
    // All of it, and what is appended now comes behind what was appended then.
    let (_directory, copy) = restored(backups.last().unwrap()).await.unwrap();
    let all = copy.scan(KeyRange::prefix(b"k/"), MAX_PAGE).await.unwrap();
    assert_eq!(all.len(), 1500);
    let log = KeyRange::prefix(b"log/");
    let last = copy
        .scan(log.clone(), MAX_PAGE)
        .await
        .unwrap()
        .pop()
        .unwrap()
        .0;
    revision(
        copy.txn(Txn::new().append(bytes("log/"), bytes("new")))
            .await
            .unwrap(),
    );
    assert_eq!(copy.scan(log.after(&last), 10).await.unwrap().len(), 1);
    let again = import(&copy, &mut &backups[0][..]).await;
    assert!(matches!(again, Err(BackupError::NotEmpty)));
}

pub(crate) async fn damaged_backups_are_refused(fixture: Fixture) {
    for number in 0..30u32 {
        let txn = Txn::new().put(bytes(&format!("k{number:02}")), bytes("value"));
        assert!(matches!(
            fixture.kv.txn(txn).await,
            Ok(TxnOutcome::Committed { .. })
        ));
    }
    let mut good = Vec::new();
    export(fixture.kv.as_ref(), &mut good).await.unwrap();
    assert!(restored(&good).await.is_ok());
    let text = String::from_utf8(good).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let without = |gone: usize| {
        let left = lines.iter().enumerate().filter(|(at, _)| *at != gone);
        left.map(|(_, line)| format!("{line}\n"))
            .collect::<String>()
    };
    let damaged = [
        String::new(),
        text[..text.len() / 2].to_owned(),
        without(0),
        without(7),
        without(lines.len() - 1),
        text.replace("\"v\":\"76", "\"v\":\"77"),
        text.replace("\"v\":\"76", "\"v\":\"7g"),
        text.replacen("backup\":1", "backup\":2", 1),
        [lines[0], lines[2], lines[1], lines[3]].join("\n"),
    ];
    for (at, bad) in damaged.iter().enumerate() {
        let error = restored(bad.as_bytes()).await.map(|_| ()).unwrap_err();
        assert!(
            matches!(error, BackupError::Damaged { .. }),
            "{at}: {error}"
        );
    }
}

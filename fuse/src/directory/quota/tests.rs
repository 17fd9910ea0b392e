//! Sums, refusals and counts without a kernel mount.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn quota(place: &Path, bytes: u64, files: u64) -> Arc<Quota> {
    let parts = QuotaParts {
        limits: QuotaLimits {
            bytes: Some(bytes),
            files: Some(files),
        },
        known: QuotaUse::default(),
    };
    Quota::open(&place.join("quota"), true, parts).unwrap()
}

fn used(quota: &Quota) -> (u64, u64) {
    let used = quota.status().used;
    (used.bytes, used.files)
}

// Without it a limit would be passed by whoever asks in small steps, or a refused file be paid for.
#[test]
fn what_is_granted_never_passes_the_limit() {
    let place = tempfile::tempdir().unwrap();
    let quota = quota(place.path(), 100, 2);
    quota.take(60, 0).unwrap();
    assert_eq!(quota.take(41, 0), Err(Errno::EDQUOT));
    assert_eq!(quota.take_some(100), 40);
    assert_eq!(quota.take_some(1), 0);
    let kept = Charge::file(Some(&quota)).unwrap();
    let given_up = Charge::file(Some(&quota)).unwrap();
    assert_eq!(Charge::file(Some(&quota)).unwrap_err(), Errno::EDQUOT);
    kept.keep();
    drop(given_up);
    assert_eq!(used(&quota), (100, 1));
    assert_eq!(quota.status().refused, 2);
    quota.set_limits(QuotaLimits {
        bytes: Some(50),
        files: None,
    });
    assert_eq!(quota.take(1, 0), Err(Errno::EDQUOT), "it was lowered");
    quota.settle(-60, 0);
    quota.take(10, 5).unwrap();
    assert_eq!(used(&quota), (50, 6));
}

// Without it the next worker would begin with what somebody counted long ago.
#[test]
fn the_sum_outlives_a_worker() {
    let place = tempfile::tempdir().unwrap();
    quota(place.path(), 100, 10).take(70, 3).unwrap();
    let parts = QuotaParts {
        limits: QuotaLimits {
            bytes: Some(100),
            files: None,
        },
        known: QuotaUse { bytes: 1, files: 1 },
    };
    let path = place.path().join("quota");
    let next = Quota::open(&path, false, parts).unwrap();
    assert_eq!(used(&next), (70, 3));
    assert_eq!(next.take(31, 0), Err(Errno::EDQUOT));
    let other = Quota::open(&path, true, parts).unwrap();
    assert_eq!(used(&other), (1, 1));
}

// Without it a count beside writers would undo what they took, or a drift would stay for ever.
#[test]
fn a_count_beside_writers_moves_only_what_is_surely_wrong() {
    let place = tempfile::tempdir().unwrap();
    let quota = quota(place.path(), 1000, 100);
    let found = |bytes, files| Some(QuotaUse { bytes, files });
    // Quiet: exact.
    quota.take(10, 1).unwrap();
    quota.begin_count().unwrap();
    assert_eq!(quota.begin_count(), Err(Errno::EALREADY));
    let off = quota.end_count(found(300, 7));
    assert_eq!((off.bytes_off, off.files_off), (290, 6));
    assert_eq!(used(&quota), (300, 7));
    // 50 came while it was counted, which saw them or did not.
    for seen in [300, 320, 350] {
        quota.begin_count().unwrap();
        quota.take(50, 0).unwrap();
        assert_eq!(quota.end_count(found(seen, 7)).bytes_off, 0, "{seen}");
        quota.settle(-50, 0);
    }
    // Gone without anybody telling: moved to the nearer bound.
    quota.begin_count().unwrap();
    quota.take(50, 0).unwrap();
    assert_eq!(quota.end_count(found(100, 7)).bytes_off, -200);
    assert_eq!(used(&quota).0, 150);
    // A count that was given up changes nothing.
    quota.begin_count().unwrap();
    assert_eq!(quota.end_count(None), Counted::default());
    assert_eq!(used(&quota).0, 150);
}

// Without it a deleted file's space could be given to somebody while a program still writes to it.
#[test]
fn a_deleted_file_counts_until_it_is_let_go() {
    let place = tempfile::tempdir().unwrap();
    let quota = quota(place.path(), 100, 10);
    let path = place.path().join("file");
    std::fs::write(&path, [1; 30]).unwrap();
    quota.take(30, 1).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let before = fstat(&file).unwrap();
    std::fs::remove_file(&path).unwrap();
    let fd = file.try_clone().unwrap().into();
    let kept = Kept::new(fd, None, before, Some(&quota));
    file.set_len(40).unwrap();
    quota.take(10, 0).unwrap();
    assert_eq!(used(&quota), (40, 1));
    // A count of names does not find it.
    quota.begin_count().unwrap();
    let off = quota.end_count(Some(QuotaUse::default()));
    assert_eq!((off.bytes_off, off.files_off), (0, 0));
    drop(kept);
    assert_eq!(used(&quota), (0, 0));
}

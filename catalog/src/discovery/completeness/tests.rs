//! Every case of the table of signals is one line here.

use super::Proof::{Call, Expectation, Manifest, PartitionMarker, Quiet, TableMarker};
use super::*;

const NONE: Rule = Rule {
    partition_markers: true,
    table_marker: true,
    quiet_seconds: None,
};
const QUIET: Rule = Rule {
    quiet_seconds: Some(600),
    ..NONE
};

fn seen() -> Seen {
    Seen {
        files: 3,
        bytes: 300,
        newest_ms: Some(5_000),
        ..Seen::default()
    }
}

fn with(change: impl FnOnce(&mut Seen)) -> Seen {
    let mut seen = seen();
    change(&mut seen);
    seen
}

fn complete(seen: Seen, rule: Rule, expect: Option<Expect>) -> Option<Proof> {
    match judge(&seen, &rule, expect.as_ref()) {
        Verdict::Complete(proof) => Some(proof),
        Verdict::Syncing(missing) => {
            assert!(
                !missing.is_empty(),
                "nobody could say what {seen:?} waits for"
            );
            None
        }
    }
}

fn check(what: &str, seen: Seen, rule: Rule, expected: Option<Proof>) {
    assert_eq!(complete(seen, rule, None), expected, "{what}");
}

// A wrong line here is a partial sync that becomes a version, or a complete one that never does.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn markers() {
    let table = |ms| with(|s| s.table_marker_ms = Some(ms));
    let partition = |ms| with(|s| s.partition_marker_ms = Some(ms));
    let both = |partition, table| {
        with(|s| (s.partition_marker_ms, s.table_marker_ms) = (Some(partition), Some(table)))
    };
    let empty = Seen {
        files: 0,
        newest_ms: None,
        ..table(9_000)
    };
    let tied = Seen {
        unchanged_for: Duration::from_secs(2),
        ..table(5_000)
    };
    let staging = Seen {
        staging: 1,
        ..table(6_000)
    };
    let changing = Seen {
        changing: 2,
        ..table(6_000)
    };
    let own_staging = Seen {
        staging: 3,
        ..partition(6_000)
    };
    let only_partitions = Rule {
        table_marker: false,
        ..NONE
    };
    let only_calls = Rule {
        partition_markers: false,
        ..only_partitions
    };
    check("nothing but files", seen(), NONE, None);
    check("no files, only a marker", empty, NONE, None);
    check(
        "_SUCCESS newer than all",
        table(5_001),
        NONE,
        Some(TableMarker),
    );
    check("_SUCCESS survives a later append", table(4_999), NONE, None);
    check(
        "_SUCCESS of the same second, first sight",
        table(5_000),
        NONE,
        None,
    );
    check(
        "_SUCCESS of the same second, seen again",
        tied,
        NONE,
        Some(TableMarker),
    );
    check("_SUCCESS and _temporary", staging, NONE, None);
    check("_SUCCESS and files still changing", changing, NONE, None);
    check(
        "partition marker",
        partition(6_000),
        NONE,
        Some(PartitionMarker),
    );
    check("partition marker and staging", own_staging, NONE, None);
    check(
        "old partition marker, new _SUCCESS",
        both(1, 9_000),
        NONE,
        None,
    );
    check(
        "new partition marker, old _SUCCESS",
        both(9_000, 1),
        NONE,
        Some(PartitionMarker),
    );
    check(
        "_SUCCESS where only partition markers count",
        table(9_000),
        only_partitions,
        None,
    );
    check(
        "markers where only calls count",
        both(9_000, 9_000),
        only_calls,
        None,
    );
}

// The same for sources without signals.
#[test]
fn quiescence() {
    let quiet = |seconds| with(|s| s.unchanged_for = Duration::from_secs(seconds));
    let staging = Seen {
        staging: 1,
        ..quiet(600)
    };
    let marked = Seen {
        table_marker_ms: Some(1),
        ..quiet(600)
    };
    check("quiescence not asked for", quiet(9_999), NONE, None);
    check("quiet long enough", quiet(600), QUIET, Some(Quiet));
    check("not quiet long enough", quiet(599), QUIET, None);
    check("quiet, but staging is left", staging, QUIET, None);
    check(
        "quiet behind an old marker",
        marked.clone(),
        QUIET,
        Some(Quiet),
    );
    check("an old marker alone", marked, NONE, None);
}

// The same for what is exact: manifest files and announced batches.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn manifests_and_expectations() {
    let good = ManifestMatch::default();
    let listed = |found| with(|s| s.manifest = Some(found));
    let staging = Seen {
        staging: 1,
        ..listed(good)
    };
    let more = ManifestMatch { missing: 1, ..good };
    let less = ManifestMatch { extra: 1, ..good };
    let different = ManifestMatch {
        different: 1,
        ..good
    };
    let broken = ManifestMatch {
        broken: true,
        ..good
    };
    let marked = |found| Seen {
        table_marker_ms: Some(9_000),
        ..listed(found)
    };
    check("manifest agrees", listed(good), NONE, Some(Manifest));
    check(
        "manifest agrees although staging is left",
        staging,
        NONE,
        Some(Manifest),
    );
    check("manifest lists more", marked(more), NONE, None);
    check("manifest has other sizes", marked(different), NONE, None);
    check("manifest lists less", marked(less), NONE, None);
    check("manifest is broken", marked(broken), NONE, None);
    let expect = |files, bytes| Expect {
        files: Some(files),
        bytes: Some(bytes),
        rows: None,
    };
    let check = |what: &str, seen, expect, expected| {
        assert_eq!(complete(seen, NONE, Some(expect)), expected, "{what}");
    };
    let table = with(|s| s.table_marker_ms = Some(9_000));
    let empty = Seen {
        files: 0,
        bytes: 0,
        newest_ms: None,
        ..seen()
    };
    check(
        "met without any marker",
        seen(),
        expect(3, 300),
        Some(Expectation),
    );
    check("one file less than expected", table, expect(4, 300), None);
    check("other bytes than expected", seen(), expect(3, 301), None);
    check(
        "a call without expectation",
        seen(),
        Expect::default(),
        Some(Call),
    );
    check(
        "an empty batch, as announced",
        empty,
        expect(0, 0),
        Some(Expectation),
    );
    check(
        "manifest over expectation",
        listed(good),
        expect(9, 9),
        Some(Manifest),
    );
}

// A clock that is years off, here or at the store, must neither publish early nor keep back for ever.
#[test]
fn skew_between_the_clocks_decides_nothing() {
    for skew in [-4_000_000_000_000_i64, -1, 0, 1, 4_000_000_000_000] {
        let at = |ms: i64| Some(ms + skew);
        let late = Seen {
            newest_ms: at(5_000),
            table_marker_ms: at(6_000),
            ..seen()
        };
        assert_eq!(
            complete(late, Rule::default(), None),
            Some(Proof::TableMarker)
        );
        let early = Seen {
            newest_ms: at(5_000),
            table_marker_ms: at(4_000),
            ..seen()
        };
        assert_eq!(complete(early, Rule::default(), None), None);
        let quiet = Rule {
            quiet_seconds: Some(5),
            ..Rule::default()
        };
        let still = Seen {
            newest_ms: at(5_000),
            unchanged_for: Duration::from_secs(5),
            ..seen()
        };
        assert_eq!(complete(still, quiet, None), Some(Proof::Quiet));
    }
    let extreme = Seen {
        newest_ms: Some(i64::MAX),
        table_marker_ms: Some(i64::MIN),
        ..seen()
    };
    assert_eq!(complete(extreme, Rule::default(), None), None);
}

// Rows that nobody can count do not meet a promise about rows.
#[test]
fn promised_rows_must_be_found() {
    let expect = Expect {
        rows: Some(10),
        ..Expect::default()
    };
    assert_eq!(rows_missing(&expect, Some(10)), None);
    assert!(rows_missing(&expect, Some(9)).is_some());
    assert!(rows_missing(&expect, None).is_some());
    assert_eq!(rows_missing(&Expect::default(), None), None);
}

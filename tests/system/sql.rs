//! SQL engines over a catalog and its mount: PyIceberg, Polars and DuckDB read by table name what a sync
//! system wrote into a directory. `engines.py` runs them in the environment of `$TERRACE_TEST_ENGINES`.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::data::read_tree;
use crate::support::node::Node;
use crate::support::up::Up;
use crate::support::{need_mount, need_s3, skip};

/// No publication takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(90);

/// A test with engines: they start slowly on a busy machine.
const WATCHDOG: Duration = Duration::from_secs(400);

/// Rows of each partition of `ads.clicks`, and the sum of ids over all six.
const DAY: u64 = 200;
const SUM: u64 = 6 * 199 * 200 / 2 + DAY * (20 + 21 + 22 + 23 + 24 + 25) * 1000;

/// The environment with the engines, or the end of the test with a skip line.
macro_rules! need_engines {
    ($test:literal) => {
        match std::env::var("TERRACE_TEST_ENGINES") {
            Ok(python) => Engines(python),
            Err(_) => return skip($test, "no engines (TERRACE_TEST_ENGINES is not set)"),
        }
    };
}

/// The interpreter that has the engines.
struct Engines(String);

impl Engines {
    fn run(&self, words: &[&str]) -> Output {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/system/engines.py");
        let mut command = Command::new(&self.0);
        command.arg(script).args(words).stdin(Stdio::null());
        command.output().unwrap()
    }

    /// What a step printed; panics with the engine's words when it failed.
    fn succeed(&self, words: &[&str]) -> Value {
        let done = self.run(words);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{words:?}: {said}");
        let out = String::from_utf8(done.stdout).unwrap();
        serde_json::from_str(out.lines().last().unwrap()).unwrap()
    }

    /// Writes a part of a table, as the script names it.
    fn write(&self, table: &Path, what: &str) {
        self.succeed(&["write", &format!("{}:{what}", table.display())]);
    }

    /// What an engine finds in a warehouse.
    fn ask(&self, up: &Up<'_>, engine: &str, warehouse: &str) -> Value {
        self.succeed(&[engine, &up.url(), &up.token(), warehouse])
    }
}

/// Waits until a dataset's newest version is this one.
fn wait(node: &Node, name: &str, version: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let list = node.succeed(&["dataset", "list", "--json"]);
        let list: Value = serde_json::from_str(&list).unwrap();
        let mut tables = list.as_array().unwrap().iter();
        if tables.any(|table| table["name"] == name && table["latest"] == version) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{name}@v{version} does not appear: {list}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Two versions of `ads.clicks`: four days, then two more with a new column. The first one is tagged.
fn publish(node: &Node, engines: &Engines, warehouse: &Path) {
    let clicks = warehouse.join("clicks");
    engines.write(&clicks, "first");
    let place = format!("file://{}", warehouse.display());
    node.succeed(&["sync", "add", &place, "--namespace", "ads"]);
    wait(node, "ads.clicks", 1);
    node.succeed(&["dataset", "tag", "ads.clicks@v1", "first"]);
    engines.write(&clicks, "second");
    wait(node, "ads.clicks", 2);
}

fn assert_has(found: &Value, expected: &Value) {
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&found[name], value, "{name} in {found:#}");
    }
}

/// What every engine finds.
fn common() -> Value {
    json!({
        "count": 6 * DAY, "sum": SUM, "day": DAY, "version": 4 * DAY, "pinned": 4 * DAY,
        "nulls": 4 * DAY, "id_count": 1,
    })
}

// Without it an engine could read other rows than were published, or every file for one day.
#[test]
fn engines_read_tables_by_name() {
    need_mount!("engines_read_tables_by_name");
    let engines = need_engines!("engines_read_tables_by_name");
    let node = Node::patient(WATCHDOG);
    let up = Up::start(&node);
    let data = node.scratch("warehouse");
    publish(&node, &engines, &data);
    let warehouse = format!("file://{}", up.mountpoint().display());

    let found = engines.ask(&up, "pyiceberg", &warehouse);
    assert_has(&found, &common());
    let more = json!({
        "namespaces": ["ads"], "tables": ["ads.clicks"], "exists": [true, false],
        "columns": ["id", "name", "price", "score", "dt"], "left_out": "0", "static": 6 * DAY,
        "all_files": 12, "day_files": 2, "tag": 4 * DAY,
        // Each file tells its own bounds: one of a day's two, and none without any.
        "id_files": 1, "nobody_files": 0, "null_files": 0,
    });
    assert_has(&found, &more);
    let found = engines.ask(&up, "polars", &warehouse);
    assert_has(&found, &common());
    let plan = found["plan"].as_str().unwrap();
    assert_eq!(plan.matches(".parquet").count(), 2, "{plan}");
    let plan = found["id_plan"].as_str().unwrap();
    assert_eq!(plan.matches(".parquet").count(), 1, "{plan}");
    // Without a name it is the mount of `terrace up`.
    for warehouse in [&warehouse, "mount", "store"] {
        let found = engines.ask(&up, "duckdb", warehouse);
        assert_has(&found, &common());
        assert_eq!(found["tables"], json!(["clicks"]));
        let plan = found["plan"].as_str().unwrap();
        assert!(plan.contains("Total Files Read: 2"), "{plan}");
        let plan = found["id_plan"].as_str().unwrap();
        assert!(plan.contains("Total Files Read: 1"), "{plan}");
    }

    let forged = format!("trc_{}", "0".repeat(64));
    for (engine, refusal) in [
        ("pyiceberg", "UnauthorizedError"),
        ("duckdb", "Unauthorized"),
    ] {
        let refused = engines.run(&[engine, &up.url(), &forged, &warehouse]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(
            !refused.status.success() && said.contains(refusal),
            "{engine}: {said}"
        );
    }
    // Made files are found by name and never listed.
    let version = up.mountpoint().join("ads/clicks@v2");
    let names = std::fs::read_dir(&version).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    assert_eq!(
        std::fs::read_dir(version.join(".iceberg")).unwrap().count(),
        0
    );
    assert!(!version.join(".iceberg/at_mnt.nothing").exists());

    // One more day, whose prices are texts: the days before are left out, and stay readable by path.
    engines.write(&data.join("clicks"), "mixed");
    wait(&node, "ads.clicks", 3);
    let found = engines.ask(&up, "left_out", &warehouse);
    let expected = json!({
        "partitions": "6", "versions": "2", "count": DAY, "day": 0, "pinned": 6 * DAY,
        "price": "6 EUR", "older_price": 1.5,
    });
    assert_has(&found, &expected);
    let days = std::fs::read_dir(up.mountpoint().join("ads/clicks@v3")).unwrap();
    assert_eq!(days.count(), 7);
    up.end();
}

// Without it an engine off the cluster, which has no mount, could not read what is in a store.
#[test]
fn an_engine_reads_a_store_without_a_mount() {
    need_mount!("an_engine_reads_a_store_without_a_mount");
    let engines = need_engines!("an_engine_reads_a_store_without_a_mount");
    let server = need_s3!("an_engine_reads_a_store_without_a_mount");
    let bucket = server.bucket("sql");
    let node = Node::patient(WATCHDOG);
    let up = Up::start(&node);
    let written = node.scratch("written");
    engines.write(&written.join("clicks"), "first");
    engines.write(&written.join("clicks"), "second");
    bucket.put_tree("lake", &read_tree(&written));
    // Its time has to be that of the newest file.
    bucket.put("lake/clicks/_SUCCESS", b"");
    let place = bucket.url("lake");
    node.succeed(&["sync", "add", &place, "--namespace", "ads"]);
    wait(&node, "ads.clicks", 1);
    let found = engines.ask(&up, "duckdb_s3", "store");
    assert_has(&found, &json!({"count": 6 * DAY, "sum": SUM, "day": DAY}));
    up.end();
}

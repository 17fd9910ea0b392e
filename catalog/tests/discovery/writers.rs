//! Writers that nobody here wrote. `writers.py` runs them in the environment of
//! `$TERRACE_TEST_WRITERS`, which `tests/servers/servers.py` prepares.

use std::process::Command;

use terrace_catalog::discovery::Outcome;
use terrace_catalog::manifest::Manifest;
use terrace_catalog::schema::{Field, Schema, Type};

use crate::world::World;

/// Runs a writer on the table's directory; its rows, or None where this machine has no writers.
fn write(world: &World, test: &str, writer: &str) -> Option<u64> {
    let Ok(python) = std::env::var("TERRACE_TEST_WRITERS") else {
        println!("SKIP {test}: TERRACE_TEST_WRITERS is not set (tests/servers/servers.py sets it)");
        return None;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/discovery/writers.py");
    let directory = world.path("n.db/t");
    std::fs::create_dir_all(directory.parent().unwrap()).unwrap();
    let done = Command::new(python)
        .arg(script)
        .arg(writer)
        .arg(directory)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.status.success(),
        "{writer}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    let said: serde_json::Value = serde_json::from_str(said.trim()).unwrap();
    Some(said["rows"].as_u64().unwrap())
}

/// Looks twice when a marker is as old as the newest file, which quick writers bring about.
async fn look(world: &World) -> Outcome {
    match world.look("n.t").await {
        Outcome::Unchanged => {
            world.pass(3).await;
            world.look("n.t").await
        }
        outcome => outcome,
    }
}

async fn open(world: &World) -> (Manifest, Schema) {
    let version = world.latest("n.t").await.unwrap();
    let manifest = Manifest::open(world.ledger.blobs(), &version.manifest)
        .await
        .unwrap();
    let schema = Schema::from_text(manifest.header().schema.as_deref().unwrap()).unwrap();
    (manifest, schema)
}

fn types(schema: &Schema) -> Vec<(&str, Type)> {
    schema
        .fields
        .iter()
        .map(|field| (field.name.as_str(), field.data_type.clone()))
        .collect()
}

// Rows, columns and ranges that are read wrongly from a real footer are wrong for every table.
#[tokio::test(start_paused = true)]
async fn pyarrow_writes_a_partitioned_table() {
    let world = World::new().await;
    let Some(rows) = write(&world, "pyarrow_writes_a_partitioned_table", "pyarrow") else {
        return;
    };
    assert_eq!(
        look(&world).await,
        Outcome::Published(1),
        "{}",
        world.why("n.t")
    );
    let (manifest, schema) = open(&world).await;
    assert_eq!(manifest.header().format.as_ref(), "parquet");
    assert_eq!(
        (manifest.totals().rows, manifest.totals().partitions),
        (Some(rows), 3)
    );
    let field = |name: &str, data_type| Field {
        name: name.to_owned(),
        data_type,
        nullable: true,
    };
    let key = Field {
        nullable: false,
        ..field("key", Type::String)
    };
    assert_eq!(
        types(&schema),
        [
            ("id", Type::Int64),
            ("name", Type::String),
            (
                "price",
                Type::Decimal {
                    precision: 9,
                    scale: 2
                }
            ),
            ("at", Type::Timestamptz),
            ("small", Type::Int8),
            ("tags", Type::List(Box::new(field("element", Type::String)))),
            (
                "place",
                Type::Struct(vec![field("x", Type::Int32), field("y", Type::Float64)])
            ),
            (
                "weights",
                Type::Map {
                    key: Box::new(key),
                    value: Box::new(field("value", Type::Int32))
                }
            ),
        ]
    );
    let partition = &world.partitions("n.t").await[1];
    let (_, ranges) = partition
        .notes
        .iter()
        .find(|(name, _)| &**name == "ranges")
        .unwrap();
    assert!(
        ranges.contains(r#"{"name":"id","min":1000,"max":1099,"nulls":0}"#),
        "{ranges}"
    );
    assert!(
        ranges.contains(r#""min":"name-1","max":"name-99""#),
        "{ranges}"
    );
}

// DuckDB's footers come from another implementation of the format.
#[tokio::test(start_paused = true)]
async fn duckdb_writes_a_partitioned_table() {
    let world = World::new().await;
    let Some(rows) = write(&world, "duckdb_writes_a_partitioned_table", "duckdb") else {
        return;
    };
    assert_eq!(
        look(&world).await,
        Outcome::Published(1),
        "{}",
        world.why("n.t")
    );
    let (manifest, schema) = open(&world).await;
    assert_eq!(
        (manifest.totals().rows, manifest.totals().partitions),
        (Some(rows), 3)
    );
    let expected = [
        ("id", Type::Int64),
        ("even", Type::Boolean),
        ("half", Type::Float64),
        ("name", Type::String),
    ];
    assert_eq!(types(&schema), expected);
}

// A damaged or half-written Parquet file under a good marker is refused by name, and published when it
// has been replaced.
#[tokio::test(start_paused = true)]
async fn a_damaged_parquet_file_is_refused_by_name() {
    let world = World::new().await;
    if write(
        &world,
        "a_damaged_parquet_file_is_refused_by_name",
        "duckdb",
    )
    .is_none()
    {
        return;
    }
    let directory = world.path("n.db/t/dt=2026-11-21");
    let file = std::fs::read_dir(&directory)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, &good[..good.len() - 5]).unwrap();
    std::fs::write(world.path("n.db/t/_SUCCESS"), b"").unwrap();
    assert_eq!(look(&world).await, Outcome::Published(1));
    let why = world.why("n.t");
    assert_eq!((why.complete, why.refused), (2, 1));
    assert!(
        why.partitions[0]
            .reason
            .contains("does not end as a Parquet file"),
        "{why}"
    );
    std::fs::write(&file, &good).unwrap();
    std::fs::write(world.path("n.db/t/_SUCCESS"), b"").unwrap();
    assert_eq!(
        look(&world).await,
        Outcome::Published(2),
        "{}",
        world.why("n.t")
    );
}

// Files that a Delta table has removed still lie in its directory: the log counts, not the listing.
#[tokio::test(start_paused = true)]
async fn a_delta_table_is_what_its_log_says() {
    let world = World::new().await;
    let Some(rows) = write(&world, "a_delta_table_is_what_its_log_says", "delta") else {
        return;
    };
    assert_eq!(
        look(&world).await,
        Outcome::Published(1),
        "{}",
        world.why("n.t")
    );
    let (manifest, schema) = open(&world).await;
    assert_eq!(manifest.header().format.as_ref(), "delta");
    assert_eq!(
        (manifest.totals().rows, manifest.totals().partitions),
        (Some(rows), 2)
    );
    assert_eq!(
        schema.field("price").unwrap().data_type,
        Type::Decimal {
            precision: 9,
            scale: 2
        }
    );
    assert_eq!(world.look("n.t").await, Outcome::Unchanged);
}

// A log that was cleaned up begins at a checkpoint: without it such a table, which is every old one, could
// not be followed.
#[tokio::test(start_paused = true)]
async fn a_delta_log_may_begin_at_a_checkpoint() {
    let test = "a_delta_log_may_begin_at_a_checkpoint";
    let world = World::new().await;
    let Some(rows) = write(&world, test, "delta_checkpoint") else {
        return;
    };
    let why = || world.why("n.t").to_string();
    assert_eq!(look(&world).await, Outcome::Published(1), "{}", why());
    let (manifest, schema) = open(&world).await;
    assert_eq!(
        (manifest.totals().rows, manifest.totals().partitions),
        (Some(rows), 12)
    );
    assert_eq!(schema.field("name").unwrap().data_type, Type::String);
    let days = world.partitions("n.t").await;
    let gone = ["dt=2026-11-03", "dt=2026-11-04"];
    assert!(days.iter().all(|day| !gone.contains(&&*day.path)));

    // Other writers pack it otherwise, and mean the same.
    let mut world = world;
    for packed in ["delta_snappy", "delta_zstd"] {
        write(&world, test, packed).unwrap();
        world.restart();
        assert_eq!(world.look("n.t").await, Outcome::Unchanged);
        assert!(world.why("n.t").trouble.is_none(), "{}", world.why("n.t"));
    }

    // A damaged checkpoint says so, and takes nothing away.
    let log = world.path("n.db/t/_delta_log");
    let files = std::fs::read_dir(&log)
        .unwrap()
        .map(|file| file.unwrap().path());
    let checkpoint = files
        .into_iter()
        .find(|path| path.to_str().unwrap().ends_with(".checkpoint.parquet"));
    let checkpoint = checkpoint.unwrap();
    let good = std::fs::read(&checkpoint).unwrap();
    let mut bad = good.clone();
    bad[4..good.len() / 2].fill(0xee);
    std::fs::write(&checkpoint, bad).unwrap();
    world.restart();
    assert_eq!(world.look("n.t").await, Outcome::Unchanged);
    let why = world.why("n.t").trouble.unwrap().reason;
    assert!(why.contains("checkpoint 13 of the Delta log"), "{why}");
    assert_eq!(world.latest("n.t").await.unwrap().totals.rows, Some(rows));
}

// Rows and columns of Hive's own format, from footers in every compression that its writers choose.
#[tokio::test(start_paused = true)]
async fn orc_files_tell_rows_and_columns() {
    let world = World::new().await;
    let Some(rows) = write(&world, "orc_files_tell_rows_and_columns", "orc") else {
        return;
    };
    let why = || world.why("n.t").to_string();
    assert_eq!(look(&world).await, Outcome::Published(1), "{}", why());
    let (manifest, schema) = open(&world).await;
    assert_eq!(manifest.header().format.as_ref(), "orc");
    assert_eq!(
        (manifest.totals().rows, manifest.totals().partitions),
        (Some(rows), 4)
    );
    let names: Vec<&str> = schema.fields.iter().map(|field| &*field.name).collect();
    assert_eq!(
        names,
        ["id", "name", "price", "small", "tags", "place", "weights"]
    );
    let price = Type::Decimal {
        precision: 9,
        scale: 2,
    };
    assert_eq!(schema.field("price").unwrap().data_type, price);
    assert!(matches!(
        schema.field("tags").unwrap().data_type,
        Type::List(_)
    ));
    assert!(matches!(
        schema.field("weights").unwrap().data_type,
        Type::Map { .. }
    ));
    // A file that was cut is refused by name, as a Parquet file is.
    let file = world.path("n.db/t/dt=2026-11-21/part-0.orc");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, &good[..good.len() - 7]).unwrap();
    std::fs::write(world.path("n.db/t/_SUCCESS"), b"").unwrap();
    assert_eq!(look(&world).await, Outcome::Unchanged);
    let why = world.why("n.t").to_string();
    assert!(
        why.contains("part-0.orc: does not end as an ORC file"),
        "{why}"
    );
}

// Files of older snapshots lie in an Iceberg table's directory too: its metadata counts, not the listing.
#[tokio::test(start_paused = true)]
async fn an_iceberg_table_is_what_its_snapshot_says() {
    let world = World::new().await;
    let test = "an_iceberg_table_is_what_its_snapshot_says";
    let Some(rows) = write(&world, test, "iceberg") else {
        return;
    };
    assert_eq!(
        look(&world).await,
        Outcome::Published(1),
        "{}",
        world.why("n.t")
    );
    let (manifest, schema) = open(&world).await;
    assert_eq!(manifest.header().format.as_ref(), "iceberg");
    assert_eq!(manifest.totals().rows, Some(rows));
    let listed = world.path("n.db/t/data").read_dir().unwrap().count() as u64;
    assert!(
        listed > manifest.totals().files,
        "no file of an older snapshot is left"
    );
    let decimal = Type::Decimal {
        precision: 9,
        scale: 2,
    };
    assert_eq!(schema.field("price").unwrap().data_type, decimal);
    assert_eq!(world.look("n.t").await, Outcome::Unchanged);

    // Metadata that cannot be followed is said, and what was published stays.
    for (text, reason) in [
        ("{", "cannot be read"),
        (r#"{"format-version":3,"location":"x"}"#, "format version 3"),
        (
            r#"{"format-version":2,"location":"x","current-snapshot-id":1,
                "snapshots":[{"snapshot-id":1,"manifest-list":"/etc/passwd"}]}"#,
            "outside its directory",
        ),
    ] {
        std::fs::write(world.path("n.db/t/metadata/99999-x.metadata.json"), text).unwrap();
        assert_eq!(world.look("n.t").await, Outcome::Unchanged, "{text}");
        let trouble = world.why("n.t").trouble.unwrap().reason;
        assert!(trouble.contains(reason), "{trouble}");
    }
    assert_eq!(world.latest("n.t").await.unwrap().number, 1);
}

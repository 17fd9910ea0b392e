//! Spark, whose committers most tables are written by: real `_SUCCESS`, `_temporary`, dynamic overwrites.
//!
//! `spark.py` runs in the environment of `$TERRACE_TEST_SPARK`, which `tests/servers/servers.py` prepares
//! where there is a Java.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use terrace_catalog::discovery::completeness::Expect;
use terrace_catalog::discovery::{BatchRequest, Mode, Outcome, Scope};
use terrace_catalog::manifest::Manifest;
use terrace_catalog::schema::{Schema, Type};

use crate::world::{World, batch_id, name};

const TABLE: &str = "n.t";

/// One Spark, asked step by step; ended when dropped.
struct Spark {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Spark {
    /// None where this machine has no Spark.
    fn start(world: &World, test: &str) -> Option<Self> {
        let Ok(python) = std::env::var("TERRACE_TEST_SPARK") else {
            println!(
                "SKIP {test}: TERRACE_TEST_SPARK is not set (tests/servers/servers.py sets it)"
            );
            return None;
        };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/discovery/spark.py");
        let directory = world.path("n.db");
        std::fs::create_dir_all(&directory).unwrap();
        let log = std::fs::File::create(world.directory.path().join("spark.log")).unwrap();
        let mut process = Command::new(&python)
            .arg(script)
            .arg(directory.join("t"))
            .env("PYSPARK_PYTHON", &python)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        Some(Self {
            input: process.stdin.take().unwrap(),
            output: BufReader::new(process.stdout.take().unwrap()),
            process,
        })
    }

    /// One step; the rows that the table has then, or what the step counts.
    fn step(&mut self, world: &World, name: &str) -> u64 {
        writeln!(self.input, "{name}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        let log = || std::fs::read_to_string(world.directory.path().join("spark.log")).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&answer)
            .unwrap_or_else(|_| panic!("Spark has ended at {name}: {}", log()));
        answer["rows"].as_u64().unwrap()
    }
}

impl Drop for Spark {
    fn drop(&mut self) {
        // The JVM ends with the pipe to its Python.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Looks; once more when the marker is as old as the newest file.
async fn look(world: &World, table: &str) -> Outcome {
    match world.look(table).await {
        Outcome::Unchanged => {
            world.pass(3).await;
            world.look(table).await
        }
        outcome => outcome,
    }
}

async fn rows(world: &World, table: &str) -> Option<u64> {
    world.latest(table).await.unwrap().totals.rows
}

// What Spark leaves in a directory is what discovery is made for: a version for each job that has
// succeeded, whole, and none for the others.
#[tokio::test(start_paused = true)]
async fn spark_writes_appends_and_overwrites() {
    let world = World::new().await;
    let Some(mut spark) = Spark::start(&world, "spark_writes_appends_and_overwrites") else {
        return;
    };
    let written = spark.step(&world, "first");
    let why = || world.why(TABLE).to_string();
    assert_eq!(
        look(&world, TABLE).await,
        Outcome::Published(1),
        "{}",
        why()
    );
    assert_eq!(rows(&world, TABLE).await, Some(written));
    let before = world.files(TABLE).await;

    // A dynamic overwrite writes no marker: it waits for a call, a later job, or quiescence.
    let written = spark.step(&world, "dynamic");
    assert_eq!(look(&world, TABLE).await, Outcome::Unchanged);
    assert!(why().contains("older than the newest file"), "{}", why());
    let call = BatchRequest {
        source: None,
        scope: Scope {
            partitions: vec!["dt=2026-11-19".to_owned()],
        },
        mode: Mode::ReplacePartitions,
        expect: Expect {
            rows: Some(20),
            ..Expect::default()
        },
        source_seq: None,
    };
    let committed = world
        .discovery
        .batch(&name(TABLE), &batch_id("nightly"), &call)
        .await
        .unwrap();
    assert_eq!(committed.version().number, 2);
    assert_eq!(rows(&world, TABLE).await, Some(written));
    let kept = |files: &[String]| -> Vec<String> {
        let others = files
            .iter()
            .filter(|file| !file.starts_with("dt=2026-11-19/"));
        others.cloned().collect()
    };
    let after = world.files(TABLE).await;
    assert_eq!(kept(&before), kept(&after), "other partitions were touched");
    assert_ne!(before, after);

    // The marker of the job before survives an append that writes none.
    spark.step(&world, "append_unmarked");
    assert_eq!(look(&world, TABLE).await, Outcome::Unchanged);
    assert!(why().contains("older than the newest file"), "{}", why());
    let written = spark.step(&world, "append");
    assert_eq!(
        look(&world, TABLE).await,
        Outcome::Published(3),
        "{}",
        why()
    );
    assert_eq!(rows(&world, TABLE).await, Some(written));
    assert_eq!(world.partitions(TABLE).await.len(), 4);
}

// A driver that dies in the middle of a job has moved some files into their place already.
#[tokio::test(start_paused = true)]
async fn a_killed_spark_job_publishes_nothing() {
    let world = World::new().await;
    let Some(mut spark) = Spark::start(&world, "a_killed_spark_job_publishes_nothing") else {
        return;
    };
    let written = spark.step(&world, "orc");
    assert_eq!(look(&world, "n.in_orc").await, Outcome::Published(1));
    let version = world.latest("n.in_orc").await.unwrap();
    let manifest = Manifest::open(world.ledger.blobs(), &version.manifest)
        .await
        .unwrap();
    assert_eq!(manifest.header().format.as_ref(), "orc");
    let schema = Schema::from_text(manifest.header().schema.as_deref().unwrap()).unwrap();
    let columns = schema
        .fields
        .iter()
        .map(|field| (&*field.name, &field.data_type));
    let columns: Vec<_> = columns.collect();
    assert_eq!(
        columns,
        [
            ("id", &Type::Int64),
            ("twice", &Type::Int32),
            ("name", &Type::String)
        ]
    );
    assert_eq!(rows(&world, "n.in_orc").await, Some(written));

    spark.step(&world, "first");
    assert_eq!(look(&world, TABLE).await, Outcome::Published(1));
    let before = world.files(TABLE).await;
    assert!(
        spark.step(&world, "killed") > 0,
        "the job has left no staging"
    );
    let partial = world.path("n.db/t/dt=2026-11-22");
    assert!(partial.is_dir(), "the job has written nothing");
    for _ in 0..3 {
        assert_eq!(look(&world, TABLE).await, Outcome::Unchanged);
        world.pass(3600).await;
    }
    let why = world.why(TABLE).to_string();
    assert!(why.contains("older than the newest file"), "{why}");
    // Its staging is cleaned away; the partial partition stays, and stays out.
    world.remove("n.db/t/_temporary");
    world.pass(3600).await;
    assert_eq!(look(&world, TABLE).await, Outcome::Unchanged);
    assert_eq!(world.files(TABLE).await, before);
}

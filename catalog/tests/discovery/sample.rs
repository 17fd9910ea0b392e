//! The first rows of files that other programs wrote, held against what those programs read.

use std::process::Command;

use serde_json::Value;
use terrace_catalog::schema::{FileFormat, Problem, Rows, first_rows};
use terrace_catalog::upstream::Upstream;

use crate::store::Directory;

/// Rows that `samples.py` prints of every file.
const SHOWN: usize = 40;

async fn read(store: &Directory, path: &str, format: FileFormat) -> Result<Rows, Problem> {
    let file = store.head(path).await.unwrap();
    let rows = first_rows(store, &file, format, SHOWN).await?;
    Ok(rows.unwrap())
}

// A preview that shows another value than the file has is worse than none: it is believed.
#[tokio::test(flavor = "multi_thread")]
async fn parquet_of_other_programs_is_shown_as_they_read_it() {
    let Ok(python) = std::env::var("TERRACE_TEST_WRITERS") else {
        println!(
            "SKIP parquet_of_other_programs_is_shown_as_they_read_it: TERRACE_TEST_WRITERS is not set \
             (tests/servers/servers.py sets it)"
        );
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/discovery/samples.py");
    let written = Command::new(python)
        .arg(script)
        .arg(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&written.stderr);
    assert!(written.status.success(), "{said}");
    let expected: serde_json::Map<String, Value> = serde_json::from_slice(&written.stdout).unwrap();
    assert!(expected.len() > 14, "{:?}", expected.keys());
    let store = Directory::new(directory.path());
    let mut compared = 0;
    for (name, expected) in &expected {
        let found = read(&store, name, FileFormat::Parquet).await.unwrap();
        assert_eq!(found.note, None, "{name}");
        let names: Vec<&str> = found
            .fields
            .iter()
            .map(|field| field.name.as_str())
            .collect();
        assert_eq!(Value::from(names.clone()), expected["names"], "{name}");
        let rows = expected["rows"].as_array().unwrap();
        assert_eq!(found.rows.len(), rows.len(), "{name}");
        for (at, (row, wanted)) in found.rows.iter().zip(rows).enumerate() {
            for (column, value) in row.iter().enumerate() {
                assert_eq!(
                    value, &wanted[column],
                    "{name}, row {at}, {}",
                    names[column]
                );
                compared += 1;
            }
        }
    }
    println!("{compared} values of {} files agree", expected.len());
}

// Text formats are read from their first bytes: a cut last line must not be a row.
#[tokio::test(flavor = "multi_thread")]
async fn text_is_shown_by_lines() {
    let directory = tempfile::tempdir().unwrap();
    let lines: String = (0..9000)
        .map(|i| format!("{{\"a\":{i},\"text\":\"{}\"}}\n", "x".repeat(50)))
        .collect();
    std::fs::write(directory.path().join("a.jsonl"), lines).unwrap();
    std::fs::write(directory.path().join("a.csv"), "id,name\n1,\"a, b\"\n2,\n").unwrap();
    let store = Directory::new(directory.path());
    let found = read(&store, "a.jsonl", FileFormat::Jsonl).await.unwrap();
    assert_eq!(
        (found.rows.len(), &found.rows[39][0]),
        (SHOWN, &Value::from(39))
    );
    let found = read(&store, "a.csv", FileFormat::Csv).await.unwrap();
    assert_eq!(found.fields[0].name, "id");
    assert_eq!(
        found.rows,
        [["1", "a, b"], ["2", ""]].map(|row| row.map(Value::from).to_vec())
    );
}

// Whoever can write to the store must not be able to take the catalog down with a preview.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_are_answered() {
    let Ok(python) = std::env::var("TERRACE_TEST_WRITERS") else {
        println!("SKIP damaged_files_are_answered: TERRACE_TEST_WRITERS is not set");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let write = "import sys, pyarrow as pa, pyarrow.parquet as pq; \
        pq.write_table(pa.table({'a': list(range(200)), 'b': [['x', str(i)] for i in range(200)]}), \
        sys.argv[1], compression='zstd')";
    let path = directory.path().join("a.parquet");
    let written = Command::new(python)
        .args(["-c", write])
        .arg(&path)
        .status()
        .unwrap();
    assert!(written.success());
    let good = std::fs::read(&path).unwrap();
    let store = Directory::new(directory.path());
    assert_eq!(
        read(&store, "a.parquet", FileFormat::Parquet)
            .await
            .unwrap()
            .rows
            .len(),
        SHOWN
    );
    let mut odd = 0;
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x5a;
        std::fs::write(&path, &bytes).unwrap();
        match read(&store, "a.parquet", FileFormat::Parquet).await {
            Ok(rows) => odd += usize::from(rows.note.is_some()),
            Err(Problem::Damaged { .. }) => odd += 1,
            Err(problem) => panic!("byte {at}: {problem}"),
        }
    }
    assert!(
        odd > good.len() / 20,
        "only {odd} of {} damages were noticed",
        good.len()
    );
}

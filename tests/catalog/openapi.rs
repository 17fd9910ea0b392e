//! The OpenAPI document as others see it: valid by a program nobody here wrote, and kept by a running
//! catalog, which another one asks thousands of odd things.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::http::request;
use crate::served::Served;
use crate::skip;

/// The fuzzer asks the same in every run.
const SEED: &str = "20261120";

/// Cases that the fuzzer invents for each operation, besides those that follow from the document.
const CASES: &str = "12";

/// Operations that are not asked: they answer line by line, or with the rows of files.
const APART: [&str; 3] = ["collect_garbage", "scrub", "sample_version"];

/// The programs that judge; None: they are not here.
fn checkers() -> Option<PathBuf> {
    std::env::var_os("TERRACE_TEST_CHECKERS").map(PathBuf::from)
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(said)
}

// A document that generators of clients refuse is none.
#[test]
fn the_document_is_valid() {
    let Some(programs) = checkers() else {
        return skip("the_document_is_valid", "TERRACE_TEST_CHECKERS is not set");
    };
    let served = Served::start();
    let (status, document) = request("GET", &format!("{}/api/openapi.json", served.url()), b"");
    assert_eq!(status, 200, "{document}");
    let file = served.scratch("openapi.json");
    std::fs::write(&file, &document).unwrap();
    let mut judge = Command::new(programs.join("openapi-spec-validator"));
    let said = run(judge
        .args(["--schema", "3.1", "--validation-errors", "all"])
        .arg(&file));
    said.unwrap_or_else(|said| panic!("{said}"));
    // A judge that lets everything pass proves nothing.
    let broken = document.replacen("\"responses\"", "\"answers\"", 1);
    std::fs::write(&file, broken).unwrap();
    let mut judge = Command::new(programs.join("openapi-spec-validator"));
    assert!(run(judge.args(["--schema", "3.1"]).arg(&file)).is_err());
}

// Whatever the document promises is what clients are written against; whatever a handler has not thought of
// is what somebody sends.
#[test]
fn a_running_catalog_keeps_what_the_document_promises() {
    let test = "a_running_catalog_keeps_what_the_document_promises";
    let Some(programs) = checkers() else {
        return skip(test, "TERRACE_TEST_CHECKERS is not set");
    };
    let served = Served::start();
    for name in ["ads.clicks", "ads.views"] {
        let descriptor = format!(
            "apiVersion: terrace.io/v1\nkind: Dataset\nmetadata: {{name: {name}}}\n\
             spec: {{source: \"file:///data/x\"}}\n"
        );
        served.put(name, &descriptor);
    }
    let token = std::fs::read_to_string(served.token_file()).unwrap();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/catalog");
    let mut fuzzer = Command::new(programs.join("schemathesis"));
    fuzzer
        .arg("--config-file")
        .arg(own.join("schemathesis.toml"))
        .args([
            "run",
            "--seed",
            SEED,
            "--max-examples",
            CASES,
            "--generation-deterministic",
        ])
        .args(APART.iter().flat_map(|id| ["--exclude-operation-id", id]))
        .arg(format!("{}/api/openapi.json", served.url()))
        .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks")
        .env("PYTHONPATH", &own)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("TERRACE_TOKEN", token.trim())
        .current_dir(served.scratch(""));
    let said = run(&mut fuzzer).unwrap_or_else(|said| panic!("{said}\n{}", served.log()));
    // It ends well also when it has asked nothing.
    let passed = said.split(" generated, ").nth(1).and_then(|rest| {
        let (passed, _) = rest.split_once(" passed")?;
        passed.parse::<u32>().ok()
    });
    let passed = passed.unwrap_or_else(|| panic!("no summary: {said}"));
    println!("{passed} cases");
    assert!(passed > 500, "{said}");
}

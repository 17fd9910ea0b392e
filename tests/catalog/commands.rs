//! Commands that few people run, and then in trouble: each once as it should go and in every way in
//! which it fails, with its exit status and one line that says what to try.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::served::Served;

/// No table takes longer to appear, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `terrace ...` without a catalog; status and everything it said.
fn terrace(words: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_terrace"))
        .args(["--log", "warn"])
        .args(words)
        .env_remove("TERRACE_CATALOG")
        .env_remove("TERRACE_TOKEN")
        .env_remove("TERRACE_DATABASE")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(said).unwrap(),
    )
}

/// The command fails, with status 1 and one line that has this text.
fn refused(words: &[&str], text: &str) {
    let (status, said) = terrace(words);
    one_line(words, (status, &said), text);
}

fn one_line(words: &[&str], (status, said): (i32, &str), text: &str) {
    assert_eq!(status, 1, "{words:?}: {said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{words:?}: {said}");
    assert!(
        said.starts_with("terrace: ") && said.contains(text),
        "{words:?}: {said}"
    );
}

/// Writes a table's partition and then says that all of it is there.
fn write(table: &Path, partition: &str, rows: &str) {
    let directory = table.join(partition);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("part-0.csv"), rows).unwrap();
    std::fs::write(table.join("_SUCCESS"), "").unwrap();
}

/// Waits until a version is there.
fn appears(served: &Served, selector: &str) {
    let began = Instant::now();
    while served.try_run(&["dataset", "files", selector]) != 0 {
        let why = || served.succeed(&["sync", "why", "ele.orders"]);
        assert!(began.elapsed() < PATIENCE, "{selector}: {}", why());
    }
}

/// Commands that are not understood end with another status than those that fail.
fn wrong_words() {
    for words in [
        vec!["catalog", "export"],
        vec!["catalog", "rebuild", "extra"],
        vec!["catalog", "serve", "--listen", "nowhere"],
        vec!["catalog", "serve", "--tls-cert", "x"],
        vec!["catalog", "token", "create", "x"],
        vec!["catalog", "events", "--after", "x"],
    ] {
        assert_eq!(terrace(&words).0, 2, "{words:?}");
    }
}

// A backup that cannot be restored is found out on the day when it is needed.
#[test]
fn a_catalog_is_exported_imported_and_rebuilt() {
    let served = Served::start();
    let descriptor = "apiVersion: terrace.io/v1\nkind: Dataset\nmetadata: {name: ads.clicks}\n\
        spec: {source: \"file:///data/x\"}\n";
    assert_eq!(served.put("ads.clicks", descriptor), Some(201));
    let data = served.scratch("data");
    let data = data.to_str().unwrap();
    let file = served.scratch("backup");
    let file = file.to_str().unwrap();
    refused(
        &["catalog", "export", "--data", data, file],
        "only one catalog at a time may use it",
    );
    let served = served.stop();

    let (status, exported) = terrace(&["catalog", "export", "--data", data, file]);
    assert!(
        status == 0 && exported.contains("keys are in"),
        "{exported}"
    );
    refused(&["catalog", "export", "--data", data, file], "File exists");
    refused(
        &["catalog", "rebuild", "--data", data],
        "into an empty database",
    );
    refused(
        &["catalog", "import", "--data", data, file],
        "into an empty catalog",
    );

    let other = served.path().join("imported");
    let other = other.to_str().unwrap();
    let (status, said) = terrace(&["catalog", "import", "--data", other, file]);
    assert!(status == 0 && said.contains("keys are restored"), "{said}");
    let again = served.path().join("again");
    let again = again.to_str().unwrap();
    let (status, copied) = terrace(&["catalog", "export", "--data", other, again]);
    assert_eq!(status, 0, "{copied}");
    assert_eq!(copied.split(' ').next(), exported.split(' ').next());
    let text = std::fs::read_to_string(file).unwrap();

    let cut = served.path().join("cut");
    std::fs::write(&cut, &text[..text.len() / 2]).unwrap();
    let empty = served.path().join("empty");
    let empty = empty.to_str().unwrap();
    refused(
        &["catalog", "import", "--data", empty, cut.to_str().unwrap()],
        "damaged",
    );
    refused(
        &["catalog", "import", "--data", empty, "/nowhere"],
        "/nowhere",
    );

    wrong_words();
    // From the mirror files alone.
    std::fs::remove_dir_all(Path::new(data).join("kv")).unwrap();
    let (status, said) = terrace(&["catalog", "rebuild", "--data", data]);
    assert!(
        status == 0 && said.contains("restored 1 dataset,"),
        "{said}"
    );
}

// Whoever looks for a lost event, or writes a hook, has nothing but this command.
#[test]
fn events_are_printed_and_followed() {
    let mut served = Served::start();
    let descriptor = |name: &str| {
        format!(
            "apiVersion: terrace.io/v1\nkind: Dataset\nmetadata: {{name: {name}}}\n\
             spec: {{source: \"file:///data/x\"}}\n"
        )
    };
    served.put("ads.one", &descriptor("ads.one"));
    let printed = served.succeed(&["catalog", "events", "--no-follow"]);
    let event: serde_json::Value = serde_json::from_str(printed.trim()).unwrap();
    assert_eq!(
        (&event["kind"], &event["dataset"]),
        (&"dataset_created".into(), &"ads.one".into())
    );
    let last = event["seq"].to_string();
    let after = ["catalog", "events", "--no-follow", "--after", &last];
    assert_eq!(served.succeed(&after), "");

    let mut follower = served
        .command(&["catalog", "events", "--after", &last])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    served.put("ads.two", &descriptor("ads.two"));
    let mut line = String::new();
    let read = BufReader::new(follower.stdout.take().unwrap()).read_line(&mut line);
    follower.kill().unwrap();
    follower.wait().unwrap();
    read.unwrap();
    assert!(line.contains("ads.two"), "{line}");

    let nowhere = [
        "catalog",
        "events",
        "--no-follow",
        "--catalog",
        "http://127.0.0.1:1",
    ];
    refused(&nowhere, "check the address");
    let (status, said) = served
        .with_token("trc_0")
        .fail(&["catalog", "events", "--no-follow"]);
    one_line(&["events"], (status, &said), "terrace catalog token create");
}

// A token that outlives what somebody asked for, or a wrong word that makes a wide one, is found by thieves.
#[test]
fn tokens_end_as_they_were_asked_to() {
    let served = Served::start();
    let make = [
        "catalog", "token", "create", "nightly", "--grant", "read:ads",
    ];
    let made = served.succeed(&[&make[..], &["--expires", "1h", "--json"]].concat());
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let span = made["expires_ms"].as_i64().unwrap() - made["created_ms"].as_i64().unwrap();
    assert_eq!(span, 3_600_000);
    let table = served.succeed(&["catalog", "token", "list"]);
    assert!(
        table.contains("nightly") && table.contains("read:ads"),
        "{table}"
    );
    assert!(table.contains("never"), "the admin's own ends: {table}");
    for (words, text) in [
        (
            vec!["catalog", "token", "revoke", "0123456789ab"],
            "no token 0123456789ab",
        ),
        (
            vec!["catalog", "token", "revoke", "nightly"],
            "12 hexadecimal digits",
        ),
        (
            vec!["catalog", "token", "create", "", "--grant", "read:ads"],
            "name",
        ),
        (
            vec!["catalog", "token", "create", "x", "--grant", "read"],
            "is not a grant",
        ),
    ] {
        let (status, said) = served.fail(&words);
        one_line(&words, (status, &said), text);
    }
    let late = served.try_run(&[&make[..], &["--expires", "soon"]].concat());
    assert_eq!(late, 2);
}

// A sync system that writes no marker would never be published, or everything would be before it is whole.
#[test]
fn a_root_is_complete_as_it_was_said() {
    let served = Served::start();
    let place = served.scratch("quiet");
    std::fs::create_dir_all(place.join("web.db/raw")).unwrap();
    std::fs::write(place.join("web.db/raw/part-0.csv"), "id\n1\n").unwrap();
    let url = format!("file://{}", place.display());
    let words = ["--completion", "quiescence", "--quiet-seconds", "1"];
    served.succeed(&[&["sync", "add", url.as_str()][..], &words].concat());
    appears(&served, "web.raw@v1");
}

// What differs between two versions is asked before one of them goes into production.
#[test]
fn tables_are_watched_compared_and_let_go() {
    let served = Served::start();
    let place = served.scratch("lake");
    let table = place.join("ele.db/orders");
    write(&table, "dt=1", "id\n1\n");
    let url = format!("file://{}", place.display());
    served.succeed(&["sync", "add", &url, "--settle-seconds", "7"]);
    let roots = served.succeed(&["sync", "list", "--json"]);
    let roots: serde_json::Value = serde_json::from_str(&roots).unwrap();
    assert_eq!(roots[0]["spec"]["settle_seconds"], 7, "{roots}");
    assert_eq!(roots[0]["spec"]["completion"], "success-file", "{roots}");
    appears(&served, "ele.orders@v1");
    write(&table, "dt=2", "id\n2\n");
    appears(&served, "ele.orders@v2");
    served.succeed(&["dataset", "tag", "ele.orders@v1", "prod"]);
    let expected = "dt=2/part-0.csv";
    for words in [
        ["ele.orders@v1", "latest"],
        ["ele.orders@v1", "v2"],
        ["ele.orders@v1", "ele.orders@v2"],
        ["ele.orders@prod", "v2"],
    ] {
        let said = served.succeed(&["dataset", "diff", words[0], words[1]]);
        assert!(
            said.starts_with('+') && said.contains(expected),
            "{words:?}: {said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let back = served.succeed(&["dataset", "diff", "ele.orders@v2", "v1", "--json"]);
    let back: serde_json::Value = serde_json::from_str(back.trim()).unwrap();
    assert_eq!(
        (&back["path"], &back["change"]),
        (&expected.into(), &"removed".into())
    );
    assert_eq!(served.succeed(&["dataset", "diff", "ele.orders@v2"]), "");
    for (words, text) in [
        (
            vec!["dataset", "diff", "ele.orders"],
            "name the earlier version",
        ),
        (vec!["dataset", "diff", "ele.orders@v9"], "no version v9"),
        (
            vec!["dataset", "diff", "ele.orders@v1", "v9"],
            "no version v9",
        ),
        (
            vec!["dataset", "diff", "ele.orders@v1", "ele.other@v2"],
            "one dataset",
        ),
        (
            vec!["dataset", "diff", "ele.nothing@v1"],
            "no dataset ele.nothing",
        ),
        (vec!["sync", "add", &url], "remove it first"),
        (vec!["sync", "why", "ele.nothing"], "no root has a table"),
        (vec!["sync", "remove", "file:///nowhere"], "file:///nowhere"),
    ] {
        let (status, said) = served.fail(&words);
        one_line(&words, (status, &said), text);
    }
    assert_eq!(served.try_run(&["dataset", "diff", "../x@v1"]), 2);
    assert!(
        served
            .succeed(&["sync", "remove", &url])
            .contains("watched no more")
    );
    assert!(!served.succeed(&["sync", "list"]).contains(&url));
    let (status, said) = served.fail(&["sync", "remove", &url]);
    one_line(&["sync", "remove"], (status, &said), "is no root");
    // What was published stays.
    served.succeed(&["dataset", "files", "ele.orders@v2"]);
}

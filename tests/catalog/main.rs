//! The catalog as users run it: `terrace catalog serve` as a process, asked through the commands and
//! over HTTP, killed and started again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/certs.rs"]
mod certs;
mod cluster;
mod commands;
#[path = "../support/http.rs"]
#[expect(dead_code, reason = "nothing is asked for here by an odd path")]
mod http;
mod identity;
mod models;
mod openapi;
mod secrets;
mod served;
#[path = "../../catalog/tests/identity/signer.rs"]
#[expect(dead_code, reason = "the tests of forged tokens use all of it")]
mod signer;
mod tls;

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use served::Served;

/// Says that a test did not run here. `.ci/test` counts these lines.
fn skip(test: &str, why: &str) {
    println!("SKIP {test}: {why}");
}

/// The order of names and of kills is the same in every run.
const SEED: u64 = 0x7e44;

fn descriptor(name: &str) -> String {
    format!(
        "apiVersion: terrace.io/v1\nkind: Dataset\nmetadata: {{name: {name}, description: Clicks}}\n\
         spec: {{source: \"file:///data/{name}\"}}\n"
    )
}

// Without it a user's first session could fail at any step, or fail without saying what to try.
#[test]
fn commands_go_through_a_catalog() {
    let served = Served::start();
    let file = served.scratch("clicks.yaml");
    std::fs::write(&file, descriptor("ads.clicks")).unwrap();
    let file = file.to_str().unwrap();
    assert!(served.succeed(&["dataset", "list"]).contains("no datasets"));
    served.succeed(&["dataset", "register", "-f", file]);
    let list = served.succeed(&["dataset", "list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list[0]["name"], "ads.clicks");
    let table = served.succeed(&["dataset", "list"]);
    assert!(
        table.starts_with("NAME") && table.contains("Clicks"),
        "{table}"
    );
    assert!(
        served
            .succeed(&["dataset", "show", "ads.clicks"])
            .contains("none yet")
    );
    for (words, said) in [
        (
            vec!["dataset", "show", "ads.nothing"],
            "no dataset ads.nothing",
        ),
        (vec!["dataset", "files", "ads.clicks@v3"], "no version v3"),
        (
            vec!["dataset", "tag", "ads.clicks@v1", "prod"],
            "no version v1",
        ),
        (
            vec!["dataset", "register", "-f", "/nowhere.yaml"],
            "/nowhere.yaml",
        ),
        (
            vec!["catalog", "token", "create", "x", "--grant", "root:*"],
            "is not a grant",
        ),
    ] {
        let (status, error) = served.fail(&words);
        assert_eq!(status, 1, "{words:?}: {error}");
        assert!(
            error.contains(said) && error.trim_end().lines().count() == 1,
            "{error}"
        );
    }
    assert_eq!(served.fail(&["dataset", "show", "../x"]).0, 2);
}

// Without it a token for one thing would be a token for everything, or the admin token anybody's.
#[test]
fn tokens_are_made_used_and_revoked_by_command() {
    let mut served = Served::start();
    let mode = std::fs::metadata(served.token_file())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let file = served.scratch("clicks.yaml");
    std::fs::write(&file, descriptor("ads.clicks")).unwrap();
    let register = ["dataset", "register", "-f", file.to_str().unwrap()];
    let made = served.succeed(&[
        "catalog", "token", "create", "reader", "--grant", "read:ads",
    ]);
    served.use_token(made.trim());
    assert!(served.fail(&register).1.contains("does not grant publish"));
    assert!(served.succeed(&["dataset", "list"]).contains("no datasets"));
    let (_, refused) = served.fail(&["catalog", "token", "list"]);
    assert!(refused.contains("does not grant admin"), "{refused}");
    served.use_token_file();
    let list = served.succeed(&["catalog", "token", "list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let reader = list
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["name"] == "reader");
    let id = reader.unwrap()["id"].as_str().unwrap();
    served.succeed(&["catalog", "token", "revoke", id]);
    served.use_token(made.trim());
    assert!(served.fail(&["dataset", "list"]).1.contains("revoked"));
    served.use_token("");
    assert!(served.fail(&["dataset", "list"]).1.contains("no token"));
}

// SEMANTICS S23: an answer that a later crash takes back is a lie.
#[test]
fn killed_at_any_moment_nothing_answered_is_lost() {
    let mut served = Served::start();
    let mut numbers = SEED;
    let mut answered: Vec<String> = Vec::new();
    for round in 0..5 {
        // As many answers as the numbers say, then the kill, in the middle of the next requests.
        numbers = numbers
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let goal = 5 + (numbers >> 33) as usize % 40;
        let count = AtomicUsize::new(0);
        let writers: Vec<Vec<String>> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|writer| {
                    let (served, count) = (&served, &count);
                    scope.spawn(move || {
                        let mut done = Vec::new();
                        for at in 0.. {
                            let name = format!("ads.t{round}-{writer}-{at}");
                            match served.put(&name, &descriptor(&name)) {
                                Some(201) => done.push(name),
                                Some(status) => panic!("{name}: {status}"),
                                None => break,
                            }
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        done
                    })
                })
                .collect();
            while count.load(Ordering::Relaxed) < goal {
                assert!(
                    !writers.iter().all(|writer| writer.is_finished()),
                    "no writer is left"
                );
                std::thread::yield_now();
            }
            served.kill();
            writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .collect()
        });
        answered.extend(writers.into_iter().flatten());
        served.restart();
        let list = served.succeed(&["dataset", "list", "--json"]);
        let list: Vec<serde_json::Value> = serde_json::from_str(&list).unwrap();
        for name in &answered {
            assert!(
                list.iter().any(|item| item["name"] == name.as_str()),
                "{name} is lost"
            );
        }
    }
    println!("{} answered registrations outlived 5 kills", answered.len());
}

//! The pages of a saved model, and of a large catalog.

use crate::ability;
use crate::browser::{self, Browser, QUIET};
use crate::http;
use crate::looks::{readable, sound};
use crate::world::World;
use crate::{begin, part, rows, sign_in};

/// A catalog with many datasets, to be tried by hand: what `catalog_scale` made.
const MANY: &str = "TERRACE_TEST_CATALOG_DATA";

/// How many there are without it.
const SOME: usize = 240;

/// How long a search may take from the last key to its rows, milliseconds of the page: a bar for large
/// catalogs on busy machines, not a figure.
const PATIENCE: f64 = 10_000.0;

// A model is found by who did not train it: name, versions, files, and how to load it.
#[test]
fn a_model_shows_its_versions_and_files() {
    let Some((world, browser)) = begin("a_model_shows_its_versions_and_files") else {
        return;
    };
    let files = world.scratch("churn");
    std::fs::create_dir_all(files.join("tokenizer")).unwrap();
    std::fs::write(files.join("config.json"), "{\"hidden_size\": 768}").unwrap();
    std::fs::write(files.join("model.safetensors"), vec![7; 300_000]).unwrap();
    std::fs::write(files.join("tokenizer/vocab.txt"), "a\nb\n").unwrap();
    let place = files.to_str().unwrap();
    world.terrace(&["dataset", "save", place, "team/churn"]);
    std::fs::write(files.join("model.safetensors"), vec![8; 400_000]).unwrap();
    world.terrace(&["dataset", "save", place, "team/churn"]);
    world.terrace(&["dataset", "tag", "team.churn@v1", "prod"]);
    sign_in(&world, &browser);
    browser.keys("gm");
    browser.until(&rows(1));
    browser.shows("team.churn");
    browser.screenshot("models");
    readable(&browser, "models");
    browser.open(&format!("{}#/t/team.churn", world.console));
    browser.shows("Use it");
    browser.until("/latest \\(v2\\)/.test(document.querySelector('#version')?.innerText)");
    browser.until("document.querySelectorAll('.chart-dot').length >= 2");
    browser.screenshot("model");
    readable(&browser, "a model");
    sound(&browser, "a model");
    browser.click("#tab-sample");
    browser.until(&part("sample"));
    for file in ["config.json", "model.safetensors", "tokenizer"] {
        browser.shows(file);
    }
    browser.screenshot("model-files");
    browser.click("#tab-versions");
    browser.until(&format!(
        "{} && document.querySelectorAll('#part tbody tr').length === 2",
        part("versions")
    ));
    browser.until("document.querySelector('#part').innerText.includes('prod')");
    browser.screenshot("model-versions");
    readable(&browser, "versions of a model");
    sound(&browser, "versions of a model");
}

// A list that is slow, or stops at its first page, makes a large catalog as good as none.
#[test]
fn a_large_catalog_is_searched_and_paged() {
    const TEST: &str = "a_large_catalog_is_searched_and_paged";
    if let Some(why) = browser::missing() {
        ability::skip(TEST, why);
        return;
    }
    let many = std::env::var_os(MANY);
    let world = match &many {
        Some(data) => World::over(data.as_ref()),
        None => World::start(false),
    };
    let browser = Browser::start();
    if many.is_none() {
        let base = world.console.trim_end_matches("/console/");
        let token = world.token();
        for number in 0..SOME {
            let name = format!("ns{:03}.table_{number:06}", number % 500);
            let descriptor = serde_json::json!({
                "apiVersion": "terrace.io/v1", "kind": "Dataset",
                "metadata": {"name": name, "description": format!("Table {number} of the synthetic warehouse")},
                "spec": {"source": "s3://lake/table"},
            });
            let url = format!("{base}/api/v1/datasets/{name}");
            let bearer = format!("Bearer {token}");
            let headers = [("Authorization", bearer.as_str())];
            let (status, said) =
                http::send("PUT", &url, &headers, descriptor.to_string().as_bytes());
            assert!(status < 300, "{status}: {said}");
        }
    }
    sign_in(&world, &browser);
    // Fifty rows are also what a search may find: the list is the whole one where its address says so.
    let list = "document.querySelectorAll('.list tbody tr').length === 50";
    let full = format!("location.hash.replace('#/', '') === '' && {QUIET} && {list}");
    browser.until(&full);
    browser.screenshot("many");
    let timed = |keys: &str, shown: &str| {
        // In the search itself it is a letter like any other.
        if browser.value("document.activeElement?.id") != "search" {
            browser.keys("/");
        }
        browser.until("document.activeElement?.id === 'search'");
        browser.value("(window.began = performance.now(), null)");
        browser.keys(keys);
        let asked = serde_json::json!(keys);
        browser.until(&format!(
            "new URLSearchParams(location.hash.split('?')[1]).get('q') === {asked} && {QUIET} && {shown}"
        ));
        let took = browser.value("performance.now() - window.began").as_f64();
        let took = took.unwrap();
        println!("{keys:?}: {took:.0} ms");
        assert!(took < PATIENCE, "{keys:?} took {took:.0} ms");
        browser.keys(browser::ESCAPE);
        browser.until(&full);
    };
    let only = "document.querySelectorAll('.list tbody tr').length === 1 && document.body.innerText.includes('table_000123')";
    timed("table_000123", only);
    timed(
        "no such table",
        "document.body.innerText.includes('Nothing matches')",
    );
    timed("synthetic", list);
    // From page to page, and back.
    let name = "document.querySelector('.list tbody td.name').innerText";
    let first = browser.value(name);
    browser.click("#next");
    browser.until(&format!(
        "location.hash.includes('after=') && {QUIET} && {name} !== {first}"
    ));
    browser.screenshot("many-next");
    browser.back();
    browser.until(&format!("{full} && {name} === {first}"));
    sound(&browser, "a large catalog");
}

//! The web console as people use it: a real `terrace up`, tables that discovery found, and a real
//! headless Chromium. With `TERRACE_TEST_SCREENSHOTS=DIR` every view is kept as a picture.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/ability.rs"]
mod ability;
mod browser;
#[path = "../support/http.rs"]
#[expect(dead_code, reason = "other suites encode paths")]
mod http;
mod looks;
mod pages;
mod roots;
mod world;

use browser::{Browser, DOWN, ENTER, ESCAPE, QUIET, TAB, UP};
use looks::{readable, sound};
use world::{World, write_partition};

/// A text that would run if any page took it as markup.
const HOSTILE: &str = "<img src=x onerror=\"window.broken=1\"><script>window.broken=2</script>";

/// The console of a catalog with some tables, or the end of the test with a skip line.
fn begin(test: &str) -> Option<(World, Browser)> {
    if let Some(why) = browser::missing() {
        ability::skip(test, why);
        return None;
    }
    Some((World::start(false), Browser::start()))
}

/// Writes the tables and waits until discovery has published them.
fn fill(world: &World, browser: &Browser) {
    let place = world.warehouse();
    for day in 1..=3 {
        let partition = format!("dt=2026-11-{day:02}");
        write_partition(&place.join("ads.db/clicks"), &partition, 400 * day, "");
    }
    write_partition(&place.join("ads.db/hostile"), "dt=2026-11-01", 20, HOSTILE);
    for name in ["web.db/visits", "web.db/searches", "hr.db/pay"] {
        write_partition(&place.join(name), "dt=2026-11-01", 50, "");
    }
    // No marker: it must stay unpublished, and the console must say why.
    let late = place.join("web.db/late/dt=2026-11-01");
    std::fs::create_dir_all(&late).unwrap();
    std::fs::write(late.join("part-0.jsonl"), "{\"a\":1}\n").unwrap();
    world.terrace(&["sync", "add", &format!("file://{}", place.display())]);
    browser.until(&rows(5));
    world.describe(
        "ads.clicks",
        &place.join("ads.db/clicks"),
        "Ad clicks, one row each, by day",
    );
    world.describe("ads.hostile", &place.join("ads.db/hostile"), HOSTILE);
    for text in ["Ad clicks, one row each, by day", HOSTILE] {
        browser.shows(text);
    }
}

/// That the list is drawn and shows so many datasets with a version.
fn rows(count: usize) -> String {
    format!(
        "{QUIET} && [...document.querySelectorAll('.list tbody tr')].filter((row) => /v\\d/.test(row.innerText)).length === {count}"
    )
}

/// That a part of a table's page is the one drawn, and complete.
fn part(tab: &str) -> String {
    let tab = if tab.is_empty() { "overview" } else { tab };
    format!(
        "document.querySelector('#tab-{tab}[aria-current=page]') && document.querySelector('#part').children.length && {QUIET}"
    )
}

fn sign_in(world: &World, browser: &Browser) {
    browser.open(&world.console);
    browser.until("document.activeElement?.id === 'token'");
    browser.keys(&world.token());
    browser.keys(ENTER);
    // What happens from now on reaches the page.
    browser.until("document.querySelector('#search') && document.querySelector('.link-state.on')");
}

// A console that lets nobody in, or everybody, or keeps a token where the next person finds it.
#[test]
fn a_token_is_tried_kept_for_the_tab_and_forgotten() {
    let Some((world, browser)) = begin("a_token_is_tried_kept_for_the_tab_and_forgotten") else {
        return;
    };
    browser.open(&world.console);
    browser.until("document.activeElement?.id === 'token'");
    browser.screenshot("sign-in");
    browser.keys(&format!("trc_{}", "0".repeat(64)));
    browser.keys(ENTER);
    browser.shows("The token was not accepted");
    browser.screenshot("sign-in-refused");
    readable(&browser, "sign-in");
    sign_in(&world, &browser);
    browser.shows("No datasets yet");
    browser.shows("terrace sync add");
    browser.screenshot("empty");
    let address =
        browser.value("location.href + document.cookie + JSON.stringify({...localStorage})");
    assert!(!address.as_str().unwrap().contains("trc_"), "{address}");
    browser.click("#leave");
    browser.until("document.querySelector('#token') && !sessionStorage.length");
    browser.open(&world.console);
    browser.until("document.activeElement?.id === 'token'");
    sound(&browser, "signing in");
    // A token for one thing: what it does not reach is said, and nothing else breaks.
    let reader = world.terrace(&[
        "catalog", "token", "create", "reader", "--grant", "list:web",
    ]);
    browser.keys(reader.trim());
    browser.keys(ENTER);
    browser.until("document.querySelector('#search')");
    browser.open(&format!("{}#/roots", world.console));
    browser.shows("Roots need an administrator");
    sound(&browser, "a limited token");
}

// People who do not use a mouse, and people who are quick.
#[test]
fn tables_are_found_and_read_by_keyboard() {
    let Some((world, browser)) = begin("tables_are_found_and_read_by_keyboard") else {
        return;
    };
    sign_in(&world, &browser);
    fill(&world, &browser);
    browser.until(&rows(5));
    browser.shows("Ad clicks");
    browser.screenshot("datasets");
    sound(&browser, "the list");
    browser.keys("/");
    browser.until("document.activeElement?.id === 'search'");
    browser.keys("visits");
    browser.until(&rows(1));
    browser.until("location.hash === '#/?q=visits'");
    browser.keys(ESCAPE);
    browser.until(&format!("location.hash === '#/' && {}", rows(5)));
    browser.keys(&format!("{DOWN}{DOWN}{UP}"));
    browser.until("document.activeElement?.textContent === 'ads.clicks'");
    browser.screenshot("datasets-focus");
    browser.keys(ENTER);
    browser.until("location.hash === '#/t/ads.clicks' && document.querySelector('.chart')");
    browser.back();
    browser.until(&rows(5));
    browser.keys("gr");
    browser.until("location.hash === '#/roots'");
    browser.shows("file://");
    browser.screenshot("roots");
    readable(&browser, "roots");
    browser.keys("gn");
    browser.until("location.hash === '#/nodes'");
    browser.until("document.querySelector('.state, table')");
    browser.keys("gm");
    browser.shows("No models yet");
    browser.keys("?");
    browser.until("document.querySelector('#help[open]')");
    browser.screenshot("keys");
    browser.keys(ESCAPE);
    browser.open(&format!("{}#/?q=nothing-like-this", world.console));
    browser.shows("Nothing matches");
    browser.screenshot("nothing");
    browser.open(&format!("{}#/?q=web.late", world.console));
    browser.shows("has been found and is not published yet");
    sound(&browser, "pages by keyboard");
}

// The page where it is decided whether a table can be used: every part of it, and live.
#[test]
fn a_table_shows_what_it_is_where_it_is_and_why() {
    let Some((world, browser)) = begin("a_table_shows_what_it_is_where_it_is_and_why") else {
        return;
    };
    sign_in(&world, &browser);
    fill(&world, &browser);
    let page = |rest: &str| browser.open(&format!("{}#/t/{rest}", world.console));
    page("ads.clicks");
    for text in [
        "Ad clicks",
        "jsonl",
        "Over versions",
        "Freshness",
        "Use it",
        "Where it is",
        "complete",
    ] {
        browser.shows(text);
    }
    browser.until("document.querySelector('.link-state.on')");
    // New versions appear while somebody looks.
    let before = number(&browser);
    let clicks = world.warehouse().join("ads.db/clicks");
    for day in 4..=6 {
        write_partition(&clicks, &format!("dt=2026-11-{day:02}"), 400 * day, "");
        browser.until(&format!(
            "/latest \\(v{}\\)/.test(document.querySelector('#version')?.innerText)",
            before + day as u64 - 3
        ));
    }
    browser.until("document.querySelectorAll('.chart-dot').length > 3");
    // Nothing waits any more, whatever was said when the version came.
    browser.until("document.querySelector('#badges .badge.good')?.innerText === 'complete'");
    browser
        .until("document.querySelector('#freshness').innerText.includes('6 partitions complete')");
    browser.screenshot("table");
    browser.prefers("prefers-color-scheme", "dark");
    browser.until("getComputedStyle(document.body).backgroundColor === 'rgb(18, 21, 19)'");
    browser.screenshot("table-dark");
    readable(&browser, "the dark table");
    browser.prefers("prefers-color-scheme", "light");
    readable(&browser, "the table");
    sound(&browser, "the overview");
    for way in ["PVC", "DuckDB", "pandas"] {
        // The page may be drawn anew, with its first way, by what happens to the table.
        browser.until(&format!("(() => {{ const one = [...document.querySelectorAll('.segment')].find((one) => one.textContent === '{way}'); one.click(); return one.getAttribute('aria-pressed') === 'true'; }})() && ('{way}' !== 'pandas' || document.body.innerText.includes('import pandas'))"));
    }
    parts(&browser);
    // The version that somebody chooses is in the address, and stays.
    browser.value("(() => { const one = document.querySelector('#version'); one.value = 'v1'; one.dispatchEvent(new Event('change')); })()");
    browser.until("location.hash.startsWith('#/t/ads.clicks@v1')");
    browser.shows("This is v1; the latest is");
    browser.until("document.querySelector('#version')?.value === 'v1'");
    page("web.late");
    browser.shows("Why there is no version yet");
    browser.shows("marker file missing");
    browser.screenshot("unpublished");
    page("ads.nothing");
    browser.shows("no dataset ads.nothing");
    browser.screenshot("error");
    sound(&browser, "versions and errors");
}

/// The number of the latest version that the page shows.
fn number(browser: &Browser) -> u64 {
    browser.until("/latest/.test(document.querySelector('#version')?.innerText)");
    let number = browser.value(
        "Number(document.querySelector('#version').innerText.match(/latest \\(v(\\d+)/)[1])",
    );
    number.as_u64().unwrap()
}

/// Every part of a table's page, by its tab.
fn parts(browser: &Browser) {
    for (tab, shown) in [
        (
            "sample",
            "document.querySelectorAll('.sample tbody tr').length === 50",
        ),
        (
            "schema",
            "[...document.querySelectorAll('#part td')].some((cell) => cell.textContent === 'list<string>')",
        ),
        (
            "partitions",
            "document.querySelectorAll('#part tbody tr').length === 6",
        ),
        (
            "versions",
            "document.querySelectorAll('#part tbody tr').length >= 4",
        ),
        (
            "nodes",
            "document.querySelector('#part .state, #part table')",
        ),
    ] {
        browser.click(&format!("#tab-{tab}"));
        browser.until(&format!("{} && {shown}", part(tab)));
        browser.until(&format!("location.hash.includes('tab={tab}')"));
        browser.screenshot(&format!("table-{tab}"));
        readable(browser, tab);
        sound(browser, tab);
    }
    browser.back();
    browser.until(&part("versions"));
    browser.click("[aria-label^='What v']");
    browser.until("document.querySelector('#changes .badge.good')");
    browser.back();
    browser.until("document.querySelector('#from')");
    browser.keys(&format!("{TAB}{TAB}"));
    browser.value("(() => { const one = document.querySelector('#from'); one.value = 'dt=2026-11-05'; one.form.requestSubmit(); })()");
    browser.until(&format!(
        "{} && document.querySelectorAll('#part tbody tr').length === 2",
        part("partitions")
    ));
}

// Names, descriptions and cells come from whoever writes tables: one that runs owns every reader's token.
#[test]
fn texts_of_strangers_are_only_texts() {
    let Some((world, browser)) = begin("texts_of_strangers_are_only_texts") else {
        return;
    };
    sign_in(&world, &browser);
    fill(&world, &browser);
    browser.shows(HOSTILE);
    for tab in ["", "sample", "schema", "partitions", "versions", "nodes"] {
        browser.open(&format!("{}#/t/ads.hostile?tab={tab}", world.console));
        browser.until(&part(tab));
        if matches!(tab, "sample" | "schema") {
            browser.until("[...document.querySelectorAll('#part th, #part td')].some((one) => one.textContent.includes('onerror='))");
        }
        browser.screenshot(&format!("hostile-{tab}"));
        sound(&browser, tab);
    }
    // An address is a text of a stranger too.
    browser.open(&format!(
        "{}#/t/%3Cimg%20src=x%20onerror=window.broken=1%3E@%3Cb%3E",
        world.console
    ));
    browser.shows("The catalog refused this");
    // The policy itself: even a script of the page cannot make markup from a text.
    let made = browser.value("(() => { try { document.body.innerHTML = '<b>x</b>'; return 'made'; } catch { return 'refused'; } })()");
    assert_eq!(made, "refused");
    assert!(
        !browser.complaints().is_empty(),
        "the policy was not broken by the test"
    );
    sound(&browser, "a hostile address");
}

// A bar that says more than the nodes have, or nothing, is why people copy data by hand.
#[test]
fn a_warm_up_is_followed_until_every_byte_is_there() {
    const TEST: &str = "a_warm_up_is_followed_until_every_byte_is_there";
    if let Some(why) = browser::missing().or(ability::cannot_mount()) {
        ability::skip(TEST, why);
        return;
    }
    let world = World::start(true);
    let catalog = world.console.trim_end_matches("/console/");
    let (_, document) = http::request("GET", &format!("{catalog}/api/openapi.json"), b"");
    if !document.contains("/api/v1/warm") {
        ability::skip(TEST, "this catalog has no warm-up jobs");
        return;
    }
    let browser = Browser::start();
    sign_in(&world, &browser);
    fill(&world, &browser);
    browser.open(&format!("{}#/nodes", world.console));
    let reporting =
        "[...document.querySelectorAll('.badge')].some((one) => one.textContent === 'reporting')";
    browser.until(&format!("{reporting} || (document.querySelector('.state') && (location.hash = '#/nodes?' + Date.now(), false))"));
    browser.screenshot("nodes");
    readable(&browser, "nodes");
    browser.open(&format!("{}#/t/ads.clicks", world.console));
    browser.click("#warm");
    browser.until("/^done, 100%/.test(document.querySelector('#warm-state')?.textContent)");
    browser.until(
        "document.querySelector('.job [role=meter]').getAttribute('aria-valuenow') === '100'",
    );
    browser.until(
        "!document.querySelector('#warm').disabled && !document.querySelector('#warm-stop')",
    );
    browser.screenshot("warm");
    readable(&browser, "a warm-up");
    browser.click("#tab-nodes");
    // What the node says of itself follows within its next reports.
    let hot = "document.querySelector('#part [aria-label^=Hot]')?.getAttribute('aria-valuenow') === '100'";
    browser.until(&format!("{hot} || (document.querySelector('#part table, #part .state') && (location.hash = '#/t/ads.clicks?tab=nodes&look=' + Date.now(), false))"));
    browser.screenshot("table-heat");
    sound(&browser, "heat");
}

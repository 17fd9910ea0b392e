//! The page of the places that discovery watches.

use crate::browser::{BACKSPACE, Browser, ENTER, QUIET, SHIFT, TAB};
use crate::looks::{readable, sound};
use crate::world::write_partition;
use crate::{begin, rows, sign_in};

/// No way by keyboard is longer.
const STEPS: usize = 30;

/// Goes on with Tab until the focus is where an expression says.
fn tab_to(browser: &Browser, focused: &str) {
    for _ in 0..STEPS {
        if browser.value(&format!("Boolean({focused})")) == true {
            return;
        }
        browser.keys(TAB);
    }
    panic!("no way by keyboard to {focused}");
}

/// That the form is ready for the next place.
fn ready() -> String {
    format!(
        "{QUIET} && document.activeElement?.id === 'root-url' && !document.querySelector('#root-add').disabled"
    )
}

fn cards(count: usize) -> String {
    format!("document.querySelectorAll('#roots .card').length === {count}")
}

/// What the form says against a place, in light and dark.
fn refused(browser: &Browser, place: &str, why: &str) {
    browser.keys(place);
    browser.keys(ENTER);
    browser.until(&format!(
        "{} && document.querySelector('#root-url').getAttribute('aria-invalid') === 'true' && document.querySelector('#root-said').innerText.includes({})",
        ready(),
        serde_json::json!(why),
    ));
    for scheme in ["dark", "light"] {
        browser.prefers("prefers-color-scheme", scheme);
        let dark = format!("matchMedia('(prefers-color-scheme: {scheme})').matches");
        browser.until(&dark);
        browser.screenshot(&format!("roots-refused-{scheme}"));
        readable(browser, "a refused root");
    }
    browser.keys(&BACKSPACE.repeat(place.chars().count()));
    browser.until("document.querySelector('#root-url').value === ''");
}

// Who cannot use a mouse could not say where tables are; a refusal that is not shown is taken for a promise.
#[test]
fn roots_are_watched_and_left_by_keyboard() {
    let Some((world, browser)) = begin("roots_are_watched_and_left_by_keyboard") else {
        return;
    };
    let place = world.warehouse();
    write_partition(&place.join("ads.db/clicks"), "dt=2026-11-01", 20, "");
    let url = format!("file://{}", place.display());
    sign_in(&world, &browser);
    browser.keys("gr");
    browser.until(&format!("location.hash === '#/roots' && {QUIET}"));
    browser.shows("No root yet");
    browser.screenshot("roots-none");
    readable(&browser, "no roots");
    tab_to(&browser, "document.activeElement.id === 'root-url'");
    refused(&browser, "ftp://host/warehouse", "ftp");

    // Added, and what is found there comes by itself.
    browser.keys(&url);
    browser.keys(&format!("{TAB}{TAB}{TAB}{TAB}"));
    browser.until("document.activeElement?.id === 'root-add'");
    browser.keys(ENTER);
    browser.until(&format!("{} && {}", ready(), cards(1)));
    assert_eq!(
        browser.value("document.querySelector('#root-url').value"),
        ""
    );
    browser.until("document.querySelector('#roots .facts dd').innerText === '1'");
    browser.screenshot("roots-one");
    let page = |rest: &str| browser.open(&format!("{}#/{rest}", world.console));
    page("");
    browser.until(&rows(1));
    page("roots");
    browser.until(&format!("{QUIET} && {}", cards(1)));
    tab_to(&browser, "document.activeElement.id === 'root-url'");
    refused(&browser, &url, "is a root already");

    // Left after a second thought.
    let stop = "document.activeElement.textContent.startsWith('Stop watching')";
    let sure = "document.activeElement.textContent.includes('Published versions stay')";
    browser.chord(SHIFT, TAB);
    browser.until(stop);
    browser.keys(ENTER);
    browser.until(sure);
    browser.screenshot("roots-sure");
    readable(&browser, "leaving a root");
    browser.keys(TAB);
    browser.chord(SHIFT, TAB);
    browser.until(&format!("{stop} && !({sure})"));
    browser.keys(ENTER);
    browser.until(sure);
    browser.keys(ENTER);
    browser.until(&format!("{} && {}", ready(), cards(0)));
    browser.shows("No root yet");

    // Somebody else was faster: the page says so.
    browser.keys(&url);
    browser.keys(ENTER);
    browser.until(&format!("{} && {}", ready(), cards(1)));
    browser.chord(SHIFT, TAB);
    browser.until(stop);
    world.terrace(&["sync", "remove", &url]);
    browser.keys(ENTER);
    browser.until(sure);
    browser.keys(ENTER);
    browser.until(
        "document.querySelector('#roots .card [role=alert]')?.innerText.includes('is no root')",
    );
    browser.screenshot("roots-gone");
    sound(&browser, "roots");
    // What was published stays.
    page("");
    browser.until(&rows(1));
}

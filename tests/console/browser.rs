//! A real Chromium without a screen, driven through chromedriver's HTTP protocol (W3C WebDriver).
//!
//! ```text
//! test --HTTP--> chromedriver (own process group, own port) --> chromium (own profile)
//! ```
//!
//! Waiting is done inside the page: a script looks again and again, and the driver gives up after
//! [`PATIENCE`]. What is waited for must not hold already before the act it is to follow: [`QUIET`] says that
//! everything asked for is drawn. Dropping ends the session, then the whole process group, also when the test failed.

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http;

/// No page takes longer to show something, however busy the machine is. Milliseconds.
const PATIENCE: u64 = 50_000;

/// That the page shows what it was asked for, and waits for nothing.
pub(crate) const QUIET: &str = "!document.querySelector('.bone, [aria-busy=true]')";

/// Where screenshots go; none are kept when it is not set.
const SCREENSHOTS: &str = "TERRACE_TEST_SCREENSHOTS";

/// Keys as the protocol names them.
pub(crate) const DOWN: &str = "\u{e015}";
pub(crate) const UP: &str = "\u{e013}";
pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const ESCAPE: &str = "\u{e00c}";
pub(crate) const TAB: &str = "\u{e004}";
pub(crate) const SHIFT: &str = "\u{e008}";
pub(crate) const BACKSPACE: &str = "\u{e003}";

/// See the module text.
pub(crate) struct Browser {
    driver: Child,
    session: String,
    /// Kept: a program that has nobody to tell ends.
    _output: Lines<BufReader<ChildStdout>>,
    _profile: TempDir,
}

/// Why there is no browser here, if there is none.
pub(crate) fn missing() -> Option<&'static str> {
    let there = |name: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|directory| directory.join(name).exists())
    };
    match (there("chromium"), there("chromedriver")) {
        (false, _) => Some("no chromium"),
        (_, false) => Some("no chromedriver"),
        _ => None,
    }
}

impl Browser {
    pub(crate) fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = output.find_map(|line| {
            let line = line.ok()?;
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let mut browser = Self {
            driver,
            session: String::new(),
            _output: output,
            _profile: profile,
        };
        let base = format!(
            "http://127.0.0.1:{}",
            port.expect("chromedriver says its port")
        );
        let directory = browser._profile.path().display();
        let arguments = [
            "--headless=new".to_owned(),
            // Containers of CI run as root and have a small /dev/shm.
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--hide-scrollbars".to_owned(),
            format!("--user-data-dir={directory}"),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": arguments},
            "timeouts": {"script": PATIENCE + 5_000},
        }}});
        let made = call("POST", &format!("{base}/session"), &wanted);
        let id = made["sessionId"].as_str().unwrap();
        browser.session = format!("{base}/session/{id}");
        browser.size(1280, 720);
        browser
    }

    fn post(&self, what: &str, body: &Value) -> Value {
        call("POST", &format!("{}/{what}", self.session), body)
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.post(
            "goog/cdp/execute",
            &json!({"cmd": command, "params": parameters}),
        )
    }

    /// Opens an address.
    pub(crate) fn open(&self, url: &str) {
        self.post("url", &json!({"url": url}));
    }

    /// Goes back as its button does.
    pub(crate) fn back(&self) {
        self.post("back", &json!({}));
    }

    /// The value of an expression in the page.
    pub(crate) fn value(&self, expression: &str) -> Value {
        let script = format!("return ({expression})");
        self.post("execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until an expression holds in the page, or fails with what the page shows.
    pub(crate) fn until(&self, expression: &str) {
        let script = format!(
            "const done = arguments[arguments.length - 1];
             const end = Date.now() + {PATIENCE};
             const look = () => {{
               let holds = false;
               try {{ holds = Boolean({expression}); }} catch {{ holds = false; }}
               if (holds || Date.now() > end) done(holds);
               else setTimeout(look, 50);
             }};
             look();"
        );
        let held = self.post("execute/async", &json!({"script": script, "args": []}));
        if held != Value::Bool(true) {
            self.screenshot("failed");
            let shown = self.value("document.body.innerText");
            panic!(
                "never true: {expression}\n{}",
                shown.as_str().unwrap_or_default()
            );
        }
    }

    /// Waits until the page shows a text.
    pub(crate) fn shows(&self, text: &str) {
        self.until(&format!(
            "document.body.innerText.includes({})",
            json!(text)
        ));
    }

    /// Presses keys where the focus is.
    pub(crate) fn keys(&self, text: &str) {
        let each = text.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()}))
        });
        let actions: Vec<Value> = each.collect();
        self.post(
            "actions",
            &json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]}),
        );
    }

    /// Presses a key while another one is held.
    pub(crate) fn chord(&self, held: &str, key: &str) {
        let actions = [
            ("keyDown", held),
            ("keyDown", key),
            ("keyUp", key),
            ("keyUp", held),
        ];
        let actions = actions.map(|(kind, key)| json!({"type": kind, "value": key}));
        self.post(
            "actions",
            &json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]}),
        );
    }

    /// Clicks what a selector finds first. A page follows events and may draw that anew between the finding
    /// and the click, which a person does not notice: then what is there now is clicked.
    pub(crate) fn click(&self, selector: &str) {
        let end = Instant::now() + Duration::from_millis(PATIENCE);
        loop {
            self.until(&format!("document.querySelector({})", json!(selector)));
            let found = json!({"using": "css selector", "value": selector});
            let clicked = self.tried("element", &found).and_then(|found| {
                let id = found.as_object().and_then(|found| found.values().next());
                let id = id.and_then(Value::as_str).unwrap();
                self.tried(&format!("element/{id}/click"), &json!({}))
            });
            match clicked {
                Ok(_) => return,
                Err(refusal) if refusal.is_gone() && Instant::now() < end => {}
                Err(refusal) => panic!("click on {selector}: {}: {}", refusal.kind, refusal.said),
            }
        }
    }

    fn tried(&self, what: &str, body: &Value) -> Result<Value, Refusal> {
        tried("POST", &format!("{}/{what}", self.session), body)
    }

    /// Size of the page in points.
    pub(crate) fn size(&self, width: u32, height: u32) {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// What the person prefers: `prefers-color-scheme` and others.
    pub(crate) fn prefers(&self, feature: &str, value: &str) {
        let features = json!({"features": [{"name": feature, "value": value}]});
        self.devtools("Emulation.setEmulatedMedia", &features);
    }

    /// Keeps what the page looks like now, where the environment asks for it.
    pub(crate) fn screenshot(&self, name: &str) {
        let Some(directory) = std::env::var_os(SCREENSHOTS).map(PathBuf::from) else {
            return;
        };
        let taken = call("GET", &format!("{}/screenshot", self.session), &json!({}));
        std::fs::create_dir_all(&directory).unwrap();
        let bytes = base64(taken.as_str().unwrap());
        std::fs::write(directory.join(format!("{name}.png")), bytes).unwrap();
    }

    /// Errors of scripts and breaches of the policy since the last call. What servers answered to
    /// requests is not among them: pages show that themselves.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.post("se/log", &json!({"type": "browser"}));
        let entries = log.as_array().unwrap().iter();
        let bad =
            entries.filter(|entry| entry["level"] == "SEVERE" && entry["source"] != "network");
        bad.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            http::request("DELETE", &self.session, b"");
        }
        if let Ok(group) = i32::try_from(self.driver.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = self.driver.wait();
    }
}

/// What the driver answers to a command that it could not do.
struct Refusal {
    /// One of the protocol's error codes.
    kind: String,
    said: String,
}

impl Refusal {
    /// Whether the element has left the page since it was found.
    fn is_gone(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "stale element reference" | "no such element"
        )
    }
}

/// One command of the protocol; its value. An error of the driver fails the test with its words.
fn call(method: &str, url: &str, body: &Value) -> Value {
    tried(method, url, body).unwrap_or_else(|refusal| panic!("{url}: {}", refusal.said))
}

fn tried(method: &str, url: &str, body: &Value) -> Result<Value, Refusal> {
    let body = match method {
        "POST" => body.to_string(),
        _ => String::new(),
    };
    let (status, answer) = http::request(method, url, body.as_bytes());
    let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{url}: {answer}"));
    let value = &answer["value"];
    if status == 200 {
        return Ok(value.clone());
    }
    Err(Refusal {
        kind: value["error"].as_str().unwrap_or_default().to_owned(),
        said: value["message"]
            .as_str()
            .unwrap_or(&answer.to_string())
            .to_owned(),
    })
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<u32> = text.bytes().filter_map(digit).map(u32::from).collect();
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for four in digits.chunks(4) {
        let value =
            four.iter().fold(0, |value, digit| value << 6 | digit) << (6 * (4 - four.len()));
        bytes.extend_from_slice(&value.to_be_bytes()[1..four.len()]);
    }
    bytes
}

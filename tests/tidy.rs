//! The rules of this repository that no compiler checks.
//!
//! Crate graph, owners of heavy dependencies, module documentation, file sizes, words, metrics and
//! the numbered promises of `docs/SEMANTICS.md`. A rule that fails names every place at once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Most lines of one file, without its test module.
const FILE_MAX: usize = 400;

/// Most lines of the middle one of all files.
const MEDIAN_MAX: usize = 220;

/// Which workspace crates a crate may name. `catalog` and `cache` do not know each other.
const GRAPH: &[(&str, &[&str])] = &[
    (
        "terrace",
        &[
            "terrace-cache",
            "terrace-catalog",
            "terrace-csi",
            "terrace-fuse",
        ],
    ),
    ("terrace-fuse", &["terrace-cache", "terrace-catalog"]),
    ("terrace-csi", &["terrace-catalog"]),
    ("terrace-cache", &[]),
    ("terrace-catalog", &[]),
];

/// Heavy dependencies and the paths that may name them. A path is a prefix.
const OWNERS: &[(&str, &[&str])] = &[
    ("fuser", &["fuse/src/adapter", "fuse/src/session"]),
    (
        "rocksdb",
        &[
            "cache/src/hot",
            "catalog/src/kv",
            "fuse/src/directory",
            "fuse/src/live",
        ],
    ),
    ("tokio_postgres", &["catalog/src/kv"]),
    (
        "tokio_rustls",
        &["catalog/src/kv", "catalog/src/rest", "catalog/src/tls"],
    ),
    ("aws_lc_rs", &["catalog/src/access/identity"]),
    ("object_store", &["cache/src/store"]),
    ("opendal", &["cache/src/store"]),
    ("hdfs_native", &["cache/src/store"]),
    (
        "lru",
        &[
            "cache/src/policy",
            "cache/src/fill",
            "cache/src/hot",
            "cache/src/store/hdfs",
            "cache/src/warm",
            "fuse/src/live",
        ],
    ),
];

/// Calls that production code does without, where they are allowed all the same, and why not elsewhere.
/// (What tests do without too is in `clippy.toml`.)
const CALLS: &[(&str, &[&str], &str)] = &[
    (
        "env::var",
        // Cargo tells a build script where to write by the environment.
        &["src/", "csi/build.rs"],
        "library crates do not read the environment",
    ),
    (
        "thread::sleep",
        // A lock of flock(2) that another process lets go is no event that one could wait for.
        &["fuse/src/keeper/rundir"],
        "wait for the event, not for a guessed time",
    ),
    (
        "process::exit",
        &[],
        "skips destructors that unmount and sync",
    ),
    (
        "mpsc::channel()",
        &[],
        "every queue has a limit with a name",
    ),
    (
        "println!",
        &["src/", "build.rs", "csi/build.rs"],
        "library crates do not print",
    ),
    ("eprintln!", &["src/"], "library crates do not print"),
];

/// One Rust file.
struct Source {
    /// Path below the repository, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// Code only: comments and what follows the test module's head are cut away.
    fn production(&self) -> impl Iterator<Item = &str> {
        let end = self
            .text
            .find("#[cfg(test)]\nmod ")
            .unwrap_or(self.text.len());
        self.text[..end].lines()
    }

    fn is_test(&self) -> bool {
        let places = ["tests/", "/examples/", "/benches/"];
        places.iter().any(|place| self.path.contains(place)) || self.path.ends_with("tests.rs")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a directory, skipping what is not ours.
fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_symlink() || name == ".git" || name == "target" || name == "__pycache__" {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn files() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    walk(root(), &mut found);
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let below = path
                .strip_prefix(root())
                .unwrap()
                .to_string_lossy()
                .into_owned();
            (below, path)
        })
        .collect()
}

fn sources() -> Vec<Source> {
    files()
        .into_iter()
        .filter(|(below, _)| below.ends_with(".rs"))
        .map(|(path, full)| Source {
            path,
            text: std::fs::read_to_string(full).unwrap(),
        })
        .collect()
}

fn manifest(directory: &str) -> toml::Table {
    let path = root().join(directory).join("Cargo.toml");
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

fn members() -> Vec<String> {
    let table = manifest("");
    let members = table["workspace"]["members"].as_array().unwrap();
    let named = members
        .iter()
        .map(|member| member.as_str().unwrap().to_owned());
    std::iter::once(String::new()).chain(named).collect()
}

/// A text file of the repository; empty when it is absent.
fn document(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_default()
}

/// Whether a line of code names a crate: `word::`, `use word;` or `use word as`, as a whole word that
/// is not itself a part of another path.
fn names_crate(line: &str, word: &str) -> bool {
    let inner = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    line.match_indices(word).any(|(at, _)| {
        let (before, rest) = (&line[..at], &line[at + word.len()..]);
        let used = before.trim_end().ends_with("use") && rest.starts_with([';', ' ']);
        !before.ends_with(inner) && (rest.starts_with("::") || used)
    })
}

fn code_of(line: &str) -> &str {
    let line = line.trim_start();
    if line.starts_with("//") {
        ""
    } else {
        line.split(" // ").next().unwrap_or(line)
    }
}

fn assert_none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

// An edge against the direction would let the catalog and the cache grow into one crate.
#[test]
fn crates_depend_in_one_direction() {
    let mut broken = Vec::new();
    for member in members() {
        let table = manifest(&member);
        let name = table["package"]["name"].as_str().unwrap().to_owned();
        let Some((_, allowed)) = GRAPH.iter().find(|(crate_name, _)| *crate_name == name) else {
            broken.push(format!("{name} is not in the graph of tests/tidy.rs"));
            continue;
        };
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = table.get(section).and_then(toml::Value::as_table) else {
                continue;
            };
            for (dependency, value) in dependencies {
                if dependency.starts_with("terrace") && !allowed.contains(&dependency.as_str()) {
                    broken.push(format!("{name} -> {dependency} in [{section}]"));
                }
                if value.get("workspace").is_none() {
                    broken.push(format!(
                        "{name}: the version of {dependency} is not the workspace's"
                    ));
                }
            }
        }
        if table["lints"]["workspace"].as_bool() != Some(true) {
            broken.push(format!("{name} does not take the workspace's lints"));
        }
    }
    for refused in ["common", "utils", "util", "types", "core", "helpers"] {
        if root().join(refused).join("Cargo.toml").exists() {
            broken.push(format!("a crate called {refused} attracts everything"));
        }
    }
    assert_none("crate graph", &broken);
}

// A heavy dependency named all over the code cannot be replaced any more.
#[test]
fn heavy_dependencies_have_owners() {
    let mut broken = Vec::new();
    for source in sources() {
        for (dependency, owners) in OWNERS {
            let owned = owners.iter().any(|owner| source.path.starts_with(owner));
            if owned || source.is_test() {
                continue;
            }
            let mut lines = source.production().map(code_of).enumerate();
            let named = lines.find(|(_, line)| names_crate(line, dependency));
            if let Some((at, _)) = named {
                broken.push(format!("{}:{} names {dependency}", source.path, at + 1));
            }
        }
    }
    assert_none("owners", &broken);
}

// What a library crate does behind its caller's back cannot be configured or tested.
#[test]
fn calls_stay_where_they_belong() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (at, line) in source.production().map(code_of).enumerate() {
            for (call, allowed, why) in CALLS {
                let here = allowed.iter().any(|prefix| source.path.starts_with(prefix));
                if !here && line.contains(call) {
                    broken.push(format!("{}:{}: {call}: {why}", source.path, at + 1));
                }
            }
        }
    }
    assert_none("calls", &broken);
}

// A file without a module text has to be read whole to know what it owns.
#[test]
fn every_file_says_what_it_owns() {
    let broken: Vec<String> = sources()
        .iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.path.clone())
        .collect();
    assert_none("no module documentation", &broken);
}

// Files grow one line at a time until nobody reads them.
#[test]
fn files_stay_small() {
    let mut sizes: Vec<(usize, String)> = sources()
        .into_iter()
        .filter(|source| !source.is_test())
        .map(|source| (source.production().count(), source.path))
        .collect();
    sizes.sort();
    let broken: Vec<String> = sizes
        .iter()
        .filter(|(lines, _)| *lines > FILE_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert_none("files above the limit", &broken);
    let median = sizes[sizes.len() / 2].0;
    assert!(median <= MEDIAN_MAX, "the median file has {median} lines");
}

// Two words for one thing make two designs.
#[test]
fn one_word_per_thing() {
    let refused = ["ch", "unk"].concat();
    let coding = format!("{refused}ed");
    let mut broken = Vec::new();
    for source in sources() {
        for (at, line) in source.text.lines().map(code_of).enumerate() {
            let declares = [
                "fn ", "let ", "let mut ", "struct ", "enum ", "mod ", "const ", "static ",
                "type ", "trait ",
            ]
            .iter()
            .any(|keyword| {
                line.match_indices(keyword).any(|(found, _)| {
                    let name = line[found + keyword.len()..]
                        .split(|c: char| !c.is_alphanumeric() && c != '_')
                        .next();
                    let name = name.unwrap_or_default().to_lowercase();
                    // "Chunked" is HTTP's own word for a transfer coding.
                    name.contains(&refused) && !name.contains(&coding)
                })
            });
            if declares {
                broken.push(format!(
                    "{}:{}: a block is called block",
                    source.path,
                    at + 1
                ));
            }
        }
    }
    assert_none("words", &broken);
}

// A path of one developer's machine fails on every other one.
#[test]
fn no_path_of_one_machine() {
    let mut broken = Vec::new();
    for (below, full) in files() {
        let Ok(text) = std::fs::read_to_string(&full) else {
            continue;
        };
        for place in ["work", "root"].map(|name| format!("/{name}/")) {
            let lines = text.lines().enumerate();
            broken.extend(
                lines
                    .filter(|(_, line)| absolute(line, &place))
                    .map(|(at, _)| format!("{below}:{}", at + 1)),
            );
        }
    }
    assert_none("paths", &broken);
}

/// Whether a line has the absolute path `place`, and not merely a longer path that contains it.
fn absolute(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.}@)$".contains(c))
    })
}

/// The promises of `docs/SEMANTICS.md`: number, and whether it is in bold (a test must name it).
fn promises() -> BTreeMap<u32, bool> {
    let document = document("docs/SEMANTICS.md");
    let items = document.lines().filter_map(|line| line.strip_prefix("- "));
    items
        .filter_map(|item| {
            let word = item.split(' ').next()?;
            let number = word.trim_matches('*').strip_prefix('S')?.parse().ok()?;
            Some((number, word.starts_with('*')))
        })
        .collect()
}

/// Numbers that a source names, as `// SEMANTICS S1, S2: why` or `// SEMANTICS S1.`
fn tested(text: &str) -> BTreeSet<u32> {
    text.lines()
        .filter_map(|line| line.split_once("// SEMANTICS "))
        .flat_map(|(_, rest)| rest.split(':').next().unwrap_or("").split([',', ' ', '.']))
        .filter_map(|word| word.strip_prefix('S')?.parse().ok())
        .collect()
}

// A promise without a test is a wish, and a test of a promise that is gone checks nothing.
#[test]
fn every_promise_has_a_test() {
    let promises = promises();
    let mut named = BTreeMap::new();
    for source in sources() {
        for number in tested(&source.text) {
            named.insert(number, source.path.clone());
        }
    }
    let mut broken = Vec::new();
    for (number, _) in promises
        .iter()
        .filter(|(number, bold)| **bold && !named.contains_key(number))
    {
        broken.push(format!("S{number} is named by no test"));
    }
    for (number, path) in named
        .iter()
        .filter(|(number, _)| !promises.contains_key(number))
    {
        broken.push(format!("{path} tests S{number}, which is not promised"));
    }
    assert_none("docs/SEMANTICS.md", &broken);
}

/// Names that a source registers: the first text after a call that makes a metric.
fn metrics(source: &Source) -> Vec<String> {
    let text = source.production().collect::<Vec<_>>().join("\n");
    let calls = [
        ".counter(",
        ".counters(",
        ".gauge(",
        ".gauges(",
        ".histogram(",
        ".register(",
    ];
    let mut found = Vec::new();
    for call in calls {
        for (at, _) in text.match_indices(call) {
            let rest = text[at + call.len()..].trim_start();
            if let Some(name) = rest
                .strip_prefix('"')
                .and_then(|rest| rest.split('"').next())
            {
                found.push(name.to_owned());
            }
        }
    }
    found
}

// A metric that is not in the manual is found by nobody when it is needed, and one that is only there
// is waited for in vain.
#[test]
fn the_manual_lists_every_metric() {
    let manual = document("docs/OPERATIONS.md");
    let rows = manual
        .lines()
        .filter_map(|line| line.strip_prefix("| `terrace_")?.split('`').next());
    let listed: BTreeSet<String> = rows
        .map(|name| name.strip_suffix("_total").unwrap_or(name).to_owned())
        .collect();
    let metric_files = ["src/metrics", "catalog/src/rest/metrics", "csi/src/metrics"];
    let made: BTreeSet<String> = sources()
        .iter()
        .filter(|source| {
            metric_files
                .iter()
                .any(|file| source.path.starts_with(file))
        })
        .flat_map(metrics)
        .collect();
    let mut broken: Vec<String> = made
        .difference(&listed)
        .map(|name| format!("terrace_{name} is not listed"))
        .collect();
    let gone = listed.difference(&made).filter(|_| !made.is_empty());
    broken.extend(gone.map(|name| format!("terrace_{name} is listed and not made")));
    assert_none("metrics in docs/OPERATIONS.md", &broken);
}

// The first thing a reader tries is a command of the README.
#[test]
fn commands_of_the_readme_exist() {
    let makefile = document("Makefile");
    let readme = document("README.md");
    let mut broken = Vec::new();
    for (_, rest) in readme
        .match_indices("make ")
        .map(|(at, found)| readme[at..].split_at(found.len()))
    {
        let target: String = rest
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '-')
            .collect();
        let quoted = readme.contains(&format!("`make {target}"))
            || readme.contains(&format!("\nmake {target}"));
        if quoted && !makefile.contains(&format!("\n{target}:")) {
            broken.push(format!("make {target}"));
        }
    }
    assert_none("README.md", &broken);
}

//! The rest of the fault matrix: many cases of one kind, from seeds. See `docs/DISCOVERY.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use terrace_catalog::discovery::completeness::Expect;
use terrace_catalog::discovery::{BatchError, BatchRequest, Discovery, Mode, Scope};
use terrace_catalog::ledger::Committed;
use terrace_catalog::upstream::Upstream;

use crate::listing::Listing;
use crate::numbers::Numbers;
use crate::store::Fault;
use crate::world::{World, batch_id, data_below, name, spec};

const TABLE: &str = "ele.orders";

fn call(partition: u64, mode: Mode, files: Option<u64>, source_seq: u64) -> BatchRequest {
    BatchRequest {
        source: None,
        scope: Scope {
            partitions: vec![format!("dt={partition}")],
        },
        mode,
        expect: Expect {
            files,
            ..Expect::default()
        },
        source_seq: Some(source_seq),
    }
}

// Callers repeat calls whose answer was lost, and queues deliver them in any order: an old one that wins
// over a newer one is a lost update.
#[tokio::test(start_paused = true)]
async fn calls_in_any_order() {
    const CALLS: u64 = 16;
    let (mut made, mut repeated, mut stale) = (0, 0, 0);
    for seed in 0..12 {
        let mut numbers = Numbers::new(seed);
        let world = World::new().await;
        let calls: Vec<BatchRequest> = (1..=CALLS)
            .map(|seq| match numbers.below(3) {
                0 => call(numbers.below(3), Mode::DeletePartitions, None, seq),
                _ => call(numbers.below(3), Mode::ReplacePartitions, Some(1), seq),
            })
            .collect();
        // Partition -> the newest call that was accepted, and whether it is there.
        let mut newest: BTreeMap<String, (u64, bool)> = BTreeMap::new();
        let mut versions: BTreeMap<u64, u64> = BTreeMap::new();
        for _ in 0..CALLS * 3 {
            let number = numbers.below(CALLS);
            let request = &calls[number as usize];
            let (partition, seq) = (&request.scope.partitions[0], number + 1);
            world.write(&format!("ele.db/orders/{partition}/a.csv"), b"1,2\n");
            let id = batch_id(&format!("b{number}"));
            let answer = world.discovery.batch(&name(TABLE), &id, request).await;
            let known = newest.get(partition).map_or(0, |(seq, _)| *seq);
            made += 1;
            match answer {
                Ok(committed) => {
                    let version = committed.version().number;
                    if let Some(first) = versions.insert(number, version) {
                        assert_eq!(
                            first, version,
                            "seed {seed}: call {number} made two versions"
                        );
                        assert!(matches!(committed, Committed::Same(_)));
                        repeated += 1;
                        continue;
                    }
                    assert!(seq > known, "seed {seed}: call {number} covers a newer one");
                    let is_there = request.mode == Mode::ReplacePartitions;
                    newest.insert(partition.clone(), (seq, is_there));
                }
                Err(BatchError::Stale(_)) => {
                    assert!(seq < known, "seed {seed}: call {number} is not old");
                    stale += 1;
                }
                Err(error) => panic!("seed {seed}: {error}"),
            }
            let there = newest.iter().filter(|(_, (_, is_there))| *is_there);
            let there: Vec<String> = there.map(|(one, _)| format!("{one}/a.csv")).collect();
            assert_eq!(world.files(TABLE).await, there, "seed {seed}");
        }
    }
    println!("calls in any order: {made} calls, {repeated} repeated, {stale} out of order");
    assert!(repeated > 100 && stale > 50);
}

/// Names as they come from programs that nobody has read, and from those who mean harm.
const HOSTILE: &[&str] = &[
    "%3A",
    "%",
    "%F",
    "%FF",
    "%00",
    "%2F",
    "%2E%2E",
    "%0A",
    "..",
    ".",
    "...",
    "..a",
    "a..",
    "__HIVE_DEFAULT_PARTITION__",
    "a b",
    " ",
    "a\nb",
    "a\0b",
    "\u{7f}",
    "\u{85}",
    "\u{202e}abc",
    "é",
    "e\u{301}",
    "日本",
    "🦀",
    "=",
    "==",
    "a=b=c",
    "-",
    "--help",
    "'",
    "\"",
    "\\",
    "*",
    "?",
    "#",
    "&",
    ";",
    "|",
    "~",
    "$(reboot)",
    "`id`",
    "<script>",
    "${jndi:ldap://x}",
    "{}",
    "[a]",
    "a//b",
    "a/../../b",
    "./a",
    "C:\\x",
    "nul",
    "CON",
    "a\tb",
    "\r",
    "\u{feff}x",
    "+",
    "@v1",
    "a@v1",
    "_x",
    ".x",
    "x.",
    "x ",
    ".terrace",
    ".hf",
    "0",
    "1e9",
    "NaN",
    "null",
    "true",
];

/// Those, and others around the longest that a file system holds.
fn names() -> Vec<String> {
    let long = [250, 251, 252, 255, 256, 300, 5000].map(|length| "n".repeat(length));
    let wide = [80, 84, 100].map(|length| "日".repeat(length));
    let known = HOSTILE.iter().map(|name| (*name).to_owned());
    known.chain(long).chain(wide).collect()
}

/// Where a name may stand in a path of a table.
const PLACES: [&str; 4] = ["dt={}/a.csv", "{}=1/a.csv", "dt=2/{}", "dt=2/{}/a.csv"];

// A name that climbs out of its table, or that makes another one vanish, is another tenant's data.
#[tokio::test(start_paused = true)]
async fn hostile_names() {
    let good = ["dt=good-0/a.csv", "dt=good-1/a.csv", "dt=good-2/a.csv"];
    let mut paths = BTreeSet::new();
    let mut tables = Vec::new();
    for (number, hostile) in names().iter().enumerate() {
        for (place, pattern) in PLACES.iter().enumerate() {
            let table = format!("ele.db/t{number}-{place}");
            let path = pattern.replace("{}", hostile);
            let all = good.iter().copied().chain([path.as_str(), "_SUCCESS"]);
            paths.extend(all.map(|file| format!("{table}/{file}")));
            tables.push((format!("ele.t{number}-{place}"), path));
        }
        // As the name of a table, and of a database.
        paths.insert(format!("ele.db/{hostile}/a.csv"));
        paths.insert(format!("{hostile}.db/t/a.csv"));
    }
    let world = World::new().await;
    let discovery = Discovery::new(world.ledger.clone());
    let upstream: Arc<dyn Upstream> = Arc::new(Listing(paths));
    discovery.add_root_on_demand(spec(), upstream).unwrap();
    discovery.look_at_everything().await;
    let (mut shown, mut kept_out) = (0, 0);
    for (table, hostile) in &tables {
        let files = world.files(table).await;
        let rest: Vec<&String> = files
            .iter()
            .filter(|file| !file.contains("good-"))
            .collect();
        assert_eq!(
            files.len() - rest.len(),
            good.len(),
            "{hostile:?} has cost others: {files:?}"
        );
        for file in &rest {
            assert_eq!(*file, hostile, "published under another name");
            let bad = |part: &str| {
                ["", ".", ".."].contains(&part)
                    || part.len() > 255
                    || part.chars().any(char::is_control)
            };
            assert!(!file.split('/').any(bad), "{file:?} was published");
        }
        shown += rest.len();
        kept_out += 1 - rest.len();
    }
    let status = discovery.roots_status().remove(0);
    println!(
        "hostile names: {} in files and partitions, {shown} published as they are, {kept_out} kept out; \
         {} refused as names of tables",
        tables.len(),
        status.refused.len()
    );
    assert!(shown > 100 && kept_out > 50 && status.refused.len() > 20);
}

/// A table that is written, left half-written, deleted from and looked at in any order.
struct Life {
    world: World,
    numbers: Numbers,
    /// Makes names of files that no other writing has.
    generation: u64,
    /// Contents that a marker has ever spoken for, by partition.
    complete: BTreeMap<String, BTreeSet<Vec<String>>>,
    looks: u64,
    fired: u64,
}

impl Life {
    /// What a partition has, by its directory.
    fn contents(&self) -> BTreeMap<String, Vec<String>> {
        let mut contents: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in data_below(&self.world.path("ele.db/orders")) {
            if let Some((partition, _)) = file.split_once('/') {
                contents.entry(partition.to_owned()).or_default().push(file);
            }
        }
        contents
    }

    /// Writes a partition; a half of it is another one, and the job stays at work.
    fn write(&mut self, whole: bool) {
        let partition = self.numbers.below(4);
        let directory = format!("ele.db/orders/dt={partition}");
        if self.numbers.below(2) == 0 && self.world.path(&directory).exists() {
            self.world.remove(&directory);
        }
        if !whole && self.numbers.below(2) == 0 {
            let staging = "ele.db/orders/_temporary/0/part";
            self.world.write(staging, b"1,");
        }
        self.generation += 1;
        for file in 0..1 + u64::from(whole) {
            let path = format!("{directory}/{}-{file}.csv", self.generation);
            self.world.write(&path, b"1,2\n");
        }
    }

    /// The job ends: no staging, and a marker.
    fn finish(&mut self) {
        if self.world.path("ele.db/orders/_temporary").exists() {
            self.world.remove("ele.db/orders/_temporary");
        }
        self.world.write("ele.db/orders/_SUCCESS", b"");
        for (partition, files) in self.contents() {
            self.complete.entry(partition).or_default().insert(files);
        }
    }

    async fn step(&mut self) {
        match self.numbers.below(8) {
            0 | 1 => self.write(true),
            2 => self.write(false),
            3 => self.finish(),
            4 => {
                let partition = format!("ele.db/orders/dt={}", self.numbers.below(4));
                if self.world.path(&partition).exists() {
                    self.world.remove(&partition);
                }
            }
            5 => self.world.restart(),
            _ => self.look().await,
        }
        let seconds = self.numbers.below(50);
        self.world.pass(seconds).await;
    }

    /// Looks, perhaps at a store that fails; everything published must have been complete once.
    async fn look(&mut self) {
        let at = self.numbers.below(6);
        let faults = [
            None,
            None,
            Some(Fault::Unanswered(at)),
            Some(Fault::Away(at)),
            Some(Fault::Cut(at)),
            Some(Fault::Partial(at)),
            Some(Fault::Twice(at)),
            Some(Fault::Empty(at)),
        ];
        let fault = faults[self.numbers.below(8) as usize];
        self.world.faults.set(fault);
        self.world.discovery.look_at_everything().await;
        self.fired += self.world.faults.fired.swap(0, Ordering::Relaxed).min(1);
        self.world.faults.set(None);
        self.looks += 1;
        self.check().await;
    }

    async fn check(&self) {
        let mut published: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in self.world.files(TABLE).await {
            let (partition, _) = file.split_once('/').unwrap();
            published
                .entry(partition.to_owned())
                .or_default()
                .push(file);
        }
        for (partition, files) in published {
            let known = self.complete.get(&partition);
            let was_complete = known.is_some_and(|known| known.contains(&files));
            assert!(was_complete, "{partition}: {files:?} was never complete");
        }
    }
}

// What no list of cases has: writers, failures and restarts in any order. Nothing half may ever be seen,
// and in the end everything is.
#[tokio::test(start_paused = true)]
async fn lives_in_any_order() {
    let (mut looks, mut fired, mut versions) = (0, 0, 0);
    for seed in 0..25 {
        let mut life = Life {
            world: World::new().await,
            numbers: Numbers::new(seed),
            generation: 0,
            complete: BTreeMap::new(),
            looks: 0,
            fired: 0,
        };
        for _ in 0..40 {
            life.step().await;
        }
        life.write(true);
        life.finish();
        for _ in 0..4 {
            life.world.discovery.look_at_everything().await;
            life.check().await;
            life.world.pass(61).await;
        }
        let why = life.world.why(TABLE);
        assert_eq!(
            life.world.files(TABLE).await,
            data_below(&life.world.path("ele.db/orders")),
            "seed {seed}: something complete stayed unpublished: {why}"
        );
        looks += life.looks;
        fired += life.fired;
        versions += life.world.latest(TABLE).await.unwrap().number;
    }
    println!("lives in any order: {looks} looks, {fired} faults fired, {versions} versions");
    assert!(looks > 150 && fired > 40 && versions > 50);
}

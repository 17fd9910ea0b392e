//! The open-mode machine against the kernel's rules: random opens, releases, completions,
//! evictions and restarts of the worker over a real cache, and a model of the kernel that says
//! where an application would have seen EIO.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fs_support;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fs_support::{Extras, TestFile, World};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use terrace_fuse::fs::{Entry, FileSystem, Found, Item, Kernel, Listing, Opened, Profile};
use terrace_fuse::handles::{Mode, RESENT};

const SMALL: u64 = 1 << 20;

/// What the kernel remembers of one mount.
#[derive(Debug, Default)]
struct Model {
    next_id: u32,
    ids: BTreeSet<u32>,
    /// Bytes behind each id ever registered.
    contents: HashMap<u32, (u64, u64)>,
    inodes: HashMap<u64, Inode>,
    names: HashMap<String, u64>,
    most_ids: usize,
}

/// `iocachectr` and the backing file of a kernel inode.
#[derive(Clone, Copy, Debug, Default)]
struct Inode {
    cached: u32,
    passthrough: u32,
    backing: Option<u32>,
}

#[derive(Clone, Debug, Default)]
struct FakeKernel(Arc<Mutex<Model>>);

impl Kernel for FakeKernel {
    fn open_backing(&self, file: &File) -> io::Result<u32> {
        let mut model = self.0.lock().unwrap();
        model.next_id += 1;
        let id = model.next_id;
        model.ids.insert(id);
        model.most_ids = model.most_ids.max(model.ids.len());
        let mut head = [0; 8];
        let size = file.metadata()?.len();
        let read = file.read_at(&mut head, 0)?;
        model
            .contents
            .insert(id, (size, u64::from_le_bytes(head) * u64::from(read == 8)));
        Ok(id)
    }

    fn close_backing(&self, id: u32) -> io::Result<()> {
        let known = self.0.lock().unwrap().ids.remove(&id);
        if known {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ENOENT))
        }
    }

    fn forget_name(&self, parent: u64, name: &[u8]) -> io::Result<()> {
        assert_eq!(parent, 1);
        self.0
            .lock()
            .unwrap()
            .names
            .remove(std::str::from_utf8(name).unwrap());
        Ok(())
    }
}

impl Model {
    /// A reply to OPEN as fs/fuse/iomode.c takes it; an error is what the application gets.
    fn opened(&mut self, node: u64, mode: Mode) -> Result<(), String> {
        let inode = self.inodes.entry(node).or_default();
        match mode {
            Mode::Cached if inode.passthrough > 0 => {
                Err(format!("EIO: cached beside passthrough {inode:?}"))
            }
            Mode::Cached => {
                inode.cached += 1;
                Ok(())
            }
            Mode::Passthrough(id) if !self.ids.contains(&id) => {
                Err(format!("EIO: id {id} is not registered"))
            }
            Mode::Passthrough(_) if inode.cached > 0 => {
                Err(format!("EIO: passthrough beside cached {inode:?}"))
            }
            Mode::Passthrough(id) if inode.backing.is_some_and(|other| other != id) => {
                Err(format!("EIO: id {id} beside another {inode:?}"))
            }
            Mode::Passthrough(id) => {
                inode.passthrough += 1;
                inode.backing = Some(id);
                Ok(())
            }
        }
    }

    /// What the kernel does before it sends RELEASE.
    fn closed(&mut self, node: u64, mode: Mode) {
        let inode = self.inodes.get_mut(&node).unwrap();
        match mode {
            Mode::Cached => inode.cached -= 1,
            Mode::Passthrough(_) => inode.passthrough -= 1,
        }
        if inode.passthrough == 0 {
            inode.backing = None;
        }
    }
}

/// Takes a listing as READDIRPLUS does: names lead to the nodes it says.
struct Names<'a>(&'a mut Vec<(String, u64)>);

impl Listing for Names<'_> {
    fn push(&mut self, item: &Item<'_>) -> bool {
        if let Some(Entry { node, .. }) = item.entry {
            self.0
                .push((String::from_utf8(item.name.to_vec()).unwrap(), *node));
        }
        true
    }
}

#[derive(Clone, Copy, Debug)]
struct Open {
    fh: u64,
    node: u64,
    mode: Mode,
}

struct Run<'a> {
    world: &'a World,
    kernel: FakeKernel,
    fs: Arc<FileSystem>,
    random: StdRng,
    open: Vec<Open>,
    releases: Vec<Open>,
    unique: u64,
    restarts: u32,
    passthrough_opens: u32,
    evictions: u32,
    reincarnations: u64,
}

impl<'a> Run<'a> {
    fn new(world: &'a World, seed: u64) -> Self {
        let kernel = FakeKernel::default();
        let fs = Self::worker(world, &kernel);
        Self {
            world,
            kernel,
            fs,
            random: StdRng::seed_from_u64(seed),
            open: Vec::new(),
            releases: Vec::new(),
            unique: 0,
            restarts: 0,
            passthrough_opens: 0,
            evictions: 0,
            reincarnations: 0,
        }
    }

    fn worker(world: &World, kernel: &FakeKernel) -> Arc<FileSystem> {
        let fs = world.file_system(Profile::Default, world.wanted(), SMALL);
        fs.connect(Arc::new(kernel.clone())).unwrap();
        fs
    }

    async fn restart(&mut self) {
        self.restarts += 1;
        self.reincarnations += self.fs.status().reincarnations;
        self.fs.shutdown().await;
        self.fs = Self::worker(self.world, &self.kernel);
    }

    async fn node_of(&self, name: &str) -> u64 {
        let known = self.kernel.0.lock().unwrap().names.get(name).copied();
        if let Some(node) = known {
            return node;
        }
        let Found::Entry(entry) = self.fs.lookup(1, name.as_bytes()).await.unwrap() else {
            panic!("{name} is gone");
        };
        assert!(
            entry.attr.ino.0 < 1000,
            "stat shows the inode number, not the node id"
        );
        assert_eq!(entry.attr_ttl.is_zero(), entry.node != entry.attr.ino.0);
        self.kernel
            .0
            .lock()
            .unwrap()
            .names
            .insert(name.to_owned(), entry.node);
        entry.node
    }

    async fn open(&mut self) {
        let file = self.pick();
        let node = self.node_of(&file.name).await;
        self.unique += 2;
        let mut opened = self.fs.open(node, self.unique, 0).await.unwrap();
        if self.random.random_bool(0.15) {
            // The worker dies after it wrote the open down and before the reply went out.
            self.restart().await;
            let again = self.fs.open(node, self.unique | RESENT, 0).await.unwrap();
            assert_eq!(again, opened, "a resent OPEN gets the same answer");
            opened = again;
        }
        let Opened::Handle { fh, mode } = opened else {
            panic!("no handle: {opened:?}")
        };
        let mut model = self.kernel.0.lock().unwrap();
        if let Err(error) = model.opened(node, mode) {
            panic!("{error}; node {node:#x} of {file:?}");
        }
        if let Mode::Passthrough(id) = mode {
            self.passthrough_opens += 1;
            let head = u64::from_le_bytes(file.bytes(0..8).try_into().unwrap());
            assert_eq!(
                model.contents[&id],
                (file.size, head),
                "the bytes of another file"
            );
        }
        drop(model);
        self.open.push(Open { fh, node, mode });
    }

    fn pick(&mut self) -> TestFile {
        let which = self.random.random_range(0..self.world.files.len());
        self.world.files[which].clone()
    }

    fn close(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let which = self.random.random_range(0..self.open.len());
        let handle = self.open.swap_remove(which);
        self.kernel
            .0
            .lock()
            .unwrap()
            .closed(handle.node, handle.mode);
        self.releases.push(handle);
    }

    fn deliver_release(&mut self) {
        if self.releases.is_empty() {
            return;
        }
        let which = self.random.random_range(0..self.releases.len());
        let handle = self.releases.swap_remove(which);
        self.fs.release(handle.fh);
        if self.random.random_bool(0.2) {
            self.fs.release(handle.fh);
        }
    }

    async fn complete(&mut self) {
        let file = self.pick();
        self.world.gate.let_go(&self.key(&file));
        let fill = self.world.object(&file);
        tokio::time::timeout(Duration::from_secs(20), fill.fill())
            .await
            .unwrap()
            .unwrap();
    }

    async fn evict(&mut self) {
        let file = self.pick();
        let digest = self.world.object(&file).id().digest();
        let hot = self.world.cache.hot().clone();
        let evicted = tokio::task::spawn_blocking(move || hot.evict(&digest))
            .await
            .unwrap();
        if evicted.unwrap() {
            self.evictions += 1;
            if file.size > SMALL {
                self.world.gate.hold(&self.key(&file));
            }
        }
    }

    fn key(&self, file: &TestFile) -> String {
        let data = self.world.data.to_str().unwrap().trim_start_matches('/');
        format!("{data}/{}", file.name)
    }

    async fn list(&mut self) {
        let mut names = Vec::new();
        self.fs
            .read_directory(1, 0, &mut Names(&mut names))
            .await
            .unwrap();
        let mut model = self.kernel.0.lock().unwrap();
        for (name, node) in names {
            model.names.insert(name, node);
        }
    }

    /// Busy times, when files stay open, and quiet ones, when all of them close.
    async fn step(&mut self, number: u32) {
        let opens = if (number / 60).is_multiple_of(2) {
            40
        } else {
            5
        };
        match self.random.random_range(0..100) {
            choice if choice < opens => self.open().await,
            0..62 => self.close(),
            62..84 => self.deliver_release(),
            84..89 => self.complete().await,
            89..94 => self.evict().await,
            94..96 => self.list().await,
            96..98 => {
                let file = self.pick();
                self.kernel.0.lock().unwrap().names.remove(&file.name);
            }
            _ => self.restart().await,
        }
    }

    /// Closes everything; how many restarts, evictions, passthrough opens and re-incarnations it saw.
    async fn finish(mut self) -> [u64; 4] {
        while !self.open.is_empty() {
            self.close();
        }
        while !self.releases.is_empty() {
            self.deliver_release();
        }
        let status = self.fs.status();
        assert_eq!(status.open_handles, 0, "every release was counted");
        let ids = self.kernel.0.lock().unwrap().ids.len() as u64;
        assert_eq!(status.backing_ids, ids, "no id is lost");
        assert!(ids <= 4, "{ids} idle ids are kept, the limit is 4");
        self.fs.shutdown().await;
        // What is idle goes with the next worker, as nothing proves it right then.
        let next = Self::worker(self.world, &self.kernel);
        assert_eq!(self.kernel.0.lock().unwrap().ids.len(), 0);
        next.shutdown().await;
        let (restarts, evictions) = (self.restarts, self.evictions);
        let reincarnations = self.reincarnations + status.reincarnations;
        let passthrough = self.passthrough_opens;
        println!("{restarts} restarts, {evictions} evictions, {reincarnations} re-incarnations");
        [
            u64::from(restarts),
            u64::from(evictions),
            u64::from(passthrough),
            reincarnations,
        ]
    }
}

// Without it an application could get EIO from open(2), the most likely bug of passthrough, or the
// bytes of another file, when opens, completions, evictions and restarts come in any order.
#[test]
fn no_reply_to_open_breaks_a_rule_of_the_kernel() {
    let mut seen = [0; 4];
    for seed in 0..6 {
        let files = [
            ("large-a", 3 * SMALL + 17),
            ("large-b", 2 * SMALL),
            ("large-c", SMALL + 1),
            ("small-a", SMALL),
            ("small-b", 4096),
            ("small-c", 9),
        ];
        let world = World::new(&std::env::temp_dir(), &files, Extras::default());
        let mut run = Run::new(&world, seed);
        for file in world.files.iter().filter(|file| file.size > SMALL) {
            world.gate.hold(&run.key(file));
        }
        println!("seed {seed}");
        let counts = world.runtime.block_on(async {
            for number in 0..600 {
                run.step(number).await;
            }
            run.finish().await
        });
        for (sum, count) in seen.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    assert!(
        seen.iter().all(|count| *count > 0),
        "it proved nothing: {seen:?}"
    );
}

// Without it a file that completes while somebody has it open stays slow for everybody else.
#[test]
fn a_completed_file_opens_passthrough_while_old_handles_drain() {
    let world = World::new(
        &std::env::temp_dir(),
        &[("f", 3 * SMALL)],
        Extras::default(),
    );
    let run = Run::new(&world, 1);
    let file = world.files[0].clone();
    world.gate.hold(&run.key(&file));
    world.runtime.block_on(async {
        let node = run.node_of("f").await;
        let Opened::Handle {
            fh: old,
            mode: Mode::Cached,
        } = run.fs.open(node, 2, 0).await.unwrap()
        else {
            panic!("an incomplete large file opens cached")
        };
        world.gate.let_go(&run.key(&file));
        // The kernel is told to forget the name, by itself.
        let forgotten = async {
            while run.kernel.0.lock().unwrap().names.contains_key("f") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), forgotten)
            .await
            .unwrap();
        let next = run.node_of("f").await;
        assert_ne!(next, node);
        let opened = run.fs.open(next, 4, 0).await.unwrap();
        let Opened::Handle {
            fh: new,
            mode: Mode::Passthrough(_),
        } = opened
        else {
            panic!("not passthrough: {opened:?}")
        };
        let stale = run.fs.open(node, 6, 0).await.unwrap();
        assert!(
            matches!(
                stale,
                Opened::Handle {
                    mode: Mode::Cached,
                    ..
                }
            ),
            "{stale:?}"
        );
        assert_eq!(
            run.fs.attr(next).unwrap().0.ino,
            run.fs.attr(node).unwrap().0.ino
        );
        let bytes = run.fs.read(node, old, SMALL - 3, 9).await.unwrap();
        assert_eq!(bytes, file.bytes(SMALL - 3..SMALL + 6));
        let status = run.fs.status();
        assert_eq!((status.opens_cached, status.opens_passthrough), (2, 1));
        assert!(status.reincarnations >= 1);
        let Opened::Handle { fh: stale, .. } = stale else {
            unreachable!()
        };
        for fh in [old, new, stale] {
            run.fs.release(fh);
        }
        run.kernel.0.lock().unwrap().names.clear();
        assert_eq!(
            run.node_of("f").await,
            node,
            "the number is back when all have closed"
        );
        run.fs.shutdown().await;
    });
}

// Without it a cache of idle ids would keep the hot tier from evicting anything, or hold the space
// of what it evicted.
#[test]
fn an_idle_id_neither_stops_an_eviction_nor_outlives_it() {
    let world = World::new(&std::env::temp_dir(), &[("f", 5000)], Extras::default());
    let run = Run::new(&world, 1);
    let file = world.files[0].clone();
    world.runtime.block_on(async {
        let node = run.node_of("f").await;
        let open = async |unique| match run.fs.open(node, unique, 0).await.unwrap() {
            Opened::Handle {
                fh,
                mode: Mode::Passthrough(id),
            } => (fh, id),
            other => panic!("not passthrough: {other:?}"),
        };
        let (fh, id) = open(2).await;
        run.fs.release(fh);
        let (fh, again) = open(4).await;
        assert_eq!(again, id, "an idle id is used again");
        let digest = world.object(&file).id().digest();
        let hot = world.cache.hot().clone();
        let evict = async || {
            let hot = hot.clone();
            tokio::task::spawn_blocking(move || hot.evict(&digest))
                .await
                .unwrap()
                .unwrap()
        };
        assert!(!evict().await, "an open file is in use");
        run.fs.release(fh);
        // The tier syncs what is new in the background and holds it that long.
        let evicted = async {
            while !evict().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            while !run.kernel.0.lock().unwrap().ids.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), evicted)
            .await
            .unwrap();
        assert_eq!(run.fs.status().backing_ids, 0);
        let (fh, _) = open(6).await;
        run.fs.release(fh);
        run.fs.shutdown().await;
    });
}

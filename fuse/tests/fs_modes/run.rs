//! Opens, releases, completions, evictions and restarts, checked after each step.

use crate::fs_support::{TestFile, World};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::time::Duration;
use terrace_fuse::fs::{Entry, FileSystem, Found, Item, Listing, Opened, Profile};
use terrace_fuse::handles::{Mode, RESENT};

use crate::kernel::*;

pub(crate) const SMALL: u64 = 1 << 20;

/// Takes a listing as READDIRPLUS does: names lead to the nodes it says.
pub(crate) struct Names<'a>(&'a mut Vec<(String, u64)>);

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
pub(crate) struct Open {
    pub(crate) fh: u64,
    pub(crate) node: u64,
    pub(crate) mode: Mode,
}

pub(crate) struct Run<'a> {
    pub(crate) world: &'a World,
    pub(crate) kernel: FakeKernel,
    pub(crate) fs: Arc<FileSystem>,
    pub(crate) random: StdRng,
    pub(crate) open: Vec<Open>,
    pub(crate) releases: Vec<Open>,
    pub(crate) unique: u64,
    pub(crate) restarts: u32,
    pub(crate) passthrough_opens: u32,
    pub(crate) evictions: u32,
    pub(crate) reincarnations: u64,
}

impl<'a> Run<'a> {
    pub(crate) fn new(world: &'a World, seed: u64) -> Self {
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

    pub(crate) fn worker(world: &World, kernel: &FakeKernel) -> Arc<FileSystem> {
        let fs = world.file_system(Profile::Default, world.wanted(), SMALL);
        fs.connect(Arc::new(kernel.clone())).unwrap();
        fs
    }

    pub(crate) async fn restart(&mut self) {
        self.restarts += 1;
        self.reincarnations += self.fs.status().reincarnations;
        self.fs.shutdown().await;
        self.fs = Self::worker(self.world, &self.kernel);
    }

    pub(crate) async fn node_of(&self, name: &str) -> u64 {
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

    pub(crate) async fn open(&mut self) {
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

    pub(crate) fn pick(&mut self) -> TestFile {
        let which = self.random.random_range(0..self.world.files.len());
        self.world.files[which].clone()
    }

    pub(crate) fn close(&mut self) {
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

    pub(crate) fn deliver_release(&mut self) {
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

    pub(crate) async fn complete(&mut self) {
        let file = self.pick();
        self.world.gate.let_go(&self.key(&file));
        let fill = self.world.object(&file);
        tokio::time::timeout(Duration::from_secs(20), fill.fill())
            .await
            .unwrap()
            .unwrap();
    }

    pub(crate) async fn evict(&mut self) {
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

    pub(crate) fn key(&self, file: &TestFile) -> String {
        let data = self.world.data.to_str().unwrap().trim_start_matches('/');
        format!("{data}/{}", file.name)
    }

    pub(crate) async fn list(&mut self) {
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
    pub(crate) async fn step(&mut self, number: u32) {
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
    pub(crate) async fn finish(mut self) -> [u64; 4] {
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

//! The blocking side of a build: directories, links and copies, by several threads.
//!
//! Each thread takes a run, opens its directory once, and makes what is in it. What is not complete
//! in the hot tier is left for the next round and told back. The first error stops all threads.

use std::cell::OnceCell;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use terrace_cache::hot::{Found, HotTier, Link, LinkAttributes, Linked, Linker};
use terrace_cache::{DatasetKey, Digest, ObjectId};

use super::journal::Journal;
use super::plan::Run;
use super::spread::spread;
use super::sys::{self, io_error};
use super::{MaterializeError, Report};
use crate::namespace::{Ino, Kind, Namespace as _};
use crate::snapshot::{Node, Snapshot};

/// A build under way, shared by its threads. The lock of the journal lives as long as they do.
#[derive(Debug)]
pub(super) struct Build {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) digest: Digest,
    pub(super) hot: HotTier,
    pub(super) dataset: DatasetKey,
    pub(super) journal: Journal,
    /// Root of the tree while it is built.
    pub(super) root: File,
    pub(super) linker: Linker,
    pub(super) copies: Mutex<Vec<u64>>,
    pub(super) counts: Counts,
}

/// What was made so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) linked: AtomicU64,
    pub(super) copied: AtomicU64,
    pub(super) symlinks: AtomicU64,
    pub(super) directories: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// Files whose object was not ready, and how.
pub(super) type Waiting = Vec<(Ino, Linked)>;

impl Counts {
    pub(super) fn report(&self) -> Report {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Report {
            linked: get(&self.linked),
            copied: get(&self.copied),
            symlinks: get(&self.symlinks),
            directories: get(&self.directories),
            bytes: get(&self.bytes),
            unchanged: false,
        }
    }

    /// Regular files in the tree.
    pub(super) fn files(&self) -> u64 {
        let report = self.report();
        report.linked + report.copied
    }

    /// Entries in the tree.
    pub(super) fn entries(&self) -> u64 {
        let report = self.report();
        self.files() + report.symlinks + report.directories
    }
}

impl Build {
    /// Makes every directory, parents first. Closed to others until the end.
    pub(super) fn make_directories(&self) -> Result<(), MaterializeError> {
        let mut open: Option<(Ino, File)> = None;
        for number in Ino::ROOT.0 + 1..=self.snapshot.entries() {
            let node = self.snapshot.node(Ino(number))?;
            if node.attr.kind != Kind::Directory {
                continue;
            }
            let parent = match open.take() {
                Some((parent, file)) if parent == node.parent => file,
                _ => self.directory(node.parent)?,
            };
            let done = sys::make_directory(&parent, &node.name);
            done.map_err(io_error("create directory", sys::name(&node.name).as_ref()))?;
            self.counts.directories.fetch_add(1, Ordering::Relaxed);
            open = Some((node.parent, parent));
        }
        self.counts.directories.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Gives every directory but the root its mode and times, children first.
    pub(super) fn finish_directories(&self) -> Result<(), MaterializeError> {
        for number in (Ino::ROOT.0 + 1..=self.snapshot.entries()).rev() {
            let attr = self.snapshot.attr(Ino(number))?;
            if attr.kind == Kind::Directory {
                let directory = self.directory(Ino(number))?;
                let done = sys::finish(&directory, &attr);
                done.map_err(io_error("set attributes", &self.journal.tree))?;
            }
        }
        Ok(())
    }

    /// Makes the entries of `runs` with `threads` threads.
    pub(super) fn make(
        self: &Arc<Self>,
        runs: &[Run],
        threads: NonZeroUsize,
    ) -> Result<Waiting, MaterializeError> {
        let objects = runs.iter().flat_map(|run| &run.objects);
        let digests: Vec<Digest> = objects.map(|(_, digest)| *digest).collect();
        let found = self.linker.find(&digests, threads)?;
        let mut rest = found.as_slice();
        let jobs: Vec<(&Run, &[Found])> = runs
            .iter()
            .map(|run| (run, rest.split_off(..run.objects.len()).unwrap_or(&[])))
            .collect();
        let waiting = spread(&jobs, threads, |(run, found)| self.make_run(run, found))?;
        Ok(waiting.into_iter().flatten().collect())
    }

    fn make_run(&self, run: &Run, found: &[Found]) -> Result<Waiting, MaterializeError> {
        let directory = OnceCell::new();
        let open = || match directory.get() {
            Some(open) => Ok(open),
            None => self
                .directory(run.parent)
                .map(|opened| directory.get_or_init(|| opened)),
        };
        let mut objects = run.objects.iter().zip(found);
        let mut files = Vec::with_capacity(run.objects.len());
        for number in run.entries.clone() {
            let node = self.snapshot.node(Ino(number))?;
            match node.attr.kind {
                Kind::Directory => {}
                Kind::Symlink => self.make_symlink(&node, open()?)?,
                Kind::File if node.attr.size == 0 => {
                    self.copy(&node, open()?, None)?;
                }
                Kind::File => {
                    let object = objects.next();
                    files.extend(object.map(|((_, digest), found)| (node, *digest, *found)));
                }
            }
        }
        if files.is_empty() {
            return Ok(Waiting::new());
        }
        self.link_files(&files, open()?)
    }

    fn make_symlink(&self, node: &Node, directory: &File) -> Result<(), MaterializeError> {
        let target = self.snapshot.link_target(node.ino)?;
        let time = node.attr.mtime_ns;
        let done = sys::make_link(directory.as_fd(), &node.name, &target, time);
        let fail = io_error("create symbolic link", sys::name(&node.name).as_ref());
        done.map_err(fail)?;
        self.counts.symlinks.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Links siblings, all with one call of the tier.
    fn link_files(
        &self,
        files: &[(Node, Digest, Found)],
        directory: &File,
    ) -> Result<Waiting, MaterializeError> {
        let links = files.iter().map(|(node, digest, found)| {
            let link = Link {
                digest: *digest,
                name: sys::name(&node.name),
                attributes: LinkAttributes {
                    mode: u32::from(node.attr.mode & 0o777),
                    owner: (node.attr.uid, node.attr.gid),
                    mtime_ns: node.attr.mtime_ns,
                },
            };
            (link, *found)
        });
        let made = self.linker.link_all(directory.as_fd(), links);
        let made = made.map_err(|error| self.explain(files[0].0.ino, error))?;
        let mut waiting = Waiting::new();
        for ((node, ..), how) in files.iter().zip(made) {
            match how {
                Linked::Yes => {
                    self.counts.linked.fetch_add(1, Ordering::Relaxed);
                    let size = node.attr.size;
                    self.counts.bytes.fetch_add(size, Ordering::Relaxed);
                }
                Linked::Differs => {
                    let object = self.snapshot.object(node.ino)?;
                    if !self.copy(node, directory, Some(&object))? {
                        waiting.push((node.ino, Linked::Incomplete));
                    }
                }
                how @ (Linked::Incomplete | Linked::Unverified) => waiting.push((node.ino, how)),
            }
        }
        Ok(waiting)
    }

    /// A file of its own, for what cannot share an inode. `false`: its object has to come first.
    fn copy(
        &self,
        node: &Node,
        directory: &File,
        object: Option<&ObjectId>,
    ) -> Result<bool, MaterializeError> {
        let fail = |operation| io_error(operation, sys::name(&node.name).as_ref());
        let backing = match object {
            Some(object) => match self.hot.object(object, &self.dataset)?.backing()? {
                Some(backing) => Some(backing),
                None => return Ok(false),
            },
            None => None,
        };
        let source = backing.as_ref().map(|backing| backing.file());
        let file = sys::copy(source, directory.as_fd(), &node.name).map_err(fail("copy file"))?;
        sys::finish(&file, &node.attr).map_err(fail("set attributes"))?;
        self.copies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(node.ino.0);
        self.counts.copied.fetch_add(1, Ordering::Relaxed);
        let size = node.attr.size;
        self.counts.bytes.fetch_add(size, Ordering::Relaxed);
        Ok(true)
    }

    fn directory(&self, ino: Ino) -> Result<File, MaterializeError> {
        let path = self.snapshot.path(ino)?;
        let opened = sys::directory_below(&self.root, &path);
        opened.map_err(io_error("open directory", sys::name(&path).as_ref()))
    }

    /// Tells "other file system" from other failures of a link.
    fn explain(&self, ino: Ino, error: terrace_cache::hot::HotError) -> MaterializeError {
        use std::os::unix::fs::MetadataExt as _;
        let device = |file: &File| file.metadata().map(|file| file.dev()).ok();
        let object = self.snapshot.object(ino).ok();
        let object = object.map(|id| self.hot.object(&id, &self.dataset));
        match object.map(|object| object?.backing()) {
            Some(Ok(Some(backing))) if device(backing.file()) != device(&self.root) => {
                MaterializeError::OtherFileSystem(self.journal.tree.clone())
            }
            _ => error.into(),
        }
    }
}

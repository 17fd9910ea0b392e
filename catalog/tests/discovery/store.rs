//! A real local directory as a store, and a wrapper that makes it fail.

use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use terrace_catalog::upstream::{Listed, UpFile, Upstream, UpstreamError, UpstreamErrorKind};

/// A directory.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    url: String,
    /// Added to every modification time: a store whose clock is off.
    pub(crate) skew_ms: AtomicI64,
}

impl Directory {
    pub(crate) fn new(root: &Path) -> Arc<Self> {
        Arc::new(Self {
            root: root.to_owned(),
            url: format!("file://{}", root.display()),
            skew_ms: AtomicI64::new(0),
        })
    }

    fn meta(&self, path: &Path) -> Result<UpFile, UpstreamError> {
        let meta = std::fs::metadata(path).map_err(|error| failure(path, &error))?;
        if meta.is_dir() {
            let text = format!("{}: a directory", path.display());
            return Err(UpstreamError::new(UpstreamErrorKind::NotFound, text));
        }
        let below = path.strip_prefix(&self.root).unwrap().to_str().unwrap();
        let nanos = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
        Ok(UpFile {
            path: Arc::from(below),
            size: meta.len(),
            mtime_ms: nanos / 1_000_000 + self.skew_ms.load(Ordering::Relaxed),
            token: Arc::from(format!("{}:{nanos}", meta.ino())),
        })
    }

    fn walk_into(&self, directory: &Path, out: &mut Vec<Result<UpFile, UpstreamError>>) {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => return out.push(Err(failure(directory, &error))),
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.walk_into(&path, out);
            } else {
                out.push(self.meta(&path));
            }
        }
    }
}

fn failure(path: &Path, error: &std::io::Error) -> UpstreamError {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => UpstreamErrorKind::NotFound,
        std::io::ErrorKind::PermissionDenied => UpstreamErrorKind::Denied,
        _ => UpstreamErrorKind::Unreachable,
    };
    UpstreamError::new(kind, format!("{}: {error}", path.display()))
}

#[async_trait]
impl Upstream for Directory {
    fn url(&self) -> &str {
        &self.url
    }

    fn list(&self, directory: &str) -> BoxStream<'static, Result<Listed, UpstreamError>> {
        let directory = self.root.join(directory);
        let listed: Vec<_> = match std::fs::read_dir(&directory) {
            Err(error) => vec![Err(failure(&directory, &error))],
            Ok(entries) => entries
                .map(|entry| {
                    let path = entry.unwrap().path();
                    if path.is_dir() {
                        let below = path.strip_prefix(&self.root).unwrap();
                        Ok(Listed::Directory(Arc::from(below.to_str().unwrap())))
                    } else {
                        self.meta(&path).map(Listed::File)
                    }
                })
                .collect(),
        };
        stream::iter(listed).boxed()
    }

    fn walk(&self, directory: &str) -> BoxStream<'static, Result<UpFile, UpstreamError>> {
        let mut found = Vec::new();
        self.walk_into(&self.root.join(directory), &mut found);
        stream::iter(found).boxed()
    }

    async fn head(&self, path: &str) -> Result<UpFile, UpstreamError> {
        self.meta(&self.root.join(path))
    }

    async fn read(&self, file: &UpFile, range: Range<u64>) -> Result<Bytes, UpstreamError> {
        let path = self.root.join(&*file.path);
        if self.meta(&path)? != *file {
            let text = format!("{}: another version", file.path);
            return Err(UpstreamError::new(UpstreamErrorKind::Changed, text));
        }
        let bytes = std::fs::read(&path).map_err(|error| failure(&path, &error))?;
        Ok(Bytes::from(bytes).slice(range.start as usize..range.end as usize))
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The call of this number, counted from 0 over all kinds, is not answered.
    Unanswered(u64),
    /// From this call on the store is away.
    Away(u64),
    /// The listing of this number ends in the middle with an error.
    Cut(u64),
    /// The listing of this number leaves out every second file, and says nothing.
    Partial(u64),
    /// The listing of this number shows everything twice.
    Twice(u64),
    /// The listing of this number is empty.
    Empty(u64),
}

/// A store whose calls are counted, and fail as told.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<Directory>,
    fault: Mutex<Option<Fault>>,
    calls: AtomicU64,
    listings: AtomicU64,
    pub(crate) fired: AtomicU64,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<Directory>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            fault: Mutex::default(),
            calls: AtomicU64::new(0),
            listings: AtomicU64::new(0),
            fired: AtomicU64::new(0),
        })
    }

    /// Sets the fault and begins to count from 0.
    pub(crate) fn set(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
        self.calls.store(0, Ordering::Relaxed);
        self.listings.store(0, Ordering::Relaxed);
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn call(&self) -> Option<UpstreamError> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let away = match *self.fault.lock().unwrap() {
            Some(Fault::Unanswered(at)) => number == at,
            Some(Fault::Away(from)) => number >= from,
            _ => false,
        };
        away.then(|| {
            self.fired.fetch_add(1, Ordering::Relaxed);
            UpstreamError::new(UpstreamErrorKind::Unreachable, "no answer (injected)")
        })
    }

    fn spoil<T: Clone>(
        &self,
        items: Vec<Result<T, UpstreamError>>,
    ) -> Vec<Result<T, UpstreamError>> {
        let number = self.listings.fetch_add(1, Ordering::Relaxed);
        let fault = *self.fault.lock().unwrap();
        let fire = |at: u64| at == number && !items.is_empty();
        let spoiled = match fault {
            Some(Fault::Cut(at)) if fire(at) => {
                let mut kept: Vec<_> = items[..items.len() / 2].to_vec();
                kept.push(Err(UpstreamError::new(
                    UpstreamErrorKind::Unreachable,
                    "cut (injected)",
                )));
                kept
            }
            Some(Fault::Partial(at)) if fire(at) => {
                items.iter().skip(1).step_by(2).cloned().collect()
            }
            Some(Fault::Twice(at)) if fire(at) => items.iter().chain(&items).cloned().collect(),
            Some(Fault::Empty(at)) if fire(at) => Vec::new(),
            _ => return items,
        };
        self.fired.fetch_add(1, Ordering::Relaxed);
        spoiled
    }
}

#[async_trait]
impl Upstream for Faulty {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn list(&self, directory: &str) -> BoxStream<'static, Result<Listed, UpstreamError>> {
        if let Some(error) = self.call() {
            return stream::iter([Err(error)]).boxed();
        }
        let listed = ready(self.inner.list(directory));
        stream::iter(self.spoil(listed)).boxed()
    }

    fn walk(&self, directory: &str) -> BoxStream<'static, Result<UpFile, UpstreamError>> {
        if let Some(error) = self.call() {
            return stream::iter([Err(error)]).boxed();
        }
        let listed = ready(self.inner.walk(directory));
        stream::iter(self.spoil(listed)).boxed()
    }

    async fn head(&self, path: &str) -> Result<UpFile, UpstreamError> {
        match self.call() {
            Some(error) => Err(error),
            None => self.inner.head(path).await,
        }
    }

    async fn read(&self, file: &UpFile, range: Range<u64>) -> Result<Bytes, UpstreamError> {
        match self.call() {
            Some(error) => Err(error),
            None => self.inner.read(file, range).await,
        }
    }
}

/// Everything that a stream over memory has.
fn ready<T>(stream: BoxStream<'static, T>) -> Vec<T> {
    stream.collect().now_or_never().unwrap()
}

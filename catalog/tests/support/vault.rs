//! A real directory as a vault; calls can be made to fail by number, and are counted.

use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use terrace_catalog::upstream::{Listed, UpFile, Upstream, UpstreamError, UpstreamErrorKind};
use terrace_catalog::vault::{Content, Vault};

/// See the module text.
#[derive(Debug)]
pub(crate) struct DirectoryVault {
    root: PathBuf,
    url: String,
    calls: AtomicU64,
    /// The call of this number is not answered.
    fail_at: AtomicU64,
    pub(crate) fired: AtomicU64,
}

impl DirectoryVault {
    pub(crate) fn new(root: &Path) -> Arc<Self> {
        std::fs::create_dir_all(root).unwrap();
        Arc::new(Self {
            root: root.to_owned(),
            url: format!("file://{}", root.display()),
            calls: AtomicU64::new(0),
            fail_at: AtomicU64::new(u64::MAX),
            fired: AtomicU64::new(0),
        })
    }

    /// Lets the call of this number, counted from now, fail; `u64::MAX` for none.
    pub(crate) fn fail_at(&self, number: u64) {
        self.calls.store(0, Ordering::SeqCst);
        self.fail_at.store(number, Ordering::SeqCst);
    }

    fn call(&self) -> Result<(), UpstreamError> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        if number != self.fail_at.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.fired.fetch_add(1, Ordering::SeqCst);
        let kind = UpstreamErrorKind::Unreachable;
        Err(UpstreamError::new(kind, "no answer (injected)"))
    }

    fn meta(&self, path: &Path) -> Result<UpFile, UpstreamError> {
        let meta = std::fs::metadata(path).map_err(|error| failure(path, &error))?;
        let nanos = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
        let below = path.strip_prefix(&self.root).unwrap().to_str().unwrap();
        Ok(UpFile {
            path: below.into(),
            size: meta.len(),
            mtime_ms: nanos / 1_000_000,
            token: format!("{}:{nanos}", meta.ino()).into(),
        })
    }
}

fn failure(path: &Path, error: &std::io::Error) -> UpstreamError {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => UpstreamErrorKind::NotFound,
        _ => UpstreamErrorKind::Unreachable,
    };
    UpstreamError::new(kind, format!("{}: {error}", path.display()))
}

#[async_trait]
impl Upstream for DirectoryVault {
    fn url(&self) -> &str {
        &self.url
    }

    fn list(&self, _directory: &str) -> BoxStream<'static, Result<Listed, UpstreamError>> {
        stream::empty().boxed()
    }

    fn walk(&self, directory: &str) -> BoxStream<'static, Result<UpFile, UpstreamError>> {
        if let Err(error) = self.call() {
            return stream::iter([Err(error)]).boxed();
        }
        let mut found = Vec::new();
        let mut left = vec![self.root.join(directory)];
        while let Some(next) = left.pop() {
            let Ok(entries) = std::fs::read_dir(&next) else {
                continue;
            };
            for entry in entries.flatten() {
                match entry.path().is_dir() {
                    true => left.push(entry.path()),
                    // A file may go while it is listed.
                    false => found.extend(self.meta(&entry.path()).ok().map(Ok)),
                }
            }
        }
        stream::iter(found).boxed()
    }

    async fn head(&self, path: &str) -> Result<UpFile, UpstreamError> {
        self.call()?;
        self.meta(&self.root.join(path))
    }

    async fn read(&self, file: &UpFile, range: Range<u64>) -> Result<Bytes, UpstreamError> {
        self.call()?;
        let path = self.root.join(&*file.path);
        let now = self.meta(&path)?;
        if (now.size, &now.token) != (file.size, &file.token) {
            let text = format!("{}: another version", file.path);
            return Err(UpstreamError::new(UpstreamErrorKind::Changed, text));
        }
        let bytes = std::fs::read(&path).map_err(|error| failure(&path, &error))?;
        Ok(Bytes::from(bytes).slice(range.start as usize..range.end as usize))
    }
}

#[async_trait]
impl Vault for DirectoryVault {
    async fn put(&self, path: &str, content: Content<'_>) -> Result<UpFile, UpstreamError> {
        self.call()?;
        let pieces: Vec<Bytes> = content.try_collect().await?;
        let path = self.root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = path.with_extension("unfinished");
        std::fs::write(&new, pieces.concat()).unwrap();
        std::fs::rename(&new, &path).unwrap();
        self.meta(&path)
    }

    async fn link(&self, from: &UpFile, to: &str) -> Result<Option<UpFile>, UpstreamError> {
        self.call()?;
        let to = self.root.join(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::hard_link(self.root.join(&*from.path), &to).unwrap();
        self.meta(&to).map(Some)
    }

    async fn remove(&self, file: &UpFile) -> Result<(), UpstreamError> {
        self.call()?;
        let path = self.root.join(&*file.path);
        match std::fs::remove_file(&path) {
            // Another one who collects was faster.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|error| failure(&path, &error)),
        }
    }
}

/// Files below a directory.
pub(crate) fn count(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| if path.is_dir() { count(&path) } else { 1 })
        .sum()
}

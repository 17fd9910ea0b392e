//! Listings as streams: a page is asked for when the entries before it have been taken.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::Mutex;

use super::backend::{Backend, Page, Pages};
use super::failure::Failure;
use super::stats::Operation;
use super::traffic::Traffic;
use super::{ListEntry, ObjectMeta, StoreError, StoreUrl, Stretch};

/// What a listing needs of its store.
#[derive(Clone)]
pub(super) struct Lister {
    pub(super) url: StoreUrl,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) traffic: Arc<Traffic>,
}

/// One open directory. The mutex lets an attempt borrow the pages; nobody else ever holds it.
struct Level {
    dir: String,
    pages: Mutex<Box<dyn Pages>>,
}

struct Walk {
    lister: Lister,
    /// Directories still to be listed, in reverse order.
    waiting: Vec<String>,
    level: Option<Level>,
    ready: VecDeque<ObjectMeta>,
    root: bool,
}

impl Lister {
    fn level(&self, dir: &str, deep: bool) -> Level {
        Level {
            dir: dir.to_string(),
            pages: Mutex::new(self.backend.pages(dir, deep)),
        }
    }

    async fn page(&self, level: &Level) -> Result<Option<Vec<ListEntry>>, StoreError> {
        let attempt = || async { level.pages.lock().await.next().await };
        let page: Result<Option<Page>, Failure> = self.traffic.run(Operation::List, attempt).await;
        let page = page.map_err(|failure| {
            failure.into_error(Operation::List.verb(), self.url.display_key(&level.dir))
        })?;
        Ok(page.map(|page| self.addressable(page, &level.dir)))
    }

    /// Leaves out directories with an empty name (`a//b` below `a`): no path can name them.
    fn addressable(&self, mut page: Page, dir: &str) -> Vec<ListEntry> {
        let all = page.entries.len();
        page.entries.retain(|entry| match entry {
            ListEntry::Directory(key) => !key.is_empty() && !key.ends_with('/'),
            ListEntry::Object(_) => true,
        });
        let hidden = page.hidden + (all - page.entries.len()) as u64;
        if hidden > 0 {
            self.traffic.counters.hidden_keys.fetch_add(hidden, Relaxed);
            let dir = self.url.display_key(dir);
            tracing::warn!(hidden, %dir, "left out names that no path can express");
        }
        page.entries
    }

    /// One level below `dir`. Ends after the first error.
    pub(super) fn list(self, dir: &str) -> BoxStream<'static, Result<ListEntry, StoreError>> {
        let level = self.level(dir, false);
        stream::unfold(Some((self, level)), |state| async move {
            let (lister, level) = state?;
            match lister.page(&level).await {
                Ok(Some(page)) => {
                    let entries: Vec<_> = page.into_iter().map(Ok).collect();
                    Some((stream::iter(entries), Some((lister, level))))
                }
                Ok(None) => None,
                Err(error) => Some((stream::iter(vec![Err(error)]), None)),
            }
        })
        .flatten()
        .boxed()
    }

    /// One page of `dir` from behind the key `after` on; see [`Store::list_after`].
    ///
    /// [`Store::list_after`]: super::Store::list_after
    pub(super) async fn stretch(
        &self,
        dir: &str,
        after: &str,
    ) -> Result<Option<Stretch>, StoreError> {
        let Some(pages) = self.backend.pages_after(dir, after) else {
            return Ok(None);
        };
        let level = Level {
            dir: dir.to_string(),
            pages: Mutex::new(pages),
        };
        let entries = self.page(&level).await?.unwrap_or_default();
        let early = |entry: &ListEntry| match entry {
            ListEntry::Object(meta) => *meta.key <= *after,
            // As the store compares it: with its slash.
            ListEntry::Directory(key) => format!("{key}/").as_str() <= after,
        };
        if entries.iter().any(early) {
            return Ok(None);
        }
        let reaches = match level.pages.lock().await.ended() {
            true => None,
            false => Some(covered(&entries).unwrap_or_else(|| after.into())),
        };
        Ok(Some(Stretch { entries, reaches }))
    }

    /// All objects below `prefix`. Ends after the first error.
    pub(super) fn walk(self, prefix: &str) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        let walk = Walk {
            lister: self,
            waiting: vec![prefix.to_string()],
            level: None,
            ready: VecDeque::new(),
            root: true,
        };
        stream::unfold(Some(walk), |walk| async move {
            let mut walk = walk?;
            match walk.next().await {
                Ok(Some(meta)) => Some((Ok(meta), Some(walk))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }
}

/// The largest object key of a page. Every name before it is in the page, whether the store sorts
/// directories with the slash at their end (S3) or without it (file systems that speak S3).
fn covered(entries: &[ListEntry]) -> Option<Arc<str>> {
    let key = |entry: &ListEntry| match entry {
        ListEntry::Object(meta) => Some(Arc::clone(&meta.key)),
        ListEntry::Directory(_) => None,
    };
    entries.iter().filter_map(key).max()
}

impl Walk {
    async fn next(&mut self) -> Result<Option<ObjectMeta>, StoreError> {
        loop {
            if let Some(meta) = self.ready.pop_front() {
                return Ok(Some(meta));
            }
            if self.level.is_none() {
                let Some(dir) = self.waiting.pop() else {
                    return Ok(None);
                };
                self.level = Some(self.lister.level(&dir, true));
            }
            let Some(level) = self.level.as_ref() else {
                continue;
            };
            let page = match self.lister.page(level).await {
                // A directory below the root that went away since its parent was listed is not an
                // error of the walk; a root that does not exist is.
                Err(error) if error.is_not_found() && !self.root => None,
                page => page?,
            };
            self.root = false;
            let Some(page) = page else {
                self.level = None;
                continue;
            };
            for entry in page {
                match entry {
                    ListEntry::Object(meta) => self.ready.push_back(meta),
                    ListEntry::Directory(dir) => self.waiting.push(dir),
                }
            }
        }
    }
}

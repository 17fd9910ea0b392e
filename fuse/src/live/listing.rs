//! The listing of one directory at one moment, growing page by page while it is read.
//!
//! Entries are in the order of [`super::window`]. A reader says where to go on by a *name*, not by
//! a position: so a scan sees every entry that stays, exactly once, even when it goes on in a newer
//! listing or in another process. The oldest pages may be dropped to bound memory; whoever still
//! needs them is told so ([`Look::Lost`]) and starts a new listing.
//!
//! Lock order: `feed` (asynchronous: it is the turn to ask the store, one reader at a time), then
//! `state` (never held across `.await` or I/O).

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::feed::Feed;
use super::page::Page;
use super::table::InodeTable;
use super::window::order;
use crate::namespace::{FsError, Ino, Kind};

/// What a listing has to say about what comes after a name.
#[derive(Debug)]
pub(super) enum Look {
    /// Entries from this place of this page on.
    Page(Arc<Page>, usize),
    /// Nothing more.
    End,
    /// Not known yet: [`Listing::more`] asks the store.
    More,
    /// It was dropped from memory.
    Lost,
}

/// What a listing has to say about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is there: number, kind, size, mtime.
    Entry(Ino, Kind, u64, i64),
    /// It is not there.
    Missing,
    /// Ask somebody else.
    Unknown,
}

#[derive(Debug, Default)]
struct State {
    pages: VecDeque<Arc<Page>>,
    /// Entries in all pages ever.
    len: u64,
    /// Entries dropped from the front.
    dropped: u64,
    complete: bool,
    failed: Option<FsError>,
}

/// See the module text.
pub(super) struct Listing {
    /// When it was started, by the mount's clock.
    pub(super) started: Duration,
    state: Mutex<State>,
    feed: tokio::sync::Mutex<Feed>,
    /// Entries of all listings of the mount in memory.
    retained: Arc<AtomicU64>,
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing")
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        let state = self.lock();
        self.retained
            .fetch_sub(state.len - state.dropped, Ordering::Relaxed);
    }
}

impl Listing {
    /// A listing nothing was asked for yet.
    pub(super) fn new(started: Duration, feed: Feed, retained: &Arc<AtomicU64>) -> Self {
        Self {
            started,
            state: Mutex::default(),
            feed: tokio::sync::Mutex::new(feed),
            retained: Arc::clone(retained),
        }
    }

    /// What comes after `name` (`None`: from the start).
    pub(super) fn after(&self, name: Option<&[u8]>) -> Look {
        let state = self.lock();
        let beyond = |other: &[u8]| name.is_none_or(|name| order(other, name).is_gt());
        let index = state
            .pages
            .partition_point(|page| !beyond(page.last_name()));
        let Some(page) = state.pages.get(index) else {
            return if state.complete {
                Look::End
            } else {
                Look::More
            };
        };
        if index == 0 && state.dropped > 0 && beyond(page.name(0)) {
            return Look::Lost;
        }
        Look::Page(
            Arc::clone(page),
            page.partition_point(|other| !beyond(other)),
        )
    }

    /// What is at `name`. Positive answers hold for `ttl` from when their page, or its renewal, was
    /// asked for, negative ones from when the listing was started.
    pub(super) fn find(&self, name: &[u8], now: Duration, ttl: Duration) -> Found {
        let state = self.lock();
        if let Some(page) = around(&state, name) {
            if let Some(entry) = page.find(name)
                && now < page.fetched + ttl
            {
                return entry.found();
            }
            if let Some(page) = page.renewed(now, ttl)
                && let Some(entry) = page.use_renewed(name)
            {
                return entry.found();
            }
        }
        let whole = state.complete && state.dropped == 0;
        if whole && now < self.started + ttl {
            Found::Missing
        } else {
            Found::Unknown
        }
    }

    /// The page in whose range of names `name` lies.
    pub(super) fn page_around(&self, name: &[u8]) -> Option<Arc<Page>> {
        around(&self.lock(), name).map(Arc::clone)
    }

    /// Asks the store for one more page and records its inodes, unless somebody else has meanwhile
    /// brought in more than `known` entries. An error ends the listing for everyone.
    pub(super) async fn more(
        &self,
        known: u64,
        table: &Arc<InodeTable>,
        now: Duration,
    ) -> Result<(), FsError> {
        let mut feed = self.feed.lock().await;
        {
            let state = self.lock();
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if state.len > known || state.complete {
                return Ok(());
            }
        }
        let result = self.bring(&mut feed, table, now).await;
        if let Err(error) = &result {
            self.lock().failed = Some(error.clone());
        }
        result
    }

    async fn bring(
        &self,
        feed: &mut Feed,
        table: &Arc<InodeTable>,
        now: Duration,
    ) -> Result<(), FsError> {
        let (entries, complete) = feed.page().await?;
        if !entries.is_empty() {
            let entries = entries.to_vec();
            let table = Arc::clone(table);
            let page = tokio::task::spawn_blocking(move || Page::new(&entries, now, &table)).await;
            let page = page.map_err(|error| FsError::Local(error.to_string()))??;
            let count = page.len() as u64;
            let mut state = self.lock();
            state.pages.push_back(Arc::new(page));
            state.len += count;
            self.retained.fetch_add(count, Ordering::Relaxed);
        }
        feed.taken();
        self.lock().complete = complete;
        Ok(())
    }

    /// Drops the oldest pages, but never the last one, until at most `limit` entries remain.
    pub(super) fn shorten(&self, limit: u64) {
        let mut state = self.lock();
        while state.pages.len() > 1 && state.len - state.dropped > limit {
            let Some(page) = state.pages.pop_front() else {
                break;
            };
            let count = page.len() as u64;
            state.dropped += count;
            self.retained.fetch_sub(count, Ordering::Relaxed);
        }
    }

    /// Entries brought in so far.
    pub(super) fn len(&self) -> u64 {
        self.lock().len
    }

    /// True once the store said that nothing follows.
    pub(super) fn is_complete(&self) -> bool {
        self.lock().complete
    }

    /// True after an error: the next reader starts a new listing.
    pub(super) fn has_failed(&self) -> bool {
        self.lock().failed.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The page whose last name is not before `name`.
fn around<'a>(state: &'a State, name: &[u8]) -> Option<&'a Arc<Page>> {
    let before = |page: &Arc<Page>| order(page.last_name(), name).is_lt();
    state.pages.get(state.pages.partition_point(before))
}

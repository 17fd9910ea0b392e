//! One listing of the store on its way in: stream -> checked names -> order -> pages of entries.
//!
//! Nothing runs unless a reader pulls: a listing nobody reads costs no request, and a slow reader
//! slows the store's pages down. All calls leave a state that the next call goes on from, so a
//! reader may go away at any `.await`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use terrace_cache::store::{ListEntry, StoreError, StoreErrorKind};

use super::record::What;
use super::window::{Arrival, Departure, Window};
use crate::names::check_segment;
use crate::namespace::FsError;

/// Entries put together: one write to the inode table, one allocation for the names.
pub(super) const PAGE: usize = 1000;

/// What listings of one mount share: what they met, and whether the store keeps its order.
#[derive(Debug)]
pub(super) struct Manners {
    /// Listings may be shown while they come in.
    pub(super) ordered: AtomicBool,
    /// Keys left out because they cannot be file names.
    pub(super) hidden: AtomicU64,
    /// Objects left out because a directory of the same name exists, or that came twice.
    pub(super) shadowed: AtomicU64,
}

/// See the module text.
pub(super) struct Feed {
    stream: Option<BoxStream<'static, Result<ListEntry, StoreError>>>,
    /// Key of the directory with a slash at its end; empty for the store's root.
    base: String,
    /// Path of the directory with a slash at its end; empty for the mount's root.
    path: String,
    seen_ns: i64,
    window: Window,
    manners: Arc<Manners>,
    /// Entries of the page being put together, by full path.
    page: Vec<(String, What)>,
}

impl Feed {
    /// Over `stream`, the listing of key `directory` that is mounted at `path`. New directories
    /// found in it get `seen_ns` as mtime.
    pub(super) fn new(
        stream: BoxStream<'static, Result<ListEntry, StoreError>>,
        directory: &str,
        path: &str,
        seen_ns: i64,
        manners: &Arc<Manners>,
    ) -> Self {
        let slashed = |text: &str| match text {
            "" => String::new(),
            text => format!("{text}/"),
        };
        Self {
            stream: Some(stream),
            base: slashed(directory),
            path: slashed(path),
            seen_ns,
            window: Window::new(manners.ordered.load(Ordering::Relaxed)),
            manners: Arc::clone(manners),
            page: Vec::new(),
        }
    }

    /// The next page: up to [`PAGE`] entries in order, fewer only at the end, which `true` tells.
    /// Stays the same until [`Feed::taken`] is called.
    pub(super) async fn page(&mut self) -> Result<(&[(String, What)], bool), FsError> {
        loop {
            while self.page.len() < PAGE {
                match self.window.pop(self.stream.is_none()) {
                    Some(departure) => self.depart(departure)?,
                    None => break,
                }
            }
            if self.page.len() >= PAGE {
                return Ok((&self.page, false));
            }
            let Some(stream) = &mut self.stream else {
                return Ok((&self.page, true));
            };
            match stream.next().await {
                Some(Ok(entry)) => self.arrive(entry),
                Some(Err(error)) if error.kind == StoreErrorKind::NotFound => {
                    return Err(FsError::NotFound);
                }
                Some(Err(error)) => return Err(error.into()),
                None => self.stream = None,
            }
        }
    }

    /// The page was recorded; the next one may begin.
    pub(super) fn taken(&mut self) {
        self.page = Vec::new();
    }

    fn arrive(&mut self, entry: ListEntry) {
        let (key, what) = match entry {
            ListEntry::Object(meta) => (meta.key.to_string(), What::File(meta.version)),
            ListEntry::Directory(key) => (key, What::Directory(self.seen_ns)),
        };
        match key.strip_prefix(&self.base) {
            Some(name) if check_segment(name.as_bytes()).is_ok() => {
                let name = name.to_owned();
                self.window.push(Arrival { name, what });
            }
            // The marker object of this directory itself.
            Some("") if matches!(what, What::File(_)) => {}
            _ => {
                self.manners.hidden.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn depart(&mut self, departure: Departure) -> Result<(), FsError> {
        match departure {
            Departure::Entry(arrival) => {
                self.page
                    .push((format!("{}{}", self.path, arrival.name), arrival.what));
            }
            Departure::Shadowed => {
                self.manners.shadowed.fetch_add(1, Ordering::Relaxed);
            }
            Departure::OutOfOrder => {
                self.manners.ordered.store(false, Ordering::Relaxed);
                let reason = "the store lists out of order; read the directory again";
                return Err(FsError::Local(reason.to_owned()));
            }
        }
        Ok(())
    }
}

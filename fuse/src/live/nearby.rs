//! Asking for many names of a large directory at once.
//!
//! Each name older than the time to live costs two requests when it is asked for alone (is it an
//! object, is it a prefix), and a loader that opens the files of a directory asks for one name after
//! the other. So when several names of one page of an old listing are asked for within the time to
//! live, one LIST that begins just before the page answers for all of them. Its answer is kept beside
//! the page ([`Page::renew`]) and believed for as long as any other.
//!
//! Only what is there is taken from it: a name that is not is asked for alone before an application
//! hears "no such file". So a store that sorts in a way of its own costs time, not files.
//!
//! ```text
//! keys of the store   ... a/000 a/001 ... a/517 | a/518 ... a/999 ...
//! page of the listing       ^ begins before its smallest name
//! one LIST                  |-------------------| as far as it reaches
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use terrace_cache::store::{ListEntry, StoreErrorKind, Stretch};

use super::flight::Flights;
use super::page::Page;
use super::record::{Record, What};
use super::window::order;
use super::{Attr, FsError, Inner, Ino};
use crate::names::check_segment;

/// A character after all that names are made of, and one that XML can carry.
const LAST: char = '\u{10FFFD}';

/// A directory and the first name of one of its pages.
type Place = (Ino, Box<[u8]>);

/// Requests for many names that are under way.
#[derive(Debug)]
pub(super) struct Nearby {
    flights: Flights<Place, Result<Option<Arc<Page>>, FsError>>,
    /// The store cannot begin in the middle of a listing.
    refused: AtomicBool,
}

impl Default for Nearby {
    fn default() -> Self {
        Self {
            flights: Flights::new(),
            refused: AtomicBool::new(false),
        }
    }
}

impl Inner {
    /// Asks for the names around `name` when others of them are being asked for, too. `None`: `name`
    /// has to be asked for alone.
    pub(super) async fn nearby(
        self: &Arc<Self>,
        parent: Ino,
        directory: &Arc<Record>,
        name: &str,
    ) -> Result<Option<Attr>, FsError> {
        let (now, ttl) = (self.clock.now(), self.ttl());
        let ordered = self.manners.ordered.load(Ordering::Relaxed);
        if ttl.is_zero() || !ordered || self.nearby.refused.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let newest = self.listings.newest(parent);
        let Some(page) = newest.and_then(|listing| listing.page_around(name.as_bytes())) else {
            return Ok(None);
        };
        let fresh = match page.renewed(now, ttl) {
            // Brought in since this question was put.
            Some(fresh) => Some(fresh),
            None if page.is_worth_renewing(now, ttl) => {
                let (asker, directory) = (Arc::clone(self), Arc::clone(directory));
                let key = (parent, page.name(0).into());
                let ask = || async move { asker.renew(&directory, page, now).await };
                self.nearby.flights.join(key, ask).await?
            }
            None => None,
        };
        // Also when the answer took longer than it may be believed: it was asked for this name.
        let Some(fresh) = fresh else {
            return Ok(None);
        };
        Ok(fresh.use_renewed(name.as_bytes()).map(|entry| {
            let (size, mtime_ns) = (entry.size, entry.mtime_ns);
            self.ownership.attr(entry.ino, entry.kind, size, mtime_ns)
        }))
    }

    async fn renew(
        &self,
        directory: &Record,
        page: Arc<Page>,
        now: Duration,
    ) -> Result<Option<Arc<Page>>, FsError> {
        let slashed = |text: String| match text.is_empty() {
            true => text,
            false => text + "/",
        };
        let key = self.key(&directory.path);
        let base = slashed(key.clone());
        let after = just_before(page.smallest_name());
        let stretch = match self
            .lister
            .list_after(&key, &format!("{base}{after}"))
            .await
        {
            Ok(Some(stretch)) => stretch,
            Ok(None) => {
                self.nearby.refused.store(true, Ordering::Relaxed);
                return Ok(None);
            }
            // Who may read but not list still finds files by name.
            Err(error) if error.kind == StoreErrorKind::Permission => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let path = slashed(directory.path.to_string());
        let mut entries = self.answered(stretch, &base, &after);
        if entries.is_empty() {
            return Ok(None);
        }
        for (name, _) in &mut entries {
            name.insert_str(0, &path);
        }
        let table = Arc::clone(&self.table);
        let made = tokio::task::spawn_blocking(move || Page::new(&entries, now, &table)).await;
        let fresh = Arc::new(made.map_err(|error| FsError::Local(error.to_string()))??);
        page.renew(Arc::clone(&fresh));
        Ok(Some(fresh))
    }

    /// The names that a stretch tells all about, in order, a directory before a file.
    fn answered(&self, stretch: Stretch, base: &str, after: &str) -> Vec<(String, What)> {
        let reaches = stretch.reaches.as_deref();
        // A file counts only where a directory of the same name would have been told, too.
        let covers = |name: &str| {
            let end = |reaches: &str| *format!("{base}{name}/") <= *reaches;
            name > after && reaches.is_none_or(end)
        };
        let seen = self.clock.wall_ns();
        let mut entries: Vec<(String, What)> = Vec::with_capacity(stretch.entries.len());
        for entry in stretch.entries {
            let (key, what) = match entry {
                ListEntry::Object(meta) => (meta.key.to_string(), What::File(meta.version)),
                ListEntry::Directory(key) => (key, What::Directory(seen)),
            };
            if let Some(name) = key.strip_prefix(base)
                && check_segment(name.as_bytes()).is_ok()
                && covers(name)
            {
                entries.push((name.to_owned(), what));
            }
        }
        let is_file = |what: &What| matches!(what, What::File(_));
        entries.sort_by(|(a, one), (b, other)| {
            order(a.as_bytes(), b.as_bytes()).then(is_file(one).cmp(&is_file(other)))
        });
        entries.dedup_by(|(later, _), (first, _)| later == first);
        entries
    }
}

/// A name before `name` in the order of bytes, with next to nothing between them.
fn just_before(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let mut chars = name.chars();
    let last = chars.next_back().map_or(0, u32::from);
    let mut before = chars.as_str().to_owned();
    let lower = last.checked_sub(1).and_then(char::from_u32);
    // Control characters are better not asked for, and a slash would end the name.
    if let Some(lower) = lower.filter(|lower| *lower >= ' ') {
        before.push(if lower == '/' { '.' } else { lower });
        before.push(LAST);
    }
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a listing would begin behind the name that was asked for, or far before it.
    #[test]
    fn the_name_before_is_before() {
        let cases = [
            ("a1", format!("a0{LAST}")),
            ("a0", format!("a.{LAST}")),
            ("x\u{1}", "x".to_owned()),
            (" ", String::new()),
            ("\u{e9}", format!("\u{e8}{LAST}")),
            ("\u{e000}", String::new()),
        ];
        for (name, before) in cases {
            assert_eq!(just_before(name.as_bytes()), before, "{name:?}");
            assert!(*before < *name);
        }
    }
}

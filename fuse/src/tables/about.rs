//! `.terrace/` in a version's directory: what is known about the version, as files.
//!
//! ```text
//! version.json   what the catalog and the snapshot say of it; never changes
//! manifest       its files as text (`file_list.rs`); never changes
//! heat.json      who holds how much of it, at most `report_ttl` old
//! usage          what this node holds of it, at most `report_ttl` old
//! ```
//!
//! A report that changed is another file: its text gets a slot and so an inode of its own, and an open
//! handle keeps what it began to read.

use std::sync::{Arc, PoisonError};

use serde_json::json;

use super::catalog::{Report, TableVersion};
use super::lookup::{Got, Miss, Need};
use super::place::{FILE_LIST, Place};
use super::slot::Slot;
use super::tree::Inner;
use super::versions::Opened;
use crate::namespace::{Attr, FsError};

/// Name of the directory.
pub(super) const NAME: &str = ".terrace";

/// A file in there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    Version,
    FileList,
    Report(Report),
}

impl Made {
    /// All of them with their names, in the order of a listing.
    pub(super) const ALL: [(&'static str, Self); 4] = [
        ("heat.json", Self::Report(Report::Heat)),
        ("manifest", Self::FileList),
        ("usage", Self::Report(Report::Usage)),
        ("version.json", Self::Version),
    ];

    pub(super) fn named(name: &[u8]) -> Option<Self> {
        let found = Self::ALL.iter().find(|(known, _)| known.as_bytes() == name);
        found.map(|(_, made)| *made)
    }
}

/// `v12`.
pub(super) fn version_text(version: &TableVersion) -> String {
    format!("v{}", version.number)
}

/// The files of a version with their list made, which takes seconds for ten million files.
pub(super) async fn with_list(opened: Arc<Opened>) -> Result<Arc<Opened>, FsError> {
    let making = tokio::task::spawn_blocking(move || opened.list().map(drop).map(|()| opened));
    let ended = |_| FsError::Local("the worker is shutting down".to_owned());
    making.await.map_err(ended)?
}

fn version_json(version: &TableVersion, opened: &Opened) -> Slot {
    let snapshot = &opened.snapshot;
    let text = json!({
        "dataset": version.dataset.as_str(),
        "version": version.number,
        "selector": format!("{}@v{}", version.dataset, version.number),
        "committed_ms": version.committed_ms,
        "manifest": version.manifest.hex(),
        "store": snapshot.store(),
        "prefix": snapshot.prefix(),
        "files": snapshot.files(),
        "bytes": snapshot.file_bytes(),
    });
    let text = format!("{text:#}\n");
    Slot::Text(version.committed_ms, text.as_bytes().into())
}

impl Inner {
    pub(super) fn made(
        &self,
        place: Place,
        version: &TableVersion,
        made: Made,
        got: Option<&Got>,
    ) -> Result<Attr, Miss> {
        let found = match made {
            Made::FileList => {
                let need = || Miss::Need(Need::FileList(version.clone()));
                let opened = self.files(version, got).map_err(|_| need())?;
                if !opened.has_list() {
                    return Err(need());
                }
                place.with(FILE_LIST)
            }
            Made::Version => {
                let opened = self.files(version, got)?;
                self.placed(version_json(version, &opened))?
            }
            Made::Report(report) => match got {
                Some(Got::Report(slot)) => Place::of(*slot),
                _ => {
                    let need = Need::Report(place.slot, version.clone(), report);
                    let fresh = self.fresh_report(place.slot, report);
                    Place::of(fresh.ok_or(Miss::Need(need))?)
                }
            },
        };
        let (place, slot) = self.at(found.ino())?;
        Ok(self.attr(place, slot.as_deref())?)
    }

    fn fresh_report(&self, slot: u32, report: Report) -> Option<u32> {
        let now = self.clock.now();
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, text) = reports.get(&(slot, report)).copied()?;
        (now < until).then_some(text)
    }

    /// The slot of a report's text, asked for now.
    pub(super) async fn report(
        &self,
        slot: u32,
        version: &TableVersion,
        report: Report,
    ) -> Result<u32, FsError> {
        let asked_at = self.clock.now();
        let last = {
            let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
            reports.get(&(slot, report)).map(|(_, text)| *text)
        };
        let patience = last.is_some().then_some(self.config.patience);
        let question = self.tables.report(version, report);
        let answer = match report {
            Report::Heat => self.reach.ask(patience, question).await,
            // This node's own: it takes the time it takes, and says nothing about the catalog.
            Report::Usage => question.await,
        };
        let text = match answer {
            Ok(bytes) => self.report_text(last, bytes)?,
            Err(error) => self.last_answer(last, error)?,
        };
        let until = asked_at + self.config.report_ttl;
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.insert((slot, report), (until, text));
        Ok(text)
    }

    /// The slot of a text: the last one, when it says the same.
    fn report_text(&self, last: Option<u32>, bytes: Vec<u8>) -> Result<u32, FsError> {
        if let Some(slot) = last
            && let Some(Slot::Text(_, known)) = self.slots.get(slot).as_deref()
            && **known == *bytes
        {
            return Ok(slot);
        }
        let now_ms = self.clock.wall_ns() / super::tree::MILLISECOND;
        let slots = self.slots.put(&[Slot::Text(now_ms, bytes.into())])?;
        slots.first().copied().ok_or(FsError::Stale)
    }
}

//! `.terrace/manifest`: the files of a version as text, made from its snapshot piece by piece.
//!
//! ```text
//! line = path TAB size TAB mtime_ns TAB pin LF      one for each file, in the snapshot's order
//! ```
//!
//! `\`, TAB and LF in a path are written `\\`, `\t` and `\n`; the pin is
//! [`terrace_cache::Version::pin_text`]. The text is never kept: a mark for every [`STEP`] entries
//! says where their lines begin, so any range is made again from there.

use std::fmt::Write as _;
use std::ops::Range;

use bytes::Bytes;

use crate::namespace::{FsError, Ino, Kind};
use crate::snapshot::Snapshot;

/// Entries between two marks: about 100 KiB of text.
const STEP: u64 = 1024;

/// Where the lines are.
#[derive(Debug)]
pub(super) struct FileList {
    /// Length of the text before entry `n * STEP + 1`.
    marks: Vec<u64>,
    total: u64,
}

impl FileList {
    /// Measures the text. Reads the whole snapshot: about 0.3 s for a million files.
    pub(super) fn new(snapshot: &Snapshot) -> Result<Self, FsError> {
        let mut marks = Vec::new();
        let mut total = 0;
        let mut lines = Lines::new(snapshot);
        let mut text = String::new();
        for first in (1..=snapshot.entries()).step_by(STEP as usize) {
            marks.push(total);
            text.clear();
            lines.step(first, &mut text)?;
            total += text.len() as u64;
        }
        Ok(Self { marks, total })
    }

    /// Length of the text.
    pub(super) fn len(&self) -> u64 {
        self.total
    }

    /// The bytes from `range.start` on, as far as they come out at once: at least one, unless the
    /// range is empty, and never more than the range.
    pub(super) fn piece(&self, snapshot: &Snapshot, range: &Range<u64>) -> Result<Bytes, FsError> {
        let step = self.marks.partition_point(|mark| *mark <= range.start);
        let Some(step) = step.checked_sub(1).filter(|_| range.start < self.total) else {
            return Err(FsError::Local(
                "position behind the end of a list".to_owned(),
            ));
        };
        let mut text = String::new();
        Lines::new(snapshot).step(step as u64 * STEP + 1, &mut text)?;
        let skip = (range.start - self.marks[step]) as usize;
        let end = ((range.end - self.marks[step]) as usize).min(text.len());
        let bytes = Bytes::from(text);
        if skip >= end {
            return Err(FsError::Local("a list has changed its length".to_owned()));
        }
        Ok(bytes.slice(skip..end))
    }
}

/// Makes lines; remembers the path of the last directory.
struct Lines<'a> {
    snapshot: &'a Snapshot,
    directory: Option<(Ino, String)>,
}

impl<'a> Lines<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        let directory = None;
        Self {
            snapshot,
            directory,
        }
    }

    /// Appends the lines of the entries from `first` up to the next mark.
    fn step(&mut self, first: u64, text: &mut String) -> Result<(), FsError> {
        let end = (first + STEP - 1).min(self.snapshot.entries());
        for ino in (first..=end).map(Ino) {
            let node = self.snapshot.node(ino)?;
            if node.attr.kind != Kind::File {
                continue;
            }
            if self
                .directory
                .as_ref()
                .is_none_or(|(of, _)| *of != node.parent)
            {
                let path = self.snapshot.path(node.parent)?;
                let mut shown = escaped(&String::from_utf8_lossy(&path));
                if !shown.is_empty() {
                    shown.push('/');
                }
                self.directory = Some((node.parent, shown));
            }
            let directory = self.directory.as_ref().map_or("", |(_, path)| path);
            let name = escaped(&String::from_utf8_lossy(&node.name));
            let version = self.snapshot.pinned(ino)?;
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{directory}{name}\t{}\t{}\t{}",
                version.size,
                version.mtime_ns,
                version.pin_text()
            );
        }
        Ok(())
    }
}

fn escaped(text: &str) -> String {
    let special = ['\\', '\t', '\n'];
    if !text.contains(special) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out
}

//! Collecting the entries of a snapshot, in any order, and putting them into the one right order.
//!
//! Memory per entry while building: a 40-byte node, the name, the token's record (20 bytes for a
//! plain ETag), and 12 bytes of order at the end: about 95 bytes, plus about 90 for each directory.
//! Nothing is written before [`Builder::finish`], so a refused set leaves no file.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use terrace_cache::Version;

use super::format::{ENTRIES_MAX, NAMES_MAX, REFERENCES_MAX, Row, encode_origin};
use super::write::{Built, Ordered, write};
use crate::names::{BadName, PATH_MAX, check_path};
use crate::namespace::Kind;
use crate::token;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind<'a> {
    /// A regular file: this version of the object at the path's key.
    File(&'a Version),
    /// A symbolic link: its target (1 to 4095 bytes, no NUL) and mtime. Never followed by us.
    Symlink(&'a [u8], i64),
    /// A directory with its mtime. Only needed for empty directories and to set mtime or mode:
    /// parents of other entries exist anyway, with the newest mtime found below them.
    Directory(i64),
}

/// One entry to put into a snapshot.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Path below the prefix, no slash at the ends; segments of 1 to 255 bytes, not `.` or `..`.
    pub path: &'a str,
    /// Permission bits; `None`: as the mount says.
    pub mode: Option<u16>,
    /// What it is.
    pub kind: EntryKind<'a>,
}

/// What [`Builder::finish`] does with a file at a path that is also a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surplus {
    /// The set is refused.
    Refuse,
    /// The directory stays, the file is left out and counted: the rule of live mounts.
    Hide,
}

/// Why a snapshot cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A path that no file system can have.
    #[error("path cannot be mounted: {why} path={path:?}")]
    Path {
        /// The path, as given.
        path: String,
        /// What is wrong with it.
        why: BadName,
    },
    /// The same path twice.
    #[error("path is given twice path={0:?}")]
    Duplicate(String),
    /// A file or link at a path that other entries need as a directory.
    #[error("path is both a file and a directory path={0:?}")]
    Conflict(String),
    /// A link target that is empty, too long or has a NUL byte, or a version token over 64 KiB.
    #[error("value cannot be recorded path={0:?}")]
    Value(String),
    /// More entries or longer names than the format can hold.
    #[error("snapshot is too large for its format")]
    TooLarge,
    /// Another process builds the same file right now.
    #[error("snapshot is being written by another process")]
    Busy,
    /// The disk.
    #[error("write snapshot: {0}")]
    Io(#[from] std::io::Error),
}

/// A directory nobody described, without name: also how the root begins.
const IMPLIED: Row = Row {
    name_at: 0,
    name_len: 0,
    kind: Kind::Directory,
    mode: None,
    size: 0,
    mtime_ns: i64::MIN,
    parent: 0,
    reference: 0,
};

/// Collects entries. One builder, one thread; order of [`Builder::push`] does not matter.
#[derive(Debug)]
pub struct Builder {
    surplus: Surplus,
    origin: Vec<u8>,
    /// Rows with the parent as a place in `nodes`, and `reference` as place / 4 in `references`.
    nodes: Vec<Row>,
    names: Vec<u8>,
    references: Vec<u8>,
    /// (parent, name) of each directory -> its place in `nodes`.
    directories: HashMap<(u32, Box<[u8]>), u32>,
    /// Directories with an entry of their own, whose mtime must not follow their content.
    explicit: HashSet<u32>,
    /// The directory of the previous entry: sorted input needs no look-up.
    last: (String, u32),
}

impl Builder {
    /// Starts a snapshot of objects of `store` (canonical URL) below `prefix` (key prefix, without
    /// slashes at the ends).
    pub fn new(store: &str, prefix: &str, surplus: Surplus) -> Self {
        Self {
            surplus,
            origin: encode_origin(store, prefix),
            nodes: vec![IMPLIED],
            names: Vec::new(),
            references: Vec::new(),
            directories: HashMap::new(),
            explicit: HashSet::new(),
            last: (String::new(), 0),
        }
    }

    /// Number of entries so far, root and implied directories included.
    pub fn entries(&self) -> u64 {
        self.nodes.len() as u64
    }

    /// Adds an entry. Errors leave the builder as it was, except that parents may have been added.
    /// Duplicates and conflicts are found by [`Builder::finish`].
    pub fn push(&mut self, entry: &Entry<'_>) -> Result<(), BuildError> {
        let path = entry.path;
        check_path(path).map_err(|why| BuildError::Path {
            path: path.to_owned(),
            why,
        })?;
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.directory(parent)?;
        if let EntryKind::Directory(mtime_ns) = entry.kind {
            let place = self.child_directory(parent, name.as_bytes())?;
            if !self.explicit.insert(place) {
                return Err(BuildError::Duplicate(path.to_owned()));
            }
            let node = &mut self.nodes[place as usize];
            (node.mtime_ns, node.mode) = (mtime_ns, entry.mode);
            return Ok(());
        }
        let reference = (self.references.len() / 4) as u32;
        let value = || BuildError::Value(path.to_owned());
        let (kind, size, mtime_ns) = match entry.kind {
            EntryKind::File(version) => {
                if !token::encode(&version.token, &mut self.references) {
                    return Err(value());
                }
                (Kind::File, version.size, version.mtime_ns)
            }
            EntryKind::Symlink(target, mtime_ns) => {
                if target.is_empty() || target.len() > PATH_MAX || target.contains(&0) {
                    return Err(value());
                }
                self.references.extend_from_slice(target);
                token::pad(&mut self.references);
                (Kind::Symlink, target.len() as u64, mtime_ns)
            }
            EntryKind::Directory(_) => unreachable!("directories returned above"),
        };
        if self.references.len() as u64 >= REFERENCES_MAX {
            return Err(BuildError::TooLarge);
        }
        let mode = entry.mode;
        self.add(parent, name.as_bytes(), |row| Row {
            kind,
            mode,
            size,
            mtime_ns,
            reference,
            ..row
        })
        .map(drop)
    }

    /// Writes the snapshot: temporary file, fsync, rename, fsync of the directory. Replaces a file
    /// that is there. `path` must be on a local file system with room for about 100 bytes per entry.
    pub fn finish(self, path: &Path) -> Result<Built, BuildError> {
        let (ordered, shadowed) = self.order()?;
        write(ordered, shadowed, path)
    }

    fn directory(&mut self, path: &str) -> Result<u32, BuildError> {
        if path == self.last.0 {
            return Ok(self.last.1);
        }
        let mut place = 0;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            place = self.child_directory(place, name.as_bytes())?;
        }
        self.last = (path.to_owned(), place);
        Ok(place)
    }

    fn child_directory(&mut self, parent: u32, name: &[u8]) -> Result<u32, BuildError> {
        let key = (parent, Box::from(name));
        if let Some(place) = self.directories.get(&key) {
            return Ok(*place);
        }
        let place = self.add(parent, name, |row| row)?;
        self.directories.insert(key, place);
        Ok(place)
    }

    /// Adds a node that starts as an implied directory; `change` makes it what it is.
    fn add(
        &mut self,
        parent: u32,
        name: &[u8],
        change: impl FnOnce(Row) -> Row,
    ) -> Result<u32, BuildError> {
        let place = self.nodes.len();
        let name_at = self.names.len() as u64;
        if place as u64 >= ENTRIES_MAX || name_at + name.len() as u64 >= NAMES_MAX {
            return Err(BuildError::TooLarge);
        }
        self.names.extend_from_slice(name);
        let name_len = u8::try_from(name.len()).map_err(|_| BuildError::TooLarge)?;
        self.nodes.push(change(Row {
            name_at,
            name_len,
            parent,
            ..IMPLIED
        }));
        Ok(place as u32)
    }

    fn name(&self, node: &Row) -> &[u8] {
        let start = node.name_at as usize;
        &self.names[start..start + usize::from(node.name_len)]
    }

    /// Breadth-first order: each directory's children sorted, duplicates found. Returns the rows'
    /// final links and how many files were hidden.
    fn order(mut self) -> Result<(Ordered, u64), BuildError> {
        let (starts, children) = self.group();
        let mut order: Vec<u32> = Vec::with_capacity(self.nodes.len());
        order.push(0);
        let mut shadowed = 0;
        let mut at = 0;
        while at < order.len() {
            let place = order[at] as usize;
            if self.nodes[place].kind == Kind::Directory {
                let first = order.len();
                let range = starts[place] as usize..starts[place + 1] as usize;
                shadowed += self.append(&children[range], &mut order)?;
                self.link(place, at as u32, first, &order);
            }
            at += 1;
        }
        self.directories = HashMap::new();
        self.settle_mtimes(&order);
        let Self {
            nodes,
            names,
            references,
            origin,
            ..
        } = self;
        Ok((
            Ordered {
                nodes,
                order,
                names,
                references,
                origin,
            },
            shadowed,
        ))
    }

    /// Places of all children, grouped by parent and sorted by name; and where each group starts.
    fn group(&self) -> (Vec<u32>, Vec<u32>) {
        let mut starts = vec![0; self.nodes.len() + 1];
        for node in &self.nodes[1..] {
            starts[node.parent as usize + 1] += 1;
        }
        for index in 1..starts.len() {
            starts[index] += starts[index - 1];
        }
        let mut children = vec![0; self.nodes.len() - 1];
        let mut next = starts.clone();
        for (place, node) in self.nodes.iter().enumerate().skip(1) {
            let slot = &mut next[node.parent as usize];
            children[*slot as usize] = place as u32;
            *slot += 1;
        }
        drop(next);
        for pair in starts.windows(2) {
            // Directories first among equals: a file at the same path comes right after.
            children[pair[0] as usize..pair[1] as usize].sort_by(|a, b| {
                let (a, b) = (&self.nodes[*a as usize], &self.nodes[*b as usize]);
                let file = |row: &Row| row.kind != Kind::Directory;
                self.name(a).cmp(self.name(b)).then(file(a).cmp(&file(b)))
            });
        }
        (starts, children)
    }

    /// Appends sorted siblings to `order`; refuses or hides what is there twice.
    fn append(&self, siblings: &[u32], order: &mut Vec<u32>) -> Result<u64, BuildError> {
        let mut shadowed = 0;
        let mut previous: Option<&Row> = None;
        for place in siblings {
            let node = &self.nodes[*place as usize];
            if let Some(previous) = previous.filter(|row| self.name(row) == self.name(node)) {
                let conflict = previous.kind == Kind::Directory;
                if !conflict {
                    return Err(BuildError::Duplicate(self.path(node, order)));
                }
                if self.surplus == Surplus::Refuse {
                    return Err(BuildError::Conflict(self.path(node, order)));
                }
                shadowed += 1;
                continue;
            }
            order.push(*place);
            previous = Some(node);
        }
        Ok(shadowed)
    }

    /// Writes the final links of the directory at `place`, whose row is `row`.
    fn link(&mut self, place: usize, row: u32, first: usize, order: &[u32]) {
        let mut directories = 0;
        for child in &order[first..] {
            let child = &mut self.nodes[*child as usize];
            child.parent = row;
            directories += u64::from(child.kind == Kind::Directory);
        }
        let count = (order.len() - first) as u64;
        let node = &mut self.nodes[place];
        node.size = count | directories << 32;
        node.reference = if count == 0 { 0 } else { first as u32 };
    }

    /// Gives each implied directory the newest mtime below it; children come after parents.
    fn settle_mtimes(&mut self, order: &[u32]) {
        for place in order.iter().skip(1).rev() {
            let node = self.nodes[*place as usize];
            let parent = order[node.parent as usize];
            if !self.explicit.contains(&parent) {
                let parent = &mut self.nodes[parent as usize];
                parent.mtime_ns = parent.mtime_ns.max(node.mtime_ns);
            }
        }
        if self.nodes[0].mtime_ns == i64::MIN {
            self.nodes[0].mtime_ns = 0;
        }
    }

    /// Path of a node in the directory being put in order, for messages: its own parent is still a
    /// place in `nodes`, those above are final rows.
    fn path(&self, node: &Row, order: &[u32]) -> String {
        let mut segments = vec![self.name(node)];
        let mut place = node.parent;
        while place != 0 {
            let directory = &self.nodes[place as usize];
            segments.push(self.name(directory));
            place = order[directory.parent as usize];
        }
        segments.reverse();
        String::from_utf8_lossy(&segments.join(&b'/')).into_owned()
    }
}

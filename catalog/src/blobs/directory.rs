//! Blobs in a directory.
//!
//! ```text
//! ROOT/blobs/ab/ab34...   a blob; the file's name is its digest
//! ROOT/named/...          named files
//! ROOT/new/<random>       what is being written; emptied of old files when the directory is opened
//! ROOT/new/away-<digest>  a blob that is being collected; back in its place when the directory is opened
//! ```
//!
//! A file is written under `new/`, synced, renamed to its place, and the directory it went to is
//! synced: there is never half a file under a final name, after `kill -9` or power loss. Several
//! processes may share one directory, on any file system with an atomic rename.
//!
//! A collector and a writer of the same blob: the writer makes the file young and then looks whether it
//! is still in its place; the collector moves it away and then looks whether it is still old. In every
//! order of the four steps one of them sees the other, and the blob stays.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::{Semaphore, mpsc};

use super::{BlobError, BlobId, BlobName, Blobs, Listed, MAX_BLOB};

/// Calls that are in the file system at once; others wait.
const PARALLEL: usize = 16;
/// Age of a file under `new/` that no living writer can still be busy with.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
/// How the name of a blob begins that is being collected.
const AWAY: &str = "away-";

/// See the module text. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DirectoryBlobs {
    root: Arc<Path>,
    permits: Arc<Semaphore>,
}

impl DirectoryBlobs {
    /// Opens or makes the directory. Blocks while old unfinished files are removed.
    pub fn open(root: &Path) -> Result<Self, BlobError> {
        let made = |path: PathBuf| {
            fs::create_dir_all(&path).map_err(|error| failure("make", &path, &error))
        };
        ["named", "new"]
            .iter()
            .try_for_each(|part| made(root.join(part)))?;
        // All at once, so that a blob's own directory is never in doubt.
        (0..=u8::MAX).try_for_each(|byte| made(root.join(format!("blobs/{byte:02x}"))))?;
        sync_directory(&root.join("blobs"))?;
        sync_directory(root)?;
        let new = root.join("new");
        let entries = fs::read_dir(&new).map_err(|error| failure("list", &new, &error))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let away = name.to_str().and_then(|name| name.strip_prefix(AWAY));
            if let Some(id) = away.and_then(|id| id.parse::<BlobId>().ok()) {
                // Nobody knows what the collector that died would have decided: the next one will.
                let place = root.join(relative(&id));
                let _ = fs::rename(entry.path(), place);
                continue;
            }
            if age(&entry.path()).is_some_and(|age| age > ABANDONED) {
                // Another process may have been faster.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(Self {
            root: Arc::from(root),
            permits: Arc::new(Semaphore::new(PARALLEL)),
        })
    }

    fn path_of(&self, id: &BlobId) -> PathBuf {
        self.root.join(relative(id))
    }

    /// Removes a blob that is older than `grace`; see the module text. Blocks.
    fn take_away(&self, id: &BlobId, grace: Duration) -> Result<bool, BlobError> {
        let path = self.path_of(id);
        let old = |path: &Path| age(path).is_some_and(|age| age >= grace);
        if !old(&path) {
            return Ok(false);
        }
        let away = self.root.join("new").join(format!("{AWAY}{id}"));
        match fs::rename(&path, &away) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            moved => moved.map_err(|error| failure("move away", &path, &error))?,
        }
        if old(&away) {
            remove(&away)?;
            return Ok(true);
        }
        match fs::rename(&away, &path) {
            // Put back by a process that has just opened the directory.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            moved => moved
                .map(|()| false)
                .map_err(|error| failure("put back", &path, &error)),
        }
    }

    fn path_of_name(&self, name: &BlobName) -> PathBuf {
        self.root.join("named").join(name.as_str())
    }

    /// Runs a call that blocks, at most [`PARALLEL`] at once.
    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Self) -> Result<T, BlobError> + Send + 'static,
    ) -> Result<T, BlobError> {
        let unavailable = |reason: String| BlobError::Unavailable {
            operation: "wait for",
            name: "a thread".into(),
            reason,
        };
        let permits = Arc::clone(&self.permits);
        let permit = permits.acquire_owned().await;
        let permit = permit.map_err(|error| unavailable(error.to_string()))?;
        let this = self.clone();
        let call = move || {
            let result = call(&this);
            drop(permit);
            result
        };
        let done = tokio::task::spawn_blocking(call).await;
        done.map_err(|error| unavailable(error.to_string()))?
    }

    /// Writes a file that is at `place` whole or not at all.
    /// Directories below `known` need not exist.
    fn write(&self, place: &Path, known: &Path, bytes: &[u8]) -> Result<(), BlobError> {
        let temporary = self
            .root
            .join("new")
            .join(format!("{:032x}", rand::random::<u128>()));
        let written = File::create_new(&temporary).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        let placed = written
            .map_err(|error| failure("write", &temporary, &error))
            .and_then(|()| rename(&temporary, place, known));
        if placed.is_err() {
            // What stays is removed when it is old.
            let _ = fs::remove_file(&temporary);
        }
        placed
    }
}

/// The path of a blob below the root.
fn relative(id: &BlobId) -> PathBuf {
    let name = id.to_string();
    Path::new("blobs").join(&name[..2]).join(&name)
}

/// Moves a synced file to its place, making directories as needed, all of it durably.
fn rename(temporary: &Path, place: &Path, known: &Path) -> Result<(), BlobError> {
    let parent = place.parent().unwrap_or(place);
    fs::create_dir_all(parent).map_err(|error| failure("make", parent, &error))?;
    fs::rename(temporary, place).map_err(|error| failure("rename", place, &error))?;
    // Up to the directory that is known to be durable; whoever made one of them may not have synced yet.
    for directory in place.ancestors().skip(1) {
        sync_directory(directory)?;
        if directory == known {
            break;
        }
    }
    Ok(())
}

fn sync_directory(path: &Path) -> Result<(), BlobError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| failure("sync", path, &error))
}

/// The bytes of a file; None when there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, BlobError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failure("read", path, &error)),
    };
    let mut bytes = Vec::new();
    let most = MAX_BLOB as u64 + 1;
    file.take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| failure("read", path, &error))?;
    if bytes.len() > MAX_BLOB {
        return Err(BlobError::TooLarge(bytes.len() as u64));
    }
    Ok(Some(bytes))
}

fn remove(path: &Path) -> Result<(), BlobError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failure("remove", path, &error)),
        _ => Ok(()),
    }
}

fn check_size(bytes: &[u8]) -> Result<(), BlobError> {
    if bytes.len() > MAX_BLOB {
        return Err(BlobError::TooLarge(bytes.len() as u64));
    }
    Ok(())
}

fn age(path: &Path) -> Option<Duration> {
    let modified = fs::metadata(path).ok()?.modified().ok()?;
    Some(
        SystemTime::now()
            .duration_since(modified)
            .unwrap_or_default(),
    )
}

#[async_trait]
impl Blobs for DirectoryBlobs {
    async fn put(&self, bytes: Bytes) -> Result<BlobId, BlobError> {
        check_size(&bytes)?;
        self.run(move |this| {
            let id = BlobId::of(&bytes);
            let path = this.path_of(&id);
            // Bytes that have rotted are written again; good ones become young, for the collector.
            if read(&path)?.is_some_and(|stored| stored == bytes) {
                let file = File::options().append(true).open(&path);
                let touched = file.and_then(|file| {
                    file.set_modified(SystemTime::now())?;
                    file.sync_all()
                });
                match touched {
                    Ok(()) if path.exists() => {
                        sync_directory(path.parent().unwrap_or(&path))?;
                        return Ok(id);
                    }
                    // Moved away after it was opened: written again below.
                    Ok(()) => {}
                    // Collected in this moment: written again below.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(failure("touch", &path, &error)),
                }
            }
            let parent = path.parent().unwrap_or(&path);
            this.write(&path, parent, &bytes)?;
            Ok(id)
        })
        .await
    }

    async fn get(&self, id: &BlobId) -> Result<Bytes, BlobError> {
        let id = *id;
        self.run(move |this| match read(&this.path_of(&id))? {
            None => Err(BlobError::NotFound(id.to_string())),
            Some(bytes) if BlobId::of(&bytes) == id => Ok(bytes.into()),
            Some(_) => Err(BlobError::Corrupt(id)),
        })
        .await
    }

    async fn delete(&self, id: &BlobId) -> Result<(), BlobError> {
        let id = *id;
        self.run(move |this| remove(&this.path_of(&id))).await
    }

    async fn collect(&self, id: &BlobId, grace: Duration) -> Result<bool, BlobError> {
        let id = *id;
        self.run(move |this| this.take_away(&id, grace)).await
    }

    fn list(&self) -> BoxStream<'static, Result<Listed, BlobError>> {
        walk(self.root.join("blobs"), |path| {
            let id = path.file_name()?.to_str()?.parse().ok()?;
            let size = fs::metadata(path).ok()?.len();
            let age = age(path)?;
            Some(Listed { id, size, age })
        })
    }

    async fn put_named(&self, name: &BlobName, bytes: Bytes) -> Result<(), BlobError> {
        check_size(&bytes)?;
        let name = name.clone();
        self.run(move |this| {
            let named = this.root.join("named");
            this.write(&this.path_of_name(&name), &named, &bytes)
        })
        .await
    }

    async fn get_named(&self, name: &BlobName) -> Result<Bytes, BlobError> {
        let name = name.clone();
        self.run(move |this| {
            let found = read(&this.path_of_name(&name))?;
            let absent = || BlobError::NotFound(name.to_string());
            found.map(Bytes::from).ok_or_else(absent)
        })
        .await
    }

    async fn delete_named(&self, name: &BlobName) -> Result<(), BlobError> {
        let name = name.clone();
        self.run(move |this| remove(&this.path_of_name(&name)))
            .await
    }

    fn list_named(&self, prefix: &str) -> BoxStream<'static, Result<BlobName, BlobError>> {
        let named = self.root.join("named");
        let from = match prefix.trim_end_matches('/') {
            "" => named.clone(),
            prefix => match prefix.parse::<BlobName>() {
                Ok(prefix) => named.join(prefix.as_str()),
                Err(error) => return futures::stream::iter([Err(error)]).boxed(),
            },
        };
        walk(from, move |path| {
            path.strip_prefix(&named).ok()?.to_str()?.parse().ok()
        })
    }
}

/// Every file below a directory that `take` wants; foreign files are left alone. A file that goes
/// away meanwhile is not listed.
fn walk<T: Send + 'static>(
    root: PathBuf,
    take: impl Fn(&Path) -> Option<T> + Send + 'static,
) -> BoxStream<'static, Result<T, BlobError>> {
    let (sender, receiver) = mpsc::channel(256);
    // Ends with its stream: nobody receives, so sending fails.
    tokio::task::spawn_blocking(move || {
        let mut directories = vec![root];
        while let Some(directory) = directories.pop() {
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    let _ = sender.blocking_send(Err(failure("list", &directory, &error)));
                    return;
                }
            };
            for entry in entries.flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    directories.push(path);
                } else if let Some(taken) = take(&path)
                    && sender.blocking_send(Ok(taken)).is_err()
                {
                    return;
                }
            }
        }
    });
    crate::stream::received(receiver).boxed()
}

fn failure(operation: &'static str, path: &Path, error: &std::io::Error) -> BlobError {
    BlobError::Unavailable {
        operation,
        name: path.display().to_string(),
        reason: error.to_string(),
    }
}

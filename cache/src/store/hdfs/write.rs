//! New files in HDFS, and taking them away.
//!
//! ```text
//! DIR/.terrace-new-<random>   written by one writer from its beginning to its end, closed, then renamed
//! ```
//! There is never half a file at a final name. A file of HDFS only grows at its end, so after an error
//! nobody knows what it has: a file in one piece is written anew by the next attempt, one in parts is
//! given up. Labels are not kept: the client has no extended attributes.

use async_trait::async_trait;
use bytes::Bytes;
use hdfs_native::Client;
use hdfs_native::client::WriteOptions;
use hdfs_native::file::FileWriter;
use tokio::sync::Mutex;

use super::{failure, path};
use crate::store::failure::{Failure, Retry};
use crate::store::write::Upload;
use crate::store::{ObjectMeta, StoreErrorKind};

/// How the names of unfinished files begin.
const UNFINISHED: &str = ".terrace-new-";

/// How far a file in parts is.
enum Parts {
    /// None was written.
    None,
    /// Parts before `next` are written to the file of this name.
    Some {
        writer: Box<FileWriter>,
        name: String,
        next: usize,
    },
    /// All are, and the file is closed.
    Closed { name: String },
    /// An error has left the file of this name unknown.
    Broken { name: String },
}

/// A file that is being written.
pub(super) struct HdfsUpload {
    client: Client,
    key: String,
    /// Held across a write: parts come one after the other.
    parts: Mutex<Parts>,
}

impl HdfsUpload {
    pub(super) fn new(client: Client, key: &str) -> Self {
        Self {
            client,
            key: key.to_owned(),
            parts: Mutex::new(Parts::None),
        }
    }

    /// A name beside the final one that nobody else has.
    fn temporary(&self) -> String {
        let parent = self.key.rsplit_once('/').map_or("", |(parent, _)| parent);
        let slash = if parent.is_empty() { "" } else { "/" };
        let number = rand::random::<u128>();
        path(&format!("{parent}{slash}{UNFINISHED}{number:032x}"))
    }

    async fn publish(&self, temporary: &str) -> Result<(), Failure> {
        let renamed = self.client.rename(temporary, &path(&self.key), true).await;
        renamed.map_err(failure)
    }

    /// Removes an unfinished file; what stays has a name that tells what it is.
    async fn clear(&self, temporary: &str) {
        if let Err(error) = self.client.delete(temporary, false).await {
            tracing::debug!(%error, "an unfinished file stays");
        }
    }
}

fn broken() -> Failure {
    let reason = "the file was left unfinished by an error; write it again";
    Failure {
        kind: StoreErrorKind::Unreachable,
        reason: reason.to_owned(),
        retry: Retry::Never,
    }
}

#[async_trait]
impl Upload for HdfsUpload {
    async fn whole(&self, bytes: Bytes) -> Result<(), Failure> {
        let name = self.temporary();
        let written = async {
            let mut writer = self.client.create(&name, WriteOptions::default()).await?;
            writer.write_bytes(bytes).await?;
            writer.hsync().await?;
            writer.close().await
        };
        let done = match written.await {
            Ok(()) => self.publish(&name).await,
            Err(error) => Err(failure(error)),
        };
        if done.is_err() {
            self.clear(&name).await;
        }
        done
    }

    async fn part(&self, number: usize, bytes: Bytes) -> Result<(), Failure> {
        let mut parts = self.parts.lock().await;
        if matches!(*parts, Parts::None) {
            let name = self.temporary();
            let writer = self.client.create(&name, WriteOptions::default()).await;
            *parts = Parts::Some {
                writer: Box::new(writer.map_err(failure)?),
                name,
                next: 0,
            };
        }
        let Parts::Some { writer, name, next } = &mut *parts else {
            return Err(broken());
        };
        if number < *next {
            return Ok(()); // the answer to an earlier attempt got lost
        }
        if let Err(error) = writer.write_bytes(bytes).await {
            let name = std::mem::take(name);
            *parts = Parts::Broken { name };
            return Err(Failure {
                retry: Retry::Never,
                ..failure(error)
            });
        }
        *next += 1;
        Ok(())
    }

    async fn join(&self, count: usize) -> Result<(), Failure> {
        let mut parts = self.parts.lock().await;
        if let Parts::Some { writer, name, next } = &mut *parts {
            let closed = match *next == count {
                true => match writer.hsync().await {
                    Ok(()) => writer.close().await,
                    Err(error) => Err(error),
                },
                false => return Err(broken()),
            };
            let name = std::mem::take(name);
            if let Err(error) = closed {
                *parts = Parts::Broken { name };
                return Err(failure(error));
            }
            *parts = Parts::Closed { name };
        }
        match &*parts {
            Parts::Closed { name } => self.publish(name).await,
            Parts::None | Parts::Some { .. } | Parts::Broken { .. } => Err(broken()),
        }
    }

    async fn abandon(&self) {
        let mut parts = self.parts.lock().await;
        match std::mem::replace(&mut *parts, Parts::None) {
            Parts::None => {}
            Parts::Some { name, .. } | Parts::Closed { name } | Parts::Broken { name } => {
                self.clear(&name).await;
            }
        }
    }
}

/// Deletes a file if it is still the one that was seen.
pub(super) async fn remove(client: &Client, object: &ObjectMeta) -> Result<(), Failure> {
    let name = path(&object.key);
    let found = match client.get_file_info(&name).await.map_err(failure) {
        Err(gone) if gone.kind == StoreErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if super::version(&found) != object.version {
        return Err(Failure::changed("the file was written or replaced"));
    }
    client.delete(&name, false).await.map_err(failure)?;
    Ok(())
}

//! HDFS by its native RPC, without a JVM (`hdfs-native`).
//!
//! Pin: length + mtime; the client does not tell the file id, which is 0 in the identity. A
//! [`FileReader`] keeps the located blocks of one open, and blocks are never reused by another file,
//! so one reader is one version: it is opened between two equal looks at the file's status, kept for
//! the next ranges of that version, and dropped after an error or [`READER_LIFE`] (block tokens
//! expire, replicas move). What a reader cannot see - a truncate or append in place - is seen by the
//! look at the status after every window of bytes (see [`window`](super::window)).
//!
//! Lock order: the reader cache alone; never held across an await.

mod write;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use hdfs_native::client::{FileStatus, ListStatusIterator};
use hdfs_native::file::FileReader;
use hdfs_native::{Client, ClientBuilder, HdfsError};
use lru::LruCache;
use tokio::time::Instant;

use super::backend::{Backend, Body, Page, Pages, watched};
use super::failure::{Failure, Retry, chain};
use super::window::confirmed;
use super::write::{Labels, Upload};
use super::{Credentials, ListEntry, ObjectMeta, StoreConfig, StoreErrorKind, StoreUrl};
use crate::identity::{ObjectId, Token, Version};

/// Open readers kept. Each is the block list of a file, a few kilobytes.
const READERS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");
/// Block tokens live for hours and replicas move slowly.
const READER_LIFE: Duration = Duration::from_secs(300);
/// Entries per page of a listing, as the NameNode's default.
const PAGE: usize = 1000;

type ReaderKey = (Arc<str>, Version);
/// Readers with the time of their opening.
type Readers = LruCache<ReaderKey, (Arc<FileReader>, Instant)>;

#[derive(Clone)]
struct Hdfs {
    client: Client,
    readers: Arc<Mutex<Readers>>,
    stall: Duration,
}

impl std::fmt::Debug for Hdfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hdfs")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// Prepares the client; no request is made yet. Must be called inside a tokio runtime.
pub(super) fn open(
    url: &StoreUrl,
    config: &StoreConfig,
    credentials: &Credentials,
) -> Result<Arc<dyn Backend>, Failure> {
    let mut builder = ClientBuilder::new()
        .with_url(format!("hdfs://{}", url.authority()))
        .with_io_runtime(tokio::runtime::Handle::current())
        .with_config([(
            "dfs.client.socket-timeout",
            config.stall_timeout.0.as_millis().to_string(),
        )]);
    let conf_dir = credentials.get("HADOOP_CONF_DIR");
    if let Some(dir) = conf_dir {
        builder = builder.with_config_dir(dir);
    }
    // With Kerberos the user is who the ticket says; the client takes a name as one to act for.
    let user = match conf_dir.is_some_and(wants_kerberos) {
        true => None,
        false => credentials.get("HADOOP_USER_NAME"),
    };
    if let Some(user) = credentials.get("HADOOP_PROXY_USER").or(user) {
        builder = builder.with_user(user);
    }
    if let Some(principal) = credentials.get("HADOOP_KERBEROS_PRINCIPAL") {
        builder = builder.with_kerberos_principal(principal);
    }
    if let Some(keytab) = credentials.get("HADOOP_KERBEROS_KEYTAB") {
        builder = builder.with_kerberos_keytab(keytab);
    }
    if let Some(cache) = credentials.get("HADOOP_KERBEROS_CACHE") {
        builder = builder.with_kerberos_cache(cache);
    }
    let invalid = |error: HdfsError| Failure::last(StoreErrorKind::Invalid, chain(&error));
    Ok(Arc::new(Hdfs {
        client: builder.build().map_err(invalid)?,
        readers: Arc::new(Mutex::new(LruCache::new(READERS))),
        stall: config.stall_timeout.0,
    }))
}

fn wants_kerberos(conf_dir: &str) -> bool {
    let site = std::fs::read_to_string(Path::new(conf_dir).join("core-site.xml"));
    site.is_ok_and(|text| text.contains("<value>kerberos</value>"))
}

fn path(key: &str) -> String {
    format!("/{key}")
}

fn version(status: &FileStatus) -> Version {
    let millis = i64::try_from(status.modification_time).unwrap_or(i64::MAX);
    Version {
        token: Token::Hdfs { file_id: 0 },
        size: status.length as u64,
        mtime_ns: millis.saturating_mul(1_000_000),
    }
}

#[async_trait]
impl Backend for Hdfs {
    async fn head(&self, key: &str) -> Result<ObjectMeta, Failure> {
        let status = self
            .client
            .get_file_info(&path(key))
            .await
            .map_err(failure)?;
        if status.isdir {
            return Err(Failure::last(StoreErrorKind::NotFound, "a directory"));
        }
        Ok(ObjectMeta {
            key: key.into(),
            version: version(&status),
        })
    }

    fn pages(&self, dir: &str, _deep: bool) -> Box<dyn Pages> {
        Box::new(HdfsPages {
            client: self.client.clone(),
            dir: dir.to_string(),
            open: None,
            taken: HashSet::new(),
            restarted: false,
            page: Vec::new(),
            end: false,
        })
    }

    async fn open(&self, object: &ObjectId, range: Range<u64>) -> Result<Body, Failure> {
        let reader = self.reader(object).await?;
        let size = (range.end - range.start) as usize;
        let (this, id) = (self.clone(), object.clone());
        let pieces = reader
            .read_range_stream(range.start as usize, size)
            .map_err(move |error| {
                // The reader remembers dead nodes and old locations: the next attempt gets a new one.
                this.forget(&id);
                failure(error)
            });
        let (this, id) = (self.clone(), object.clone());
        let check = move || {
            let (this, id) = (this.clone(), id.clone());
            async move { this.check(&id).await }
        };
        Ok(confirmed(watched(pieces.boxed(), self.stall), check))
    }

    async fn create(&self, key: &str, _: &Labels) -> Result<Box<dyn Upload>, Failure> {
        Ok(Box::new(write::HdfsUpload::new(self.client.clone(), key)))
    }

    async fn remove(&self, object: &ObjectMeta) -> Result<(), Failure> {
        write::remove(&self.client, object).await
    }
}

impl Hdfs {
    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, object: &ObjectId) {
        self.readers().pop(&reader_key(object));
    }

    /// A reader of exactly this version.
    async fn reader(&self, object: &ObjectId) -> Result<Arc<FileReader>, Failure> {
        let key = reader_key(object);
        if let Some((reader, opened)) = self.readers().get(&key)
            && opened.elapsed() < READER_LIFE
        {
            return Ok(Arc::clone(reader));
        }
        self.check(object).await?;
        let reader = self
            .client
            .read(&path(&object.key))
            .await
            .map_err(failure)?;
        if reader.file_length() as u64 != object.size() {
            return Err(Failure::changed(format!(
                "the length is now {}",
                reader.file_length()
            )));
        }
        self.check(object).await?;
        let reader = Arc::new(reader);
        self.readers()
            .put(key, (Arc::clone(&reader), Instant::now()));
        Ok(reader)
    }

    /// Compares the file at the object's path with the pin.
    async fn check(&self, object: &ObjectId) -> Result<(), Failure> {
        let found = self.head(&object.key).await.map_err(Failure::pinned);
        let found = found.inspect_err(|_| self.forget(object))?;
        if found.version != object.version {
            self.forget(object);
            return Err(Failure::changed("another version is at this path now"));
        }
        Ok(())
    }
}

fn reader_key(object: &ObjectId) -> ReaderKey {
    (Arc::clone(&object.key), object.version.clone())
}

struct HdfsPages {
    client: Client,
    dir: String,
    open: Option<ListStatusIterator>,
    /// Hashes of the names handed out. After a failure the listing starts again, and the order of
    /// the NameNode (signed bytes in today's versions) is not a promise to skip by.
    taken: HashSet<u64>,
    restarted: bool,
    page: Vec<ListEntry>,
    end: bool,
}

#[async_trait]
impl Pages for HdfsPages {
    async fn next(&mut self) -> Result<Option<Page>, Failure> {
        if self.end {
            return Ok(None);
        }
        let base = path(&self.dir);
        while self.page.len() < PAGE {
            let open = self
                .open
                .get_or_insert_with(|| self.client.list_status_iter(&base, false));
            match open.next().await {
                Some(Ok(status)) => self.take(&base, &status)?,
                Some(Err(error)) => {
                    self.open = None;
                    self.restarted = true;
                    return Err(failure(error));
                }
                None => {
                    self.end = true;
                    break;
                }
            }
        }
        Ok(Some(Page {
            entries: std::mem::take(&mut self.page),
            hidden: 0,
        }))
    }
}

impl HdfsPages {
    fn take(&mut self, base: &str, status: &FileStatus) -> Result<(), Failure> {
        let name = status
            .path
            .strip_prefix(base.trim_end_matches('/'))
            .unwrap_or("");
        let name = name.trim_start_matches('/');
        if name.is_empty() {
            return Err(Failure::last(StoreErrorKind::NotFound, "not a directory"));
        }
        let new = self.taken.insert(hash(name));
        if self.restarted && !new {
            return Ok(());
        }
        let key = if self.dir.is_empty() {
            name.to_string()
        } else {
            format!("{}/{name}", self.dir)
        };
        self.page.push(match status.isdir {
            true => ListEntry::Directory(key),
            false => ListEntry::Object(ObjectMeta {
                key: key.into(),
                version: version(status),
            }),
        });
        Ok(())
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// What an error of the client means. The class names are Hadoop's protocol.
fn failure(error: HdfsError) -> Failure {
    use StoreErrorKind::{Corrupt, Invalid, NotFound, Permission, Throttled, Unreachable};
    let (kind, retry) = match &error {
        HdfsError::FileNotFound(_) | HdfsError::IsADirectoryError(_) => (NotFound, Retry::Never),
        HdfsError::RPCError(class, _) | HdfsError::FatalRPCError(class, _) => {
            match class.rsplit(['.', '$']).next().unwrap_or("") {
                "FileNotFoundException" | "UnresolvedPathException" => (NotFound, Retry::Never),
                "AccessControlException" | "AuthorizationException" | "SaslException" => {
                    (Permission, Retry::Never)
                }
                "InvalidToken" => (Permission, Retry::Once),
                "InvalidPathException" | "IllegalArgumentException" => (Invalid, Retry::Never),
                "ServerTooBusyException" | "RetriableException" => (Throttled, Retry::Pause),
                _ => (Unreachable, Retry::Pause),
            }
        }
        HdfsError::ChecksumError => (Corrupt, Retry::Pause),
        HdfsError::SASLError(_) | HdfsError::GSSAPIError(..) | HdfsError::NoSASLMechanism => {
            (Permission, Retry::Never)
        }
        HdfsError::InvalidPath(_)
        | HdfsError::InvalidArgument(_)
        | HdfsError::UrlParseError(_)
        | HdfsError::UnsupportedFeature(_)
        | HdfsError::UnsupportedErasureCodingPolicy(_)
        | HdfsError::XmlParseError(_) => (Invalid, Retry::Never),
        _ => (Unreachable, Retry::Pause),
    };
    Failure {
        kind,
        reason: chain(&error),
        retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a fail-over or a full queue of the NameNode could look like a missing file.
    #[test]
    fn hadoop_errors_are_told_apart() {
        let rpc = |class: &str| failure(HdfsError::RPCError(class.into(), "text\nstack".into()));
        for (class, kind, retried) in [
            (
                "java.io.FileNotFoundException",
                StoreErrorKind::NotFound,
                false,
            ),
            (
                "org.apache.hadoop.security.AccessControlException",
                StoreErrorKind::Permission,
                false,
            ),
            (
                "org.apache.hadoop.ipc.StandbyException",
                StoreErrorKind::Unreachable,
                true,
            ),
            (
                "org.apache.hadoop.ipc.RetriableException",
                StoreErrorKind::Throttled,
                true,
            ),
            (
                "org.apache.hadoop.security.token.SecretManager$InvalidToken",
                StoreErrorKind::Permission,
                true,
            ),
        ] {
            let failure = rpc(class);
            assert_eq!(failure.kind, kind, "{class}");
            assert_eq!(failure.retry != Retry::Never, retried, "{class}");
            assert!(!failure.reason.contains('\n'));
        }
        let io = failure(HdfsError::IOError(
            std::io::ErrorKind::ConnectionRefused.into(),
        ));
        assert_eq!(io.kind, StoreErrorKind::Unreachable);
    }
}

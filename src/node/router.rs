//! Objects of many stores below one mount: each read goes to the store that has the object.
//!
//! Stores are opened when something of them is first read, with the mount's credentials, and with the
//! warm tier over them when the mount has one. Only stores that a version of the mount named are
//! opened, and of a directory only the part that it named: a path in a catalog is no way to the rest of
//! this machine.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use terrace_cache::store::{
    Bandwidth, Credentials, Store, StoreConfig, StoreError, StoreErrorKind, StoreUrl,
};
use terrace_cache::warm::{WarmSource, WarmTier};
use terrace_cache::{ByteStream, ObjectId, Source};
use terrace_fuse::tables::{STORE, TreeSource};
use tokio::sync::OnceCell;

use super::sources::Opened;

/// What every store of a mount is opened with.
pub(crate) struct Access {
    /// Limits and deadlines.
    pub(crate) config: StoreConfig,
    /// Of whoever mounted.
    pub(crate) credentials: Credentials,
    /// Before every store, if there is one.
    pub(crate) warm: Option<WarmTier>,
    /// Over all of them, if there is one.
    pub(crate) bandwidth: Option<Arc<Bandwidth>>,
}

/// Root of a store, and a key prefix below it.
type Place = (String, String);

/// A store that is opened by whoever needs it first.
type Slot = Arc<OnceCell<Opened>>;

/// See the module text.
pub(crate) struct Router {
    access: Access,
    /// The stores there, once opened.
    places: Mutex<BTreeMap<Place, Slot>>,
    /// Files that the mount makes up itself.
    made: OnceLock<TreeSource>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").finish_non_exhaustive()
    }
}

impl Router {
    /// Opens nothing yet.
    pub(crate) fn new(access: Access) -> Self {
        Self {
            access,
            places: Mutex::default(),
            made: OnceLock::new(),
        }
    }

    /// Whether a warm tier stands before the stores.
    pub(crate) fn has_warm(&self) -> bool {
        self.access.warm.is_some()
    }

    /// Says where the bytes of made-up files come from; once.
    pub(crate) fn set_made(&self, source: TreeSource) {
        // A second call would come from a second tree over the same router, which nobody builds.
        self.made.set(source).ok();
    }

    /// Allows reads below a key prefix of a store (canonical URL).
    pub(crate) fn allow(&self, root: &str, prefix: &str) {
        // A bucket or a name service is one store, with one set of limits, for all that is in it.
        let directory = root.starts_with("file:");
        let prefix = if directory { prefix } else { "" };
        let place = (root.to_owned(), prefix.to_owned());
        self.lock().entry(place).or_default();
    }

    /// Stores that were opened so far.
    pub(crate) fn stores(&self) -> Vec<Store> {
        let places = self.lock();
        let opened = places.values().filter_map(|place| place.get());
        opened.map(|opened| opened.store.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, Slot>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place that has a key: the longest prefix that is allowed.
    fn place(&self, object: &ObjectId) -> Option<(Place, Slot)> {
        let places = self.lock();
        let mut prefix = &*object.key;
        loop {
            let place = ((*object.store).to_owned(), prefix.to_owned());
            if let Some(cell) = places.get(&place) {
                return Some((place, Arc::clone(cell)));
            }
            if prefix.is_empty() {
                return None;
            }
            prefix = prefix.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }

    async fn open(&self, root: &str, prefix: &str) -> Result<Opened, StoreError> {
        let url: StoreUrl = url_of(root, prefix).parse()?;
        let access = &self.access;
        let store = Store::open(&url, &access.config, &access.credentials).await?;
        if let Some(bandwidth) = &access.bandwidth {
            store.share(Arc::clone(bandwidth));
        }
        Ok(Opened::new(store, access.warm.clone()))
    }
}

/// The URL of a key prefix of a store.
pub(crate) fn url_of(root: &str, prefix: &str) -> String {
    format!("{}/{prefix}", root.strip_suffix('/').unwrap_or(root))
}

#[async_trait::async_trait]
impl Source for Router {
    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream, StoreError> {
        if *object.store == *STORE
            && let Some(made) = self.made.get()
        {
            return made.read(object, range).await;
        }
        let Some(((root, prefix), cell)) = self.place(object) else {
            return Err(StoreError {
                kind: StoreErrorKind::Permission,
                operation: "read range",
                target: object.to_string(),
                reason: "no version of this mount has files there".to_owned(),
            });
        };
        let opened = cell.get_or_try_init(|| self.open(&root, &prefix)).await?;
        opened.source.read(object, range).await
    }
}

impl Opened {
    /// A store with the warm tier over it, if there is one.
    pub(crate) fn new(store: Store, warm: Option<WarmTier>) -> Self {
        let source: Arc<dyn Source> = Arc::new(store.clone());
        let has_warm = warm.is_some();
        let source = match warm {
            None => source,
            Some(tier) => Arc::new(WarmSource::new(tier, source)),
        };
        Self {
            store,
            source,
            has_warm,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use futures::TryStreamExt as _;
    use terrace_cache::store::ListEntry;

    use super::*;

    fn router() -> Router {
        Router::new(Access {
            config: StoreConfig::default(),
            credentials: Credentials::default(),
            warm: None,
            bandwidth: None,
        })
    }

    // Without it a version in a catalog would be a way to every file of the node.
    #[test]
    fn only_what_a_version_named_is_read() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let root = directory
                .path()
                .to_str()
                .unwrap()
                .trim_start_matches('/')
                .to_owned();
            for (name, text) in [("table", "public"), ("secret", "hidden")] {
                std::fs::create_dir(directory.path().join(name)).unwrap();
                std::fs::write(directory.path().join(name).join("file"), text).unwrap();
            }
            let url: StoreUrl = format!("file:///{root}").parse().unwrap();
            let whole = Store::open(&url, &StoreConfig::default(), &Credentials::default())
                .await
                .unwrap();
            let router = router();
            router.allow("file:///", &format!("{root}/table"));
            for (name, expected) in [("table", true), ("secret", false)] {
                let listed = whole
                    .list(&format!("{root}/{name}"))
                    .try_collect::<Vec<_>>();
                let [ListEntry::Object(meta)] = &listed.await.unwrap()[..] else {
                    panic!("one file")
                };
                let object = whole.object(meta);
                let read = router.read(&object, 0..6).await;
                assert_eq!(read.is_ok(), expected, "{name}");
                if let Ok(pieces) = read {
                    let bytes: Vec<_> = pieces.try_collect().await.unwrap();
                    assert_eq!(bytes.concat(), b"public");
                }
            }
            assert_eq!(router.stores().len(), 1);
        });
    }

    // Without it each table of a bucket would have limits and connections of its own.
    #[test]
    fn tables_of_a_bucket_share_its_store() {
        let router = router();
        for prefix in ["a/b", "a/c", ""] {
            router.allow("s3://bucket", prefix);
        }
        router.allow("file:///", "data/x");
        router.allow("file:///", "data/y");
        assert_eq!(router.lock().len(), 3);
        assert_eq!(url_of("s3://bucket", ""), "s3://bucket/");
        assert_eq!(url_of("file:///", "data/x"), "file:///data/x");
    }
}

//! A store that lists whatever paths it is told: also those that no file system would hold.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use terrace_catalog::upstream::{Listed, UpFile, Upstream, UpstreamError, UpstreamErrorKind};

const BODY: &[u8] = b"1,2\n";

/// Every path is a file of the same bytes; markers are newer than the rest.
#[derive(Debug)]
pub(crate) struct Listing(pub(crate) BTreeSet<String>);

impl Listing {
    fn file(path: &str) -> UpFile {
        UpFile {
            path: Arc::from(path),
            size: BODY.len() as u64,
            mtime_ms: 1 + i64::from(path.ends_with("/_SUCCESS")),
            token: Arc::from("t"),
        }
    }

    fn below<'a>(&'a self, directory: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let prefix = match directory {
            "" => String::new(),
            directory => format!("{directory}/"),
        };
        let split = move |path: &'a String| Some((path.as_str(), path.strip_prefix(&prefix)?));
        self.0.iter().filter_map(split)
    }
}

#[async_trait]
impl Upstream for Listing {
    fn url(&self) -> &str {
        "mem://listing"
    }

    fn list(&self, directory: &str) -> BoxStream<'static, Result<Listed, UpstreamError>> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for (path, rest) in self.below(directory) {
            match rest.find('/') {
                None => found.push(Ok(Listed::File(Self::file(path)))),
                Some(at) => {
                    let own = &path[..path.len() - rest.len() + at];
                    if seen.insert(own) {
                        found.push(Ok(Listed::Directory(Arc::from(own))));
                    }
                }
            }
        }
        stream::iter(found).boxed()
    }

    fn walk(&self, directory: &str) -> BoxStream<'static, Result<UpFile, UpstreamError>> {
        let found = self.below(directory);
        let found: Vec<_> = found.map(|(path, _)| Ok(Self::file(path))).collect();
        stream::iter(found).boxed()
    }

    async fn head(&self, path: &str) -> Result<UpFile, UpstreamError> {
        let absent = || UpstreamError::new(UpstreamErrorKind::NotFound, path);
        let found = self.0.contains(path).then(|| Self::file(path));
        found.ok_or_else(absent)
    }

    async fn read(&self, _: &UpFile, range: Range<u64>) -> Result<Bytes, UpstreamError> {
        Ok(Bytes::from_static(BODY).slice(range.start as usize..range.end as usize))
    }
}

//! A table of any size that is nowhere: made up while it is listed.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use terrace_catalog::upstream::{Listed, UpFile, Upstream, UpstreamError, UpstreamErrorKind};

const BODY: &[u8] = b"1,2\n";

/// The table `ele.db/orders` with its marker.
#[derive(Debug)]
pub(crate) struct Many {
    /// Partitions.
    pub(crate) partitions: AtomicU32,
    /// Files in each of them.
    pub(crate) files: u32,
}

fn file(path: String, mtime_ms: i64) -> UpFile {
    UpFile {
        path: path.into(),
        size: BODY.len() as u64,
        mtime_ms,
        token: "t".into(),
    }
}

#[async_trait]
impl Upstream for Many {
    fn url(&self) -> &str {
        "mem://many"
    }

    fn list(&self, directory: &str) -> BoxStream<'static, Result<Listed, UpstreamError>> {
        let below = if directory.is_empty() {
            "ele.db"
        } else {
            "ele.db/orders"
        };
        stream::iter([Ok(Listed::Directory(Arc::from(below)))]).boxed()
    }

    fn walk(&self, directory: &str) -> BoxStream<'static, Result<UpFile, UpstreamError>> {
        let files = self.files;
        let of = move |partition: String| {
            let name = move |at| Ok(file(format!("{partition}/part-{at:05}.csv"), 1));
            (0..files).map(name)
        };
        if directory.starts_with("ele.db/orders/") {
            return stream::iter(of(directory.to_owned())).boxed();
        }
        let all = 0..self.partitions.load(Ordering::Relaxed);
        let all = all.flat_map(move |at| of(format!("ele.db/orders/dt={at:06}")));
        let marker = Ok(file("ele.db/orders/_SUCCESS".to_owned(), 2));
        stream::iter(all.chain([marker])).boxed()
    }

    async fn head(&self, path: &str) -> Result<UpFile, UpstreamError> {
        Err(UpstreamError::new(UpstreamErrorKind::NotFound, path))
    }

    async fn read(&self, _: &UpFile, range: Range<u64>) -> Result<Bytes, UpstreamError> {
        Ok(Bytes::from_static(BODY).slice(range.start as usize..range.end as usize))
    }
}

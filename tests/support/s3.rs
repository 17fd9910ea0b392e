//! The S3 server of this run: objects in, counters out. See `tests/servers/README.md`.

use super::data::Tree;
use super::http;

/// Where the server is.
pub(crate) struct S3 {
    filer: String,
    metrics: String,
}

impl S3 {
    /// None when no server runs.
    pub(crate) fn from_environment() -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        variable("TERRACE_TEST_S3")?;
        Some(Self {
            filer: variable("TERRACE_TEST_S3_FILER")?,
            metrics: variable("TERRACE_TEST_S3_METRICS")?,
        })
    }

    /// A bucket that no other test and no earlier run uses.
    pub(crate) fn bucket(&self, test: &str) -> Bucket<'_> {
        let clock = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        Bucket {
            server: self,
            name: format!("{test}-{:x}", clock.as_nanos()),
        }
    }
}

/// One bucket; it is removed with everything in it.
pub(crate) struct Bucket<'a> {
    server: &'a S3,
    name: String,
}

impl Bucket<'_> {
    /// `s3://bucket/prefix`.
    pub(crate) fn url(&self, prefix: &str) -> String {
        format!("s3://{}/{prefix}", self.name)
    }

    /// Writes one object, also over an existing one.
    pub(crate) fn put(&self, key: &str, body: &[u8]) {
        let (status, said) = http::request("PUT", &self.address(key), body);
        assert!((200..300).contains(&status), "PUT {key}: {status} {said}");
    }

    /// Writes a tree below a prefix.
    pub(crate) fn put_tree(&self, prefix: &str, tree: &Tree) {
        for (path, bytes) in tree {
            self.put(&format!("{prefix}/{path}"), bytes);
        }
    }

    /// Removes one object.
    pub(crate) fn delete(&self, key: &str) {
        let (status, said) = http::request("DELETE", &self.address(key), b"");
        assert!(
            (200..300).contains(&status),
            "DELETE {key}: {status} {said}"
        );
    }

    /// Bytes of objects that the server has sent for this bucket, by its own counter.
    pub(crate) fn sent_bytes(&self) -> u64 {
        let (status, page) = http::request("GET", &self.server.metrics, b"");
        assert_eq!(status, 200);
        let counter = format!(
            "SeaweedFS_s3_bucket_traffic_sent_bytes_total{{bucket=\"{}\"}} ",
            self.name
        );
        page.lines()
            .find_map(|line| line.strip_prefix(&counter))
            .map_or(0, |value| value.parse::<f64>().unwrap() as u64)
    }

    fn address(&self, key: &str) -> String {
        format!(
            "{}/buckets/{}/{}",
            self.server.filer,
            self.name,
            http::encode(key)
        )
    }
}

impl Drop for Bucket<'_> {
    fn drop(&mut self) {
        let url = format!("{}/buckets/{}?recursive=true", self.server.filer, self.name);
        http::request("DELETE", &url, b"");
    }
}

//! Where a store is: the text a user types, taken apart once.
//!
//! The text after the authority is a key, taken literally: it is not percent-decoded, because keys
//! are bytes of the store and not of a URL. A URL never holds credentials; one that does is refused
//! without being repeated, so that no log line shows it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{StoreError, StoreErrorKind};

/// Default port of a NameNode's HTTP server since Hadoop 3.
const WEBHDFS_PORT: u16 = 9870;

/// Which protocol a store speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// S3-compatible object store.
    S3,
    /// HDFS by its native RPC.
    Hdfs,
    /// HDFS by its REST interface.
    WebHdfs {
        /// `swebhdfs://`: over TLS.
        tls: bool,
    },
    /// A directory of this machine, or a mounted shared file system.
    File,
}

/// A parsed `s3://`, `hdfs://`, `webhdfs://` or `file://` URL. Its `Display` has no credentials.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StoreUrl {
    scheme: Scheme,
    authority: Arc<str>,
    root: Arc<str>,
    prefix: Arc<str>,
}

impl StoreUrl {
    /// Canonical address of the store as a whole, as in `ObjectId::store`: `s3://bucket`,
    /// `hdfs://ns`, `file:///`. Keys are relative to it.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Key prefix the URL points at, without slashes at its ends; empty for the whole store.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The protocol.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Bucket, name service or `host:port`; empty for directories.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The shared form of [`Self::root`], for building identities without a copy.
    pub(super) fn shared_root(&self) -> Arc<str> {
        Arc::clone(&self.root)
    }

    /// Text of one key for messages.
    pub(super) fn display_key(&self, key: &str) -> String {
        format!(
            "{}/{key}",
            self.root.strip_suffix('/').unwrap_or(&self.root)
        )
    }
}

impl FromStr for StoreUrl {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| invalid(text, "not a URL; write s3://bucket/prefix or file:///dir"))?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(invalid(
                &format!("{scheme}://..."),
                "credentials do not belong into the URL; give them by the environment",
            ));
        }
        match scheme {
            "s3" | "s3a" => bucket(text, authority, path),
            "hdfs" => {
                let authority = authority.to_ascii_lowercase();
                if authority.is_empty() {
                    return Err(invalid(text, "name the NameNode or the name service"));
                }
                hadoop(text, Scheme::Hdfs, "hdfs", authority, path)
            }
            "webhdfs" | "swebhdfs" => {
                let tls = scheme == "swebhdfs";
                let authority = with_port(text, authority)?;
                hadoop(text, Scheme::WebHdfs { tls }, scheme, authority, path)
            }
            "file" => directory(text, authority, path),
            _ => Err(invalid(
                text,
                "unknown scheme; known are s3, hdfs, webhdfs, swebhdfs and file",
            )),
        }
    }
}

fn bucket(text: &str, authority: &str, path: &str) -> Result<StoreUrl, StoreError> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if authority.is_empty() || !authority.chars().all(good) {
        return Err(invalid(text, "not a bucket name"));
    }
    Ok(StoreUrl {
        scheme: Scheme::S3,
        authority: authority.into(),
        root: format!("s3://{authority}").into(),
        prefix: path.trim_matches('/').into(),
    })
}

fn hadoop(
    text: &str,
    scheme: Scheme,
    name: &str,
    authority: String,
    path: &str,
) -> Result<StoreUrl, StoreError> {
    Ok(StoreUrl {
        scheme,
        root: format!("{name}://{authority}").into(),
        authority: authority.into(),
        prefix: components(text, path)?.into(),
    })
}

fn directory(text: &str, authority: &str, path: &str) -> Result<StoreUrl, StoreError> {
    if !(authority.is_empty() || authority == "localhost") {
        return Err(invalid(text, "write an absolute path: file:///dir"));
    }
    Ok(StoreUrl {
        scheme: Scheme::File,
        authority: "".into(),
        root: "file:///".into(),
        prefix: components(text, path)?.into(),
    })
}

/// Path with single slashes; hierarchical stores have no empty and no dot components.
fn components(text: &str, path: &str) -> Result<String, StoreError> {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.contains(&"..") {
        return Err(invalid(text, "`..` in a store's URL is refused"));
    }
    Ok(parts.join("/"))
}

fn with_port(text: &str, authority: &str) -> Result<String, StoreError> {
    let authority = authority.to_ascii_lowercase();
    if authority.is_empty() {
        return Err(invalid(text, "name the NameNode: webhdfs://host:port/path"));
    }
    // A colon inside brackets belongs to an IPv6 address.
    let host_end = authority.rfind(']').map_or(0, |end| end + 1);
    Ok(match authority[host_end..].contains(':') {
        true => authority,
        false => format!("{authority}:{WEBHDFS_PORT}"),
    })
}

fn invalid(text: &str, reason: &str) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Invalid,
        operation: "parse URL",
        target: text.to_string(),
        reason: reason.to_string(),
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display_key(&self.prefix))
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    // Without it two spellings of one store would be two identities, or a prefix would grow slashes.
    #[test]
    fn roots_and_prefixes_are_canonical() {
        for (text, root, prefix) in [
            ("s3://bucket", "s3://bucket", ""),
            ("s3a://bucket/a/b/", "s3://bucket", "a/b"),
            ("s3://bucket/a%20b", "s3://bucket", "a%20b"),
            ("hdfs://NS1/data//x", "hdfs://ns1", "data/x"),
            ("hdfs://nn:8020/", "hdfs://nn:8020", ""),
            ("webhdfs://nn/data", "webhdfs://nn:9870", "data"),
            ("webhdfs://[::1]/data", "webhdfs://[::1]:9870", "data"),
            ("swebhdfs://nn:1/d", "swebhdfs://nn:1", "d"),
            ("file:///mnt/./data/", "file:///", "mnt/data"),
            ("file://localhost/x", "file:///", "x"),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!((url.root(), url.prefix()), (root, prefix), "{text}");
        }
    }

    // Without it a URL could leave its store, or its secret could land in a log.
    #[test]
    fn bad_urls_are_refused_without_repeating_secrets() {
        for text in [
            "bucket",
            "s3://",
            "gs://b",
            "file://host/x",
            "file:///a/../b",
            "hdfs:///x",
        ] {
            let error = text.parse::<StoreUrl>().unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Invalid, "{text}");
        }
        let error = "s3://key:secret@bucket/x".parse::<StoreUrl>().unwrap_err();
        assert!(!error.to_string().contains("secret"));
    }
}

//! What this crate asks of whoever can open connections: two kinds of request, with limits.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use axum::http::Uri;
use bytes::Bytes;

/// What came back.
#[derive(Clone, Debug)]
pub struct WebAnswer {
    /// Status of HTTP.
    pub status: u16,
    /// The body, complete.
    pub body: Bytes,
}

/// Asks servers over HTTPS. Follows no redirects: where keys come from is for the configuration to say.
/// Dropping a call ends its connection; deadlines are the caller's.
#[async_trait]
pub trait Web: Send + Sync + Debug + 'static {
    /// Reads a document of at most `limit` bytes; a longer one is an error. Errors are one line.
    async fn get(&self, url: &str, limit: usize) -> Result<WebAnswer, String>;

    /// Sends JSON with a bearer token.
    async fn post(
        &self,
        url: &str,
        bearer: &str,
        body: Bytes,
        limit: usize,
    ) -> Result<WebAnswer, String>;
}

/// Makes a [`Web`] that trusts the certificates in a file or, without one, those of the machine.
pub trait WebOpener: Send + Sync + Debug {
    /// Reads the file; asks nobody. Errors are one line and name the file.
    fn open(&self, ca_file: Option<&Path>) -> Result<Arc<dyn Web>, String>;
}

/// Refuses addresses over which a key or a token could be changed or read on the way. Plain HTTP is for
/// the loopback address only.
pub(super) fn check_url(url: &str) -> Result<(), String> {
    let refused = || format!("{url:?} is not an https:// address");
    let parsed: Uri = url.parse().map_err(|_| refused())?;
    let host = parsed.host().ok_or_else(refused)?;
    let plain = ["127.0.0.1", "localhost", "[::1]"].contains(&host);
    match parsed.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if plain => Ok(()),
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Keys that come over plain HTTP are whoever's sits on the way.
    #[test]
    fn plain_http_is_for_loopback_only() {
        for good in [
            "https://login.example.com/x",
            "http://127.0.0.1:80",
            "http://[::1]:1/x",
        ] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "http://login.example.com",
            "http://127.0.0.1.example.com",
            "http://localhost@example.com",
            "ftp://x",
            "file:///etc/passwd",
            "/etc/passwd",
            "",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }
}

//! What a client shows for itself: a token as it was given, or a file in which somebody renews one.
//!
//! A pod's service account token is replaced in its file long before it ends, so the file is read again
//! when [`AGAIN`] has passed. A file that cannot be read leaves the last token in use: whether it is still
//! good is for the catalog to say. The lock is held for the read of that small file.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::HeaderValue;

use super::place::read_token;

/// How long a token from a file is used without a look at the file: a tenth of the shortest life that
/// Kubernetes gives one.
const AGAIN: Duration = Duration::from_secs(60);

/// A token has characters that no token has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token has characters no token has")]
pub(crate) struct BearerError;

/// See the module text. Cheap to clone; `Debug` does not show the token.
#[derive(Clone)]
pub(crate) struct Bearer(Arc<Source>);

enum Source {
    Fixed(HeaderValue),
    File {
        path: PathBuf,
        last: Mutex<(HeaderValue, Instant)>,
    },
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(***)")
    }
}

impl Bearer {
    /// The same token for ever.
    pub(crate) fn fixed(token: &str) -> Result<Self, BearerError> {
        Ok(Self(Arc::new(Source::Fixed(header(token)?))))
    }

    /// A file that held `token` a moment ago.
    pub(crate) fn file(path: PathBuf, token: &str) -> Result<Self, BearerError> {
        let last = Mutex::new((header(token)?, Instant::now()));
        Ok(Self(Arc::new(Source::File { path, last })))
    }

    /// The value of the Authorization header now.
    pub(crate) fn value(&self) -> HeaderValue {
        let (path, last) = match &*self.0 {
            Source::Fixed(value) => return value.clone(),
            Source::File { path, last } => (path, last),
        };
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.1.elapsed() >= AGAIN {
            match read_token(path).map(|token| header(&token)) {
                Ok(Ok(value)) => last.0 = value,
                Ok(Err(error)) => {
                    tracing::warn!(file = %path.display(), %error, "the last token stays in use")
                }
                Err(error) => {
                    tracing::warn!(error = %format!("{error:#}"), "the last token stays in use")
                }
            }
            last.1 = Instant::now();
        }
        last.0.clone()
    }
}

fn header(token: &str) -> Result<HeaderValue, BearerError> {
    let value = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
    let mut value = value.map_err(|_| BearerError)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // A mount that goes on with the token it was made with is locked out when its pod's token is renewed.
    #[test]
    fn a_renewed_file_counts_and_a_lost_one_does_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bearer = Bearer::file(file.path().to_owned(), "one").unwrap();
        let later = || {
            let Source::File { last, .. } = &*bearer.0 else {
                panic!("a file");
            };
            last.lock().unwrap().1 = Instant::now().checked_sub(AGAIN).unwrap();
            bearer.value().to_str().unwrap().to_owned()
        };
        std::fs::write(file.path(), "two\n").unwrap();
        assert_eq!(bearer.value(), "Bearer one", "not looked at yet");
        assert_eq!(later(), "Bearer two");
        std::fs::write(file.path(), "").unwrap();
        assert_eq!(later(), "Bearer two");
        assert!(Bearer::fixed("a\u{1}b").is_err());
        assert!(!format!("{bearer:?}").contains("two") && bearer.value().is_sensitive());
    }
}

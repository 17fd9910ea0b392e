//! Extended attributes that follow from an object's identity alone.

use terrace_cache::{ObjectId, Token};

/// Name of the attribute that tells what the store distinguishes versions by.
pub(crate) const VERSION: &str = "user.terrace.version";
/// Name of the attribute with the object's name in every tier.
pub(crate) const DIGEST: &str = "user.terrace.digest";

/// `user.terrace.version` (for people: the store's own token) and `user.terrace.digest` (for
/// programs: 64 hexadecimal digits).
pub(crate) fn of_object(object: &ObjectId) -> Vec<(String, Vec<u8>)> {
    let version = match &object.version.token {
        Token::ETag {
            etag,
            version_id: None,
        } => etag.to_string(),
        Token::ETag {
            etag,
            version_id: Some(id),
        } => format!("{etag} {id}"),
        Token::Hdfs { file_id } => format!("hdfs:{file_id}:{}", object.version.mtime_ns),
        Token::File { device, inode } => {
            format!("file:{device}:{inode}:{}", object.version.mtime_ns)
        }
    };
    vec![
        (VERSION.to_owned(), version.into_bytes()),
        (DIGEST.to_owned(), object.digest().hex().into_bytes()),
    ]
}

//! What a single file is, by its first bytes and its name.

use bytes::Bytes;

use super::types::{Confidence, FileFormat};
use super::{archive, media, text, tfrecord};

/// The first bytes of a file.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) path: String,
    /// From the file's start; all of it when the file is short.
    pub(super) bytes: Bytes,
    /// Whether `bytes` is the whole file.
    pub(super) whole: bool,
}

/// The format of one file and how sure that is.
pub(super) fn sniff(head: &Head) -> (FileFormat, Confidence) {
    use Confidence::{Certain, Guess, Likely};
    let bytes = &head.bytes[..];
    if bytes.starts_with(b"PAR1") {
        return (FileFormat::Parquet, Certain);
    }
    if bytes.starts_with(b"ORC") && extension(&head.path) != "txt" {
        return (FileFormat::Orc, Likely);
    }
    // The file form of Arrow begins with its name, the stream form with a continuation mark.
    if bytes.starts_with(b"ARROW1") {
        return (FileFormat::Arrow, Certain);
    }
    if bytes.starts_with(&[0xff; 4]) && extension(&head.path) == "arrow" {
        return (FileFormat::Arrow, Likely);
    }
    if tfrecord::is_framed(bytes) {
        return (FileFormat::Tfrecord, Certain);
    }
    if archive::is_tar(bytes) {
        return (FileFormat::Webdataset, Likely);
    }
    if let Some(kind) = media::kind(bytes) {
        return (kind, Certain);
    }
    if text::json_lines(head).is_some() {
        return (FileFormat::Jsonl, Likely);
    }
    if let Some(table) = text::csv(head) {
        let named = matches!(extension(&head.path), "csv" | "tsv");
        if named || table.fields.len() > 1 {
            return (FileFormat::Csv, if named { Likely } else { Guess });
        }
    }
    (FileFormat::Files, Guess)
}

/// What follows the last dot of a path's name; empty for none.
pub(super) fn extension(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map_or("", |(_, extension)| extension)
}

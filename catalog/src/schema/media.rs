//! Image and audio folders: files known by their first bytes, classes by their directories.

use super::types::{Field, FileFormat, Schema, Type};

/// Whether bytes begin as an image or an audio file does.
pub(super) fn kind(bytes: &[u8]) -> Option<FileFormat> {
    let riff = |kind: &[u8]| bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(kind);
    let image = bytes.starts_with(b"\x89PNG\r\n\x1a\n")
        || bytes.starts_with(&[0xff, 0xd8, 0xff])
        || bytes.starts_with(b"GIF87a")
        || bytes.starts_with(b"GIF89a")
        || bytes.starts_with(b"II*\0")
        || bytes.starts_with(b"MM\0*")
        || riff(b"WEBP");
    let mpeg = bytes.len() > 2 && bytes[0] == 0xff && matches!(bytes[1], 0xfb | 0xf3 | 0xf2);
    let audio = bytes.starts_with(b"fLaC")
        || bytes.starts_with(b"OggS")
        || bytes.starts_with(b"ID3")
        || riff(b"WAVE")
        || mpeg;
    if image {
        Some(FileFormat::Images)
    } else {
        audio.then_some(FileFormat::Audio)
    }
}

/// The columns of a folder: the file itself, and `label` when every file lies in a class directory.
pub(super) fn schema<'a>(format: FileFormat, paths: impl Iterator<Item = &'a str>) -> Schema {
    let mut paths = paths.peekable();
    let labelled = paths.peek().is_some() && paths.all(|path| path.contains('/'));
    let name = if format == FileFormat::Audio {
        "audio"
    } else {
        "image"
    };
    let mut fields = vec![Field {
        name: name.to_owned(),
        data_type: Type::Binary,
        nullable: false,
    }];
    if labelled {
        let label = Field {
            name: "label".to_owned(),
            data_type: Type::String,
            nullable: false,
        };
        fields.push(label);
    }
    Schema { fields }
}

//! WebDataset: tar archives whose members with one base name are one sample; columns are extensions.
//!
//! ```text
//! head     512 bytes: name at 0 (100), size in octal at 124 (12), checksum at 148 (8), kind at 156,
//!          "ustar" at 257, prefix of the name at 345 (155); then the body, padded to 512
//! ```

use std::collections::BTreeMap;

use super::types::{Field, Schema, Type};

const BLOCK: usize = 512;

/// Whether the bytes begin with a tar header, by its mark and its checksum.
pub(super) fn is_tar(bytes: &[u8]) -> bool {
    bytes
        .get(..BLOCK)
        .is_some_and(|head| member(head).is_some())
}

struct Member {
    name: String,
    size: u64,
    file: bool,
}

fn member(head: &[u8]) -> Option<Member> {
    if head.get(257..262)? != b"ustar" {
        return None;
    }
    let sum = octal(&head[148..156])?;
    let counted: u64 = head
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u64::from(*byte)
            }
        })
        .sum();
    if sum != counted {
        return None;
    }
    let (prefix, name) = (text(&head[345..500]), text(&head[..100]));
    Some(Member {
        name: if prefix.is_empty() {
            name
        } else {
            format!("{prefix}/{name}")
        },
        size: octal(&head[124..136])?,
        file: matches!(head[156], b'0' | 0),
    })
}

fn text(field: &[u8]) -> String {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(digits.trim_matches(['\0', ' ']), 8).ok()
}

/// The columns of the samples in the first bytes of an archive; none when its members are no samples:
/// a base name (up to the first dot) and an extension.
pub(super) fn schema(bytes: &[u8]) -> Option<Schema> {
    let mut samples: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut at = 0usize;
    while let Some(found) = bytes.get(at..at.checked_add(BLOCK)?).and_then(member) {
        if found.file {
            let (directory, name) = found.name.rsplit_once('/').unwrap_or(("", &found.name));
            let (base, extension) = name.split_once('.')?;
            let sample = samples.entry(format!("{directory}/{base}")).or_default();
            sample.push(extension.to_lowercase());
        }
        let body = usize::try_from(found.size)
            .ok()?
            .checked_next_multiple_of(BLOCK)?;
        at = at.checked_add(BLOCK + body)?;
    }
    let complete = samples.len();
    let mut columns: BTreeMap<&str, usize> = BTreeMap::new();
    for extension in samples.values().flatten() {
        *columns.entry(extension).or_default() += 1;
    }
    let fields = columns.into_iter().map(|(name, count)| Field {
        name: name.to_owned(),
        data_type: type_of(name),
        nullable: count < complete,
    });
    (complete > 0).then(|| Schema {
        fields: fields.collect(),
    })
}

fn type_of(extension: &str) -> Type {
    match extension.rsplit('.').next().unwrap_or(extension) {
        "cls" | "index" | "id" => Type::Int64,
        "txt" | "text" | "json" | "transcript" => Type::String,
        _ => Type::Binary,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn add(out: &mut Vec<u8>, name: &str, body: &[u8]) {
        let mut head = vec![0; BLOCK];
        head[..name.len()].copy_from_slice(name.as_bytes());
        head[124..135].copy_from_slice(format!("{:011o}", body.len()).as_bytes());
        head[148..156].fill(b' ');
        head[156] = b'0';
        head[257..262].copy_from_slice(b"ustar");
        let sum: u64 = head.iter().map(|byte| u64::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(body);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }

    // Samples that are grouped wrongly pair an image with the label of another one.
    #[test]
    fn members_are_grouped_by_base_name() {
        let mut tar = Vec::new();
        add(&mut tar, "a/000.jpg", b"JPEG");
        add(&mut tar, "a/000.cls", b"1");
        add(&mut tar, "a/001.jpg", &[0; 700]);
        add(&mut tar, "a/001.seg.png", b"PNG");
        assert!(is_tar(&tar));
        let schema = schema(&tar).unwrap();
        let fields: Vec<_> = schema
            .fields
            .iter()
            .map(|f| (f.name.as_str(), f.nullable))
            .collect();
        assert_eq!(fields, [("cls", true), ("jpg", false), ("seg.png", true)]);
        tar[0] ^= 1;
        assert!(!is_tar(&tar));
    }

    proptest! {
        // The bytes are a stranger's; sizes in a header may be anything.
        #[test]
        fn any_archive_is_answered(size in "[0-7]{11}", rest in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut tar = Vec::new();
            add(&mut tar, "a.b", &rest);
            tar[124..135].copy_from_slice(size.as_bytes());
            let _ = (schema(&tar), schema(&rest), is_tar(&rest));
        }
    }
}

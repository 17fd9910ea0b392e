//! The Avro container that manifests are in, and the binary encoding of their records.
//!
//! ```text
//! file    "Obj" 0x01  header  block ..
//! header  map of bytes: "avro.schema", "avro.codec" = "null", and what Iceberg adds;  sync (16 bytes)
//! block   number of records (long)  their bytes (long)  the records  sync
//!
//! long, int   zigzag varint        bytes, string  length (long), then as many bytes
//! boolean     one byte             union          index (long), then the value
//! array, map  blocks of: count (long) and items; a count of 0 ends it
//! ```
//!
//! Source: Apache Avro 1.12, "Object Container Files" and "Binary Encoding". Records are not
//! compressed: the files are small beside the data, and equal content gives equal bytes on every
//! release of every library. The sync marker is made from the header for the same reason.

use sha2::{Digest as _, Sha256};

use crate::manifest::codec::put_zigzag;

/// A block is written when its records have so many bytes.
const BLOCK: usize = 64 << 10;

/// Records being encoded.
#[derive(Debug, Default)]
pub(super) struct Encoder(Vec<u8>);

impl Encoder {
    pub(super) fn long(&mut self, value: i64) {
        put_zigzag(&mut self.0, value);
    }

    /// A count or a length; what does not fit is as much as fits.
    pub(super) fn count(&mut self, value: u64) {
        self.long(i64::try_from(value).unwrap_or(i64::MAX));
    }

    pub(super) fn boolean(&mut self, value: bool) {
        self.0.push(u8::from(value));
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.count(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// The absent member of a union of null and something.
    pub(super) fn none(&mut self) {
        self.long(0);
    }

    /// The other member; its value follows.
    pub(super) fn some(&mut self) {
        self.long(1);
    }

    /// An array: each item as `each` writes it.
    pub(super) fn array<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        if !items.is_empty() {
            self.count(items.len() as u64);
            for item in items {
                each(self, item);
            }
        }
        self.long(0);
    }
}

/// A file being written.
#[derive(Debug)]
pub(super) struct Container {
    out: Vec<u8>,
    sync: [u8; 16],
    records: Encoder,
    count: u64,
}

impl Container {
    /// Begins a file of records of a schema. `added`: more entries of the header.
    pub(super) fn new(schema: &str, added: &[(&str, &str)]) -> Self {
        let mut header = Encoder(b"Obj\x01".to_vec());
        let mut entries = vec![("avro.schema", schema), ("avro.codec", "null")];
        entries.extend_from_slice(added);
        header.array(&entries, |header, (name, value)| {
            header.bytes(name.as_bytes());
            header.bytes(value.as_bytes());
        });
        let digest: [u8; 32] = Sha256::digest(&header.0).into();
        let mut sync = [0; 16];
        sync.copy_from_slice(&digest[..16]);
        header.0.extend_from_slice(&sync);
        Self {
            out: header.0,
            sync,
            records: Encoder::default(),
            count: 0,
        }
    }

    /// Adds a record that `write` encodes.
    pub(super) fn record(&mut self, write: impl FnOnce(&mut Encoder)) {
        write(&mut self.records);
        self.count += 1;
        if self.records.0.len() >= BLOCK {
            self.end_block();
        }
    }

    fn end_block(&mut self) {
        if self.count == 0 {
            return;
        }
        let mut head = Encoder(std::mem::take(&mut self.out));
        head.count(self.count);
        head.bytes(&self.records.0);
        self.out = head.0;
        self.out.extend_from_slice(&self.sync);
        self.records.0.clear();
        self.count = 0;
    }

    /// The whole file.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.end_block();
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of the specification: readers of every language take files apart by these bytes.
    #[test]
    fn values_are_encoded_as_the_specification_says() {
        let mut out = Encoder::default();
        for value in [0, -1, 1, -2, 2, -64, 64] {
            out.long(value);
        }
        out.bytes(b"foo");
        out.array(&[3, 27], |out, item| out.long(*item));
        out.array::<i64>(&[], |_, _| {});
        let expected = [
            0, 1, 2, 3, 4, 0x7f, 0x80, 0x01, 6, b'f', b'o', b'o', 4, 6, 0x36, 0, 0,
        ];
        assert_eq!(out.0, expected);
    }

    // A block whose count or sync marker is wrong ends a scan with an error, or early without one.
    #[test]
    fn a_file_is_header_and_blocks() {
        let mut file = Container::new("\"long\"", &[("content", "data")]);
        let header = file.out.clone();
        let sync = file.sync;
        assert!(header.starts_with(b"Obj\x01\x06\x16avro.schema\x0c\"long\""));
        assert!(header.ends_with(&sync));
        for value in 0..3 {
            file.record(|out| out.long(value));
        }
        let bytes = file.finish();
        let block = [&[6, 6, 0, 2, 4][..], &sync].concat();
        assert_eq!(bytes[header.len()..], block);
    }
}

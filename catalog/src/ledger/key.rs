//! Keys of the ledger in the key-value store.
//!
//! ```text
//! key = table (1 byte)  tenant (4 bytes)  rest            integers big-endian
//!
//! n  name              -> NameRecord      the name's dataset           "ads.clicks"
//! o  id                -> DatasetRecord   descriptor and state         id: 8 bytes
//! r  id ref            -> RefRecord       "latest", a tag, or a day
//! v  id number         -> VersionRecord   number: 8 bytes
//! b  id batch          -> BatchRecord     the version a batch led to
//! e  revision          -> EventRecord     in the order of the transactions (`kv::Op::Append`)
//! g  id number holder  -> HoldRecord      why a version must stay
//! p  id number         -> (empty)         a mirror file that is not written yet; number 0: the dataset's
//! s  id save           -> SaveRecord      files that are being written to a place of their own
//! t                    -> TrimRecord      up to where events were removed
//! x                    -> (empty)         a rebuild is under way
//! ```
//!
//! The last part of a key is a text of its own alphabet, so no key is the beginning of another one of
//! its table's prefixes by accident.

use bytes::{BufMut, Bytes, BytesMut};

use super::{DatasetId, Tenant};

/// The tables of the text above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Table {
    Name = b'n',
    Dataset = b'o',
    Ref = b'r',
    Version = b'v',
    Batch = b'b',
    Event = b'e',
    Hold = b'g',
    Pending = b'p',
    Save = b's',
    Trim = b't',
    Rebuild = b'x',
}

/// Makes the keys of one tenant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    pub(super) tenant: Tenant,
}

impl Keys {
    /// What every key of a table begins with.
    pub(super) fn table(self, table: Table) -> Bytes {
        self.start(table).freeze()
    }

    /// What every key of a table begins with, whosever it is.
    pub(super) fn everyone(table: Table) -> Bytes {
        Bytes::copy_from_slice(&[table as u8])
    }

    pub(super) fn name(self, name: &str) -> Bytes {
        let mut key = self.start(Table::Name);
        key.put_slice(name.as_bytes());
        key.freeze()
    }

    /// What every key of a dataset in a table begins with.
    pub(super) fn of(self, table: Table, id: DatasetId) -> Bytes {
        let mut key = self.start(table);
        key.put_u64(id.0);
        key.freeze()
    }

    pub(super) fn dataset(self, id: DatasetId) -> Bytes {
        self.of(Table::Dataset, id)
    }

    pub(super) fn reference(self, id: DatasetId, name: &str) -> Bytes {
        self.text(Table::Ref, id, name)
    }

    pub(super) fn version(self, id: DatasetId, number: u64) -> Bytes {
        self.number(Table::Version, id, number)
    }

    pub(super) fn batch(self, id: DatasetId, batch: &str) -> Bytes {
        self.text(Table::Batch, id, batch)
    }

    pub(super) fn event(self, sequence: u64) -> Bytes {
        let mut key = self.start(Table::Event);
        key.put_u64(sequence);
        key.freeze()
    }

    /// What the holds of a version begin with.
    pub(super) fn holds(self, id: DatasetId, number: u64) -> Bytes {
        self.number(Table::Hold, id, number)
    }

    pub(super) fn hold(self, id: DatasetId, number: u64, holder: &str) -> Bytes {
        let mut key = BytesMut::from(self.holds(id, number).as_ref());
        key.put_slice(holder.as_bytes());
        key.freeze()
    }

    pub(super) fn save(self, id: DatasetId, save: &str) -> Bytes {
        self.text(Table::Save, id, save)
    }

    pub(super) fn pending(self, id: DatasetId, number: u64) -> Bytes {
        self.number(Table::Pending, id, number)
    }

    fn start(self, table: Table) -> BytesMut {
        let mut key = BytesMut::with_capacity(96);
        key.put_u8(table as u8);
        key.put_u32(self.tenant.0);
        key
    }

    fn number(self, table: Table, id: DatasetId, number: u64) -> Bytes {
        let mut key = BytesMut::from(self.of(table, id).as_ref());
        key.put_u64(number);
        key.freeze()
    }

    fn text(self, table: Table, id: DatasetId, text: &str) -> Bytes {
        let mut key = BytesMut::from(self.of(table, id).as_ref());
        key.put_slice(text.as_bytes());
        key.freeze()
    }
}

/// The last 8 bytes of a key, as a number.
pub(super) fn last_number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.last_chunk::<8>()?))
}

/// Whether a key that begins as one of a table is one: other parts of the catalog keep keys that begin
/// with a letter and a slash.
pub(super) fn is_ledger_key(key: &[u8]) -> bool {
    key.get(1) != Some(&b'/')
}

/// The id of a key of a table whose keys begin with one.
pub(super) fn id_of(key: &[u8]) -> Option<DatasetId> {
    let bytes = key.get(5..13)?;
    Some(DatasetId(u64::from_be_bytes(bytes.try_into().ok()?)))
}

/// The text behind the id.
pub(super) fn text_of(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.get(13..)?).ok()
}

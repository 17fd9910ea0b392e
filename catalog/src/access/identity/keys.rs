//! The set of keys that an issuer publishes (RFC 7517), and the choice of the one that a token names.

use std::sync::Arc;

use serde_json::Value;

use super::config::Algorithm;
use super::key::Key;

/// Most keys of a set; issuers have two or three.
const MAX_KEYS: usize = 64;

/// The keys of an issuer that are of use here.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet(Vec<Arc<Key>>);

/// Why no key was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// There is none of that name and kind; a newer set may have one.
    Unknown,
    /// More than one would do, and which one is not said.
    Unclear,
}

impl KeySet {
    /// Errors are one line. Keys of kinds that are not known here are left out.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| format!("it is no JSON: {error}"))?;
        let listed = value.get("keys").and_then(Value::as_array);
        let listed = listed.ok_or("it has no list of keys (\"keys\")")?;
        if listed.len() > MAX_KEYS {
            return Err(format!("it has more than {MAX_KEYS} keys"));
        }
        let mut keys = Vec::new();
        for value in listed {
            keys.extend(Key::parse(value)?.map(Arc::new));
        }
        if keys.is_empty() {
            return Err("it has no public key for signatures (RSA, EC, OKP)".to_owned());
        }
        Ok(Self(keys))
    }

    /// The key of this name that can have signed with this algorithm. A token that names none is good
    /// for a set with one such key.
    pub(super) fn choose(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Arc<Key>, NoKey> {
        let named = |key: &&Arc<Key>| id.is_none() || key.id.as_deref() == id;
        let mut found = self
            .0
            .iter()
            .filter(named)
            .filter(|key| key.fits(algorithm));
        match (found.next(), found.next()) {
            (None, _) => Err(NoKey::Unknown),
            (Some(key), None) => Ok(Arc::clone(key)),
            (Some(_), Some(_)) => Err(NoKey::Unclear),
        }
    }
}

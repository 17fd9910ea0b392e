//! The compact form of a signed token, taken apart; nothing in it is believed here.
//!
//! ```text
//! token    = base64url(header) "." base64url(claims) "." base64url(signature)
//! header   = { "alg", "kid"?, "typ"? .. }      both objects without doubled names
//! ```
//!
//! Base64 without padding, in its one canonical spelling. Sources: RFC 7515, 7519, 8725.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::config::Algorithm;
use super::strict;

/// Longest key id, in bytes.
const MAX_KEY_ID: usize = 256;

/// Types of tokens that prove who somebody is. Others (a logout, a request) are signed by the same keys.
const TYPES: [&str; 4] = ["jwt", "at+jwt", "application/jwt", "application/at+jwt"];

/// A token in its parts.
#[derive(Debug)]
pub(super) struct Jwt<'a> {
    signed: &'a [u8],
    signature: Vec<u8>,
    header: Map<String, Value>,
    pub(super) claims: Map<String, Value>,
}

/// What a header says that is of use.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) algorithm: Algorithm,
    /// Name of the key.
    pub(super) key: Option<String>,
}

impl<'a> Jwt<'a> {
    /// Errors say what is wrong with the form.
    pub(super) fn parse(text: &'a str) -> Result<Self, &'static str> {
        let shape = "it is neither a token of this catalog nor a signed JWT";
        let (signed, signature) = text.rsplit_once('.').ok_or(shape)?;
        let (header, claims) = signed.split_once('.').ok_or(shape)?;
        let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| shape);
        let header = strict::object(&bytes(header)?);
        let claims = strict::object(&bytes(claims)?);
        let once = "its header or its claims are not an object whose names come once";
        Ok(Self {
            signed: signed.as_bytes(),
            signature: bytes(signature)?,
            header: header.ok_or(once)?,
            claims: claims.ok_or(once)?,
        })
    }

    /// Errors: an algorithm that is unknown here (`none` and those with a shared secret are), another
    /// kind of token, an extension that must be understood.
    pub(super) fn header(&self) -> Result<Header, &'static str> {
        let algorithm = self.header.get("alg").cloned().unwrap_or_default();
        let algorithm = serde_json::from_value(algorithm);
        let algorithm = algorithm.map_err(|_| "its algorithm is not one that is believed")?;
        if self.header.contains_key("crit") {
            return Err("it has extensions that must be understood, and are not");
        }
        match self.header.get("typ") {
            None => {}
            Some(Value::String(kind)) if TYPES.contains(&kind.to_ascii_lowercase().as_str()) => {}
            Some(_) => return Err("it is a token for something else (typ)"),
        }
        let key = match self.header.get("kid") {
            None => None,
            Some(Value::String(key)) if key.len() <= MAX_KEY_ID => Some(key.clone()),
            Some(_) => return Err("the name of its key is no text, or too long"),
        };
        Ok(Header { algorithm, key })
    }

    /// What the signature is over.
    pub(super) fn signed(&self) -> &[u8] {
        self.signed
    }

    /// The signature.
    pub(super) fn signature(&self) -> &[u8] {
        &self.signature
    }
}

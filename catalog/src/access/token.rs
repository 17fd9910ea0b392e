//! A bearer token: made, parsed, and never printed.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a token's text begins with: scanners for leaked secrets find it by this.
const PREFIX: &str = "trc_";

/// Bytes of a token.
const BYTES: usize = 32;

/// A text is not a token. Does not quote it: it may be another system's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a token of a catalog: they look like {PREFIX} and 64 hexadecimal digits")]
pub struct TokenError;

/// The secret itself. `Debug` masks it; there is no `Display`: [`Token::reveal`] says what it does.
#[derive(Clone)]
pub struct Token([u8; BYTES]);

impl Token {
    /// 256 bits from the operating system's generator by way of `rand`'s.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The text that its owner sends. For its owner only.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", hex(&self.0))
    }

    /// What is kept of it.
    pub(crate) fn digest(&self) -> TokenDigest {
        TokenDigest(Sha256::digest(self.0).into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let digits = text.strip_prefix(PREFIX).ok_or(TokenError)?;
        unhex(digits).map(Self).ok_or(TokenError)
    }
}

/// SHA-256 of a token. Equality takes the same time wherever the difference is.
#[derive(Clone, Copy)]
pub(crate) struct TokenDigest([u8; BYTES]);

impl TokenDigest {
    pub(super) fn from_bytes(bytes: [u8; BYTES]) -> Self {
        Self(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8; BYTES] {
        &self.0
    }

    pub(super) fn hex(&self) -> String {
        hex(&self.0)
    }

    pub(super) fn from_hex(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }

    /// A short name for lists and logs.
    pub(crate) fn id(&self) -> TokenId {
        TokenId(hex(&self.0[..6]))
    }
}

impl PartialEq for TokenDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenDigest({}..)", self.id())
    }
}

/// The first 48 bits of a token's digest: names it in lists, logs and revocations, and gives nothing
/// away. Two of a million tokens share one with a chance of 1 in 500.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenId(String);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text is not the id of a token. Does not quote it: it may be a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not the id of a token: they have 12 hexadecimal digits, as the list shows them")]
pub struct TokenIdError;

impl FromStr for TokenId {
    type Err = TokenIdError;

    fn from_str(text: &str) -> Result<Self, TokenIdError> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let good = text.len() == 12 && text.bytes().all(digit);
        good.then(|| Self(text.to_owned())).ok_or(TokenIdError)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exactly 64 lower-case hexadecimal digits.
fn unhex(text: &str) -> Option<[u8; BYTES]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * BYTES {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    // A token that prints itself ends in a log file.
    #[test]
    fn tokens_do_not_print_themselves() {
        let token = Token::random();
        let secret = token.reveal();
        let shown = format!("{token:?} {:?} {}", token.digest(), token.digest().id());
        assert!(!shown.contains(&secret[4..20]), "{shown}");
        assert_eq!(secret.parse::<Token>().unwrap().digest(), token.digest());
        assert_ne!(Token::random().digest(), token.digest());
    }

    proptest! {
        // Anything may stand in an Authorization header.
        #[test]
        fn any_text_is_answered(text in any::<String>()) {
            prop_assert!(text.parse::<Token>().is_err());
            let _ = text.parse::<TokenId>();
        }
    }
}

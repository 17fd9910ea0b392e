//! Who may do what: tokens, what they grant, and how they are kept.
//!
//! A token is 256 random bits. The catalog keeps its SHA-256 and what it grants, never the token:
//! who reads the database, a backup or a log learns none.
//!
//! ```text
//! token     = "trc_" 64 hexadecimal digits
//! key       = "t/" SHA-256(token's 32 bytes)          in the catalog's key-value store
//! value     = JSON { name, grants, created_ms, expires_ms, digest }
//! grant     = scope ":" ( namespace | "*" )
//! scope     = "list" < "read" < "publish" < "admin"    each contains those before it
//! ```
//!
//! Tokens of others (OpenID Connect, Kubernetes) are believed as far as [`identity`] is told to; what they
//! may do is decided here, never by who made them.
//!
//! A digest is looked up, so nothing that depends on the secret itself is compared byte by byte; what
//! is found is compared once more with what was asked for, in constant time.

mod grant;
pub mod identity;
mod principal;
mod store;
mod token;

pub use grant::{Grant, GrantError, Grants, Scope};
pub use principal::Principal;
pub use store::{Access, AccessError, TokenInfo, TokenRequest};
pub use token::{Token, TokenError, TokenId, TokenIdError};

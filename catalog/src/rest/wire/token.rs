//! Tokens of the catalog, as they are asked for and listed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `scope:namespace` or `scope:*`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(pattern = r"^(list|read|publish|admin):(\*|[a-z0-9][a-z0-9_-]{0,63})$")]
pub struct GrantText(pub String);

/// Asks for a token.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// Who or what will use it; for people.
    #[schema(
        max_length = 128,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    pub name: String,
    /// `scope:namespace` or `scope:*`; scopes are list, read, publish, admin. 1 to 64.
    #[schema(value_type = Vec<GrantText>, min_items = 1, max_items = 64)]
    pub grants: Vec<String>,
    /// Seconds until it ends; absent: never. At most 100 years.
    #[schema(minimum = 1, maximum = 3155760000_i64)]
    #[serde(default, deserialize_with = "super::number::some_positive")]
    pub expires_seconds: Option<u64>,
}

/// A token, without its secret.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenEntry {
    /// Names it in lists, logs and revocations.
    pub id: String,
    /// Who or what uses it.
    pub name: String,
    /// What it grants.
    pub grants: Vec<String>,
    /// When it was made.
    pub created_ms: i64,
    /// When it ends; absent: never.
    pub expires_ms: Option<i64>,
}

/// Every token.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    /// In the order of their names.
    pub items: Vec<TokenEntry>,
}

/// A token that was just made.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct IssuedToken {
    /// The secret. Nobody can be told it again.
    pub token: String,
    /// As in lists.
    #[serde(flatten)]
    pub entry: TokenEntry,
}

impl std::fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("IssuedToken");
        shown.field("entry", &self.entry).finish_non_exhaustive()
    }
}

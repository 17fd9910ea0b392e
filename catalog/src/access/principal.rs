//! Who makes a request, whichever way they proved it.

use std::sync::Arc;

use super::grant::{GrantError, Grants, Scope};

/// Who makes a request. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Principal {
    label: Arc<str>,
    grants: Arc<Grants>,
    expires_ms: Option<i64>,
}

impl Principal {
    /// `label` names it in logs; `expires_ms` is when its proof ends, in milliseconds since 1970.
    pub(super) fn new(label: &str, grants: Grants, expires_ms: Option<i64>) -> Self {
        Self {
            label: label.into(),
            grants: Arc::new(grants),
            expires_ms,
        }
    }

    /// One that another catalog of the same database has believed, from what it noted: the texts of its
    /// grants, of which there may be none.
    pub(crate) fn restored(
        label: &str,
        grants: &[String],
        expires_ms: Option<i64>,
    ) -> Result<Self, GrantError> {
        let grants = grants.iter().map(|text| Grants::parse(&[text]));
        let grants = grants.collect::<Result<Vec<_>, _>>()?;
        Ok(Self::new(label, Grants::union(grants.iter()), expires_ms))
    }

    /// Whether it may do this over a namespace.
    pub fn may(&self, scope: Scope, namespace: &str) -> bool {
        self.grants.cover(scope, namespace)
    }

    /// Everything it may do.
    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// As logs name it: name and id of a token of this catalog, issuer and subject of another one.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// When its proof ends, in milliseconds since 1970; none: never.
    pub fn expires_ms(&self) -> Option<i64> {
        self.expires_ms
    }
}

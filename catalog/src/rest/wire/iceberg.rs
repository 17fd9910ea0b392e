//! The Iceberg REST protocol on the wire, as far as this catalog speaks it.
//!
//! Source: `rest-catalog-open-api.yaml` of the Iceberg project. Field names are that document's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// How to go on for a warehouse.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct IcebergConfig {
    /// Nothing: there are no settings that a client may change.
    pub defaults: BTreeMap<String, String>,
    /// `prefix`: what comes behind `/iceberg/v1/` in every other route.
    pub overrides: BTreeMap<String, String>,
    /// The routes that there are.
    pub endpoints: Vec<String>,
}

/// Namespaces.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct IcebergNamespaces {
    /// Each with its one level.
    pub namespaces: Vec<Vec<String>>,
}

/// One namespace.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct IcebergNamespace {
    /// Its one level.
    pub namespace: Vec<String>,
    /// None are kept.
    pub properties: BTreeMap<String, String>,
}

/// What a table is called.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct IcebergTableName {
    /// The one level of its namespace.
    pub namespace: Vec<String>,
    /// Its name.
    pub name: String,
}

/// Tables.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct IcebergTables {
    /// In the order of their names.
    pub identifiers: Vec<IcebergTableName>,
}

/// A table.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct IcebergTable {
    /// Where its metadata can be read too.
    pub metadata_location: String,
    /// Its metadata, as the format's specification describes them.
    #[schema(value_type = Object)]
    pub metadata: Value,
    /// Nothing: settings of a store would make engines open one for files of a mount.
    pub config: BTreeMap<String, String>,
}

/// Every answer of this protocol that is not a success.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct IcebergError {
    /// What went wrong.
    pub error: IcebergErrorDetail,
}

/// What went wrong.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct IcebergErrorDetail {
    /// What failed, on what, and why.
    pub message: String,
    /// The name by which clients tell errors.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status again.
    pub code: u16,
}

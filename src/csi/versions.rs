//! Which version a volume shows: asked of the catalog's REST interface, as the command line asks it.
//!
//! The driver's own place and token are read anew for each call, so a renewed token is used at once. A
//! token among a volume's secrets takes the place of the driver's, never the other way round.

use std::path::PathBuf;

use anyhow::Context;
use reqwest::Method;
use serde::Deserialize;
use terrace_catalog::Selector;
use terrace_catalog::rest::wire::{NewWarm, WarmJob};
use terrace_csi::data::{Catalog, Failure, Kind, Plan, Version};
use terrace_csi::{Secrets, WarmUp};

use crate::catalog::client::{CatalogClient, CatalogError};
use crate::catalog::place::CatalogArgs;

/// Answers of `GET /resolve`, as far as a volume needs them.
#[derive(Deserialize)]
struct Resolved {
    dataset: String,
    version: u64,
    manifest: String,
    committed_ms: i64,
    files: u64,
    bytes: u64,
}

/// Answers of `GET /datasets/{n}`, as far as a volume needs them.
#[derive(Deserialize)]
struct Described {
    kind: String,
}

/// The catalog of a driver.
#[derive(Debug)]
pub(super) struct Versions {
    args: CatalogArgs,
    run_base: PathBuf,
}

impl Versions {
    /// Asks nobody yet.
    pub(super) fn new(args: CatalogArgs, run_base: PathBuf) -> Self {
        Self { args, run_base }
    }

    fn client(&self, secrets: &Secrets) -> Result<CatalogClient, Failure> {
        let client = || {
            let place = self.args.place(&self.run_base)?;
            let client = match &secrets.token {
                None => place.client(),
                Some(token) => {
                    CatalogClient::new(&place.url, Some(token.as_str()), place.ca_file.as_deref())
                }
            };
            client.context("use the catalog")
        };
        client().map_err(|error| Failure::Unavailable(format!("{error:#}")))
    }
}

#[tonic::async_trait]
impl Catalog for Versions {
    async fn resolve(
        &self,
        selector: &Selector,
        kind: Kind,
        secrets: &Secrets,
    ) -> Result<Version, Failure> {
        let client = self.client(secrets)?;
        let what = |error| failed(&format!("resolve {selector}"), error);
        let query = [("selector", selector.to_string())];
        let found: Resolved = client.get(&["resolve"], &query).await.map_err(what)?;
        if kind == Kind::Model {
            let path = ["datasets", found.dataset.as_str()];
            let described: Described = client.get(&path, &()).await.map_err(what)?;
            if described.kind != "model" {
                return Err(Failure::NotFound(format!(
                    "resolve {selector}: it is a {} and no model; use the parameter dataset",
                    described.kind
                )));
            }
        }
        Ok(Version {
            dataset: found.dataset,
            number: found.version,
            manifest: found.manifest,
            committed_ms: found.committed_ms,
            files: found.files,
            bytes: found.bytes,
        })
    }

    async fn warm(&self, plan: &Plan, secrets: &Secrets) -> Result<(), Failure> {
        let tier = match plan.warm {
            WarmUp::Full => "hot",
            // What is pinned has to be there.
            _ if plan.pin => "hot",
            WarmUp::Metadata => "metadata",
            WarmUp::None => return Ok(()),
        };
        let new = NewWarm {
            selector: plan.version.selector(),
            nodes: None,
            tier: Some(tier.to_owned()),
            pin: plan.pin,
        };
        let client = self.client(secrets)?;
        match client.send_json(Method::POST, &["warm"], &new).await {
            Ok(WarmJob { .. }) => Ok(()),
            // No node shows the version now; those that will go by the volume's context.
            Err(CatalogError::Refused { status: 409, .. }) => Ok(()),
            Err(error) => Err(failed(&format!("warm {}", plan.version.selector()), error)),
        }
    }
}

fn failed(what: &str, error: CatalogError) -> Failure {
    let text = format!("{what}: {error}");
    match error {
        CatalogError::Refused { status, .. } => match status {
            404 => Failure::NotFound(text),
            401 | 403 => Failure::Denied(text),
            // Overloaded, or broken for the moment.
            429 | 500.. => Failure::Unavailable(text),
            _ => Failure::Refused(text),
        },
        CatalogError::Unreachable { .. }
        | CatalogError::Unbelieved { .. }
        | CatalogError::Strange { .. }
        | CatalogError::Address { .. } => Failure::Unavailable(text),
    }
}

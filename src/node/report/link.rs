//! One catalog: report, take what the answer says, pause.
//!
//! ```text
//! pause   usual       `node.report_every`, a fifth more or less, so that nodes do not speak in step
//!         at work     at most AT_WORK: somebody looks at the progress
//!         a job ends  at once, but no two reports within CLOSEST
//!         no answer   doubled each time, up to LONGEST
//! ```
//!
//! The token is that of a mount. When it is refused, the next report is sent with the token of another
//! mount of the same catalog, if there is one.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use terrace_catalog::rest::wire::{NodeReport, ReportAnswer};

use super::Identity;
use super::held::Held;
use super::work::Works;
use crate::catalog::client::{CatalogClient, CatalogError};
use crate::node::assembly::{Mounted, Node};
use crate::node::options::CATALOG_TOKEN;

/// While jobs are worked on, reports are sent at least so often.
const AT_WORK: Duration = Duration::from_secs(1);
/// No two reports within this time.
const CLOSEST: Duration = Duration::from_millis(200);
/// Longest pause after reports that nobody took.
const LONGEST: Duration = Duration::from_secs(60);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(15);

/// Why a report was not taken.
#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("no answer within {ANSWER:?}; see the catalog's log")]
    Late,
}

/// Reports until it is dropped, and with it the jobs that are worked on.
pub(super) async fn run(node: Arc<Node>, catalog: String, identity: Identity) {
    let usual = node.config().node.report_every.0;
    let mut link = Link {
        held: Held::new(Arc::clone(&node), catalog.clone()),
        works: Works::new(Arc::clone(&node), catalog.clone()),
        node,
        catalog,
        identity,
        client: None,
        refused: 0,
    };
    let mut pause = usual;
    loop {
        let reporting = link.node.reporting();
        let at_once = match link.report().await {
            Ok(answer) => {
                link.works.follow(answer.jobs);
                reporting.taken(&link.catalog, link.works.len());
                let most = if link.works.len() > 0 { AT_WORK } else { usual };
                pause = usual.min(most);
                true
            }
            Err(error) => {
                if is_refusal(&error) {
                    link.refused += 1;
                }
                reporting.failed(&link.catalog, error.to_string());
                pause = (pause * 2).clamp(usual, LONGEST.max(usual));
                false
            }
        };
        let pausing = tokio::time::sleep(jittered(pause));
        tokio::select! {
            () = pausing => {}
            // Who has no answer is left alone for the whole pause.
            () = link.works.changed(), if at_once => {
                link.held.expire_warm();
                tokio::time::sleep(CLOSEST).await;
            }
        }
    }
}

/// A fifth more or less.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.8..1.2))
}

fn is_refusal(error: &ReportError) -> bool {
    match error {
        ReportError::Catalog(CatalogError::Refused { status, .. }) => matches!(status, 401 | 403),
        ReportError::Catalog(_) | ReportError::Late => false,
    }
}

struct Link {
    node: Arc<Node>,
    catalog: String,
    identity: Identity,
    held: Held,
    works: Works,
    /// The client, and the token it has.
    client: Option<(Option<String>, CatalogClient)>,
    /// How often a token was refused: which of them is used.
    refused: usize,
}

impl Link {
    async fn report(&mut self) -> Result<ReportAnswer, ReportError> {
        let mounts = mounts_of(&self.node, &self.catalog);
        let report = NodeReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.identity.instance.clone(),
            tiers: self.held.tiers(&mounts),
            mounts: Held::mounts(&mounts),
            datasets: self.held.versions(&mounts).await,
            jobs: self.works.reports(),
        };
        let client = self.client(&mounts)?;
        let path = ["nodes", self.identity.name.as_str(), "report"];
        let asking = client.send_json(Method::POST, &path, &report);
        let answer = tokio::time::timeout(ANSWER, asking).await;
        Ok(answer.map_err(|_| ReportError::Late)??)
    }

    /// A client with the token of a mount; the same one as long as the token is the same, so that its
    /// connection is kept.
    fn client(&mut self, mounts: &[Arc<Mounted>]) -> Result<CatalogClient, CatalogError> {
        let mut tokens: Vec<Option<&String>> = mounts
            .iter()
            .map(|mount| mount.spec.credentials.0.get(CATALOG_TOKEN))
            .collect();
        tokens.sort();
        tokens.dedup();
        let token = match tokens.len() {
            0 => None,
            count => tokens[self.refused % count].cloned(),
        };
        if let Some((own, client)) = &self.client
            && *own == token
        {
            return Ok(client.clone());
        }
        let ca_file = mounts
            .iter()
            .find_map(|mount| mount.options.catalog_ca.as_deref());
        let client = CatalogClient::new(&self.catalog, token.as_deref(), ca_file)?;
        self.client = Some((token, client.clone()));
        Ok(client)
    }
}

/// The mounts that show tables of a catalog.
pub(super) fn mounts_of(node: &Node, catalog: &str) -> Vec<Arc<Mounted>> {
    let mut mounts = node.mounts();
    mounts.retain(|mount| mount.options.catalog.as_deref() == Some(catalog));
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a thousand nodes that were started together would speak at the same moment for ever.
    #[test]
    fn pauses_differ_and_keep_their_length() {
        let pause = Duration::from_secs(5);
        let all: Vec<Duration> = (0..100).map(|_| jittered(pause)).collect();
        assert!(all.iter().any(|one| *one != all[0]));
        let (least, most) = (pause.mul_f64(0.8), pause.mul_f64(1.2));
        assert!(all.iter().all(|one| (least..=most).contains(one)));
    }
}

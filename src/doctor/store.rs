//! Stores: can they be reached and listed with these credentials?

use futures::StreamExt;
use terrace_cache::store::{Store, StoreConfig, StoreError, StoreUrl};

use super::{Check, Subject};

pub(super) fn examine(subject: &Subject) -> Vec<Check> {
    if subject.sources.is_empty() {
        return Vec::new();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return vec![Check::fail(
                "store",
                format!("start a runtime: {error}"),
                "",
            )];
        }
    };
    subject
        .sources
        .iter()
        .map(|source| match runtime.block_on(reach(source, subject)) {
            Ok(found) => Check::ok("store", format!("{source}: {found}")),
            Err(error) => {
                let reason = format!("{} {}: {}", error.operation, error.target, error.reason);
                Check::fail("store", reason, error.kind.hint())
            }
        })
        .collect()
}

/// Opens the store and asks for the first entry of its listing.
async fn reach(source: &str, subject: &Subject) -> Result<String, StoreError> {
    let url: StoreUrl = source.parse()?;
    let store = Store::open(&url, &StoreConfig::default(), &subject.credentials).await?;
    match store.list(url.prefix()).next().await {
        Some(Ok(_)) => Ok("reachable, listing works".to_owned()),
        None => Ok("reachable, nothing there".to_owned()),
        Some(Err(error)) => Err(error),
    }
}

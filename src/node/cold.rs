//! The cold store of a directory volume: opened with the mount's credentials, asked once when the
//! volume is mounted, and the work on it that the volume's policy wants.

use std::path::PathBuf;

use futures::StreamExt;
use terrace_cache::store::{Credentials, Store, StoreError, StoreUrl};
use terrace_fuse::directory::ColdParts;
use terrace_fuse::keeper::{Failure, MountSpec};
use terrace_fuse::live::Opening;

use super::options::ColdOptions;
use super::sources::Sources;

/// Opens the cold store. It is asked only for a mount that no kernel knows yet: a volume whose worker
/// has died is served again also while its store does not answer.
pub(super) async fn open(
    sources: &Sources,
    spec: &MountSpec,
    options: &ColdOptions,
    held: Option<PathBuf>,
    opening: Opening,
) -> Result<ColdParts, Failure> {
    let failed = |error: StoreError| {
        let (what, hint) = (error.operation, error.kind.hint());
        let why = format!("cold store: {what} {}: {}", error.target, error.reason);
        Failure::new(why, hint)
    };
    let url: StoreUrl = options.url.parse().map_err(failed)?;
    let credentials = Credentials::new(spec.credentials.0.clone());
    let config = &sources.config().cache.store;
    let store = Store::open(&url, config, &credentials).await;
    let store = store.map_err(failed)?;
    if opening == Opening::Mount
        && let Some(Err(error)) = store.list(url.prefix()).next().await
        && !error.is_not_found()
    {
        return Err(failed(error));
    }
    let state = sources.state_dir(spec);
    let state =
        state.map_err(|error| Failure::new(format!("{error:#}"), "check the hot directory"))?;
    Ok(ColdParts {
        store,
        policy: options.policy.clone(),
        scratch: state.join("marks"),
        held,
        runtime: sources.runtime().clone(),
        witness: None,
    })
}

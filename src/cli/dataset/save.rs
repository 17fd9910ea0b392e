//! `terrace dataset save`: a directory becomes a version of a model, checked in the cold store.
//!
//! ```text
//! list DIR -> begin (a place) -> write what is not there, four files at a time, digests on the way
//!   -> the list of files beside them -> finish, again and again, until the catalog has read it all back
//! ```
//!
//! The save's id follows from the model and from path, size and time of every file, so the same command
//! again goes on where an interrupted one stopped, and one that was done answers with the same version.
//! A file that changes while it is saved fails the save.

mod local;

use std::collections::HashMap;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use sha2::{Digest as _, Sha256};
use terrace_cache::store::Credentials;
use terrace_cache::units::Count;
use terrace_catalog::rest::wire::{
    FinishSave, NewSave, SaveState, SaveStatus, TagItem, TagRequest, VersionSummary,
};
use terrace_catalog::saves::{SavedFile, print_list};
use terrace_catalog::upstream::{UpFile, Upstream as _};
use terrace_catalog::vault::Vault as _;
use terrace_catalog::{DatasetName, TagName};

use super::super::table::size;
use super::{Output, print_json};
use crate::catalog::StoreVault;
use crate::catalog::client::{CatalogClient, CatalogError};
use local::{Local, Pieces, hex, id_of, list, local};

/// Files that are written at the same time.
const AT_ONCE: usize = 4;
/// Pause between two questions how far the catalog is: first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(
    after_long_help = "The catalog names a place in its cold store; this command writes the files there \
    with its own credentials (AWS_...), and the catalog reads every byte back before the version is \
    there. Interrupted, the same command goes on where it stopped.\n\n\
    Example:\n  terrace dataset save ./checkpoint-9000 team/churn --tag prod"
)]
pub(super) struct SaveArgs {
    /// Directory with the files of the model
    dir: PathBuf,
    /// team/churn, or team.churn
    #[arg(value_parser = model_name)]
    model: DatasetName,
    /// Which of the catalog's places it is written to [default: its first; see terrace catalog serve --cold]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Let this tag name the new version
    #[arg(long, value_name = "TAG")]
    tag: Option<TagName>,
    #[command(flatten)]
    output: Output,
}

/// `team/churn` as Hugging Face writes it, or `team.churn` as everything else here does.
fn model_name(text: &str) -> Result<DatasetName, terrace_catalog::NameError> {
    match text.split_once('/') {
        Some((team, name)) if !text.contains('.') => format!("{team}.{name}").parse(),
        _ => text.parse(),
    }
}

pub(super) async fn save(client: &CatalogClient, args: &SaveArgs) -> Result<()> {
    let directory = args.dir.clone();
    let listed = tokio::task::spawn_blocking(move || list(&directory)).await;
    let files = listed.context("list the directory")??;
    let save = id_of(&args.model, &files);
    let model = args.model.as_str();
    let path = ["models", model, "versions"];
    let new = NewSave {
        save: save.clone(),
        url: args.url.clone(),
    };
    let begun: SaveStatus = client.send_json(Method::POST, &path, &new).await?;
    let version = match begun.version {
        Some(version) => version,
        None => {
            let location = begun.location.context("the catalog names no place")?;
            write_and_finish(client, args, &files, &save, &location, &begun.list_name).await?
        }
    };
    if let Some(tag) = &args.tag {
        let path = ["datasets", model, "tags", tag.as_str()];
        let request = TagRequest {
            version: version.version,
        };
        let _: TagItem = client.send_json(Method::PUT, &path, &request).await?;
    }
    if args.output.json {
        return print_json(&version);
    }
    println!(
        "{} is saved: {}, {}",
        version.selector,
        Count(version.files, "file"),
        size(version.bytes)
    );
    Ok(())
}

async fn write_and_finish(
    client: &CatalogClient,
    args: &SaveArgs,
    files: &[Local],
    save: &str,
    location: &str,
    list_name: &str,
) -> Result<VersionSummary> {
    let credentials = Credentials::new(super::super::credential_environment());
    let place = StoreVault::open(location, &credentials).await;
    let place = Arc::new(place.map_err(anyhow::Error::msg)?);
    let there = found(&place).await?;
    let writer = Writer {
        place,
        there,
        bar: bar("writing", files.iter().map(|file| file.size).sum()),
        skipped: Mutex::default(),
    };
    let list = writer.write(files, list_name, false).await?;
    match finish(client, args, save, &list).await {
        // A file of an earlier attempt that has the size and not the bytes: everything again, once.
        Err(error) if writer.reused() && is_not_met(&error) => {
            let list = writer.write(files, list_name, true).await?;
            finish(client, args, save, &list).await
        }
        done => done,
    }
}

fn is_not_met(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<CatalogError>(),
        Some(CatalogError::Refused { status: 422, .. })
    )
}

/// What an earlier attempt has left, by path.
async fn found(place: &StoreVault) -> Result<HashMap<String, UpFile>> {
    let mut listing = place.walk("");
    let mut found = HashMap::new();
    loop {
        match listing.try_next().await {
            Ok(Some(file)) => drop(found.insert(file.path.to_string(), file)),
            Ok(None) => return Ok(found),
            Err(error) if error.is_not_found() => return Ok(found),
            Err(error) => return Err(error).context("look at what is there"),
        }
    }
}

/// Writes files to their place.
struct Writer {
    place: Arc<StoreVault>,
    there: HashMap<String, UpFile>,
    bar: ProgressBar,
    /// Files that were there already.
    skipped: Mutex<bool>,
}

impl Writer {
    fn reused(&self) -> bool {
        *self.skipped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes files and their list; the list's digest. `all`: also what is there.
    async fn write(&self, files: &[Local], list_name: &str, all: bool) -> Result<String> {
        self.bar.set_position(0);
        let saved: Vec<SavedFile> = stream::iter(files.to_vec())
            .map(|file| self.one(file, all))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        self.bar.finish_and_clear();
        let text = print_list(saved).map_err(anyhow::Error::msg)?;
        let digest = Sha256::digest(&text);
        let digest = hex(&digest);
        let content = stream::once(async move { Ok(Bytes::from(text)) }).boxed();
        let written = self.place.put(list_name, content).await;
        written.context("write the list of files")?;
        Ok(digest)
    }

    /// Writes one file, or only reads it when it is there.
    async fn one(&self, file: Local, all: bool) -> Result<SavedFile> {
        let what = format!("save {}", file.full.display());
        let there = self
            .there
            .get(&file.path)
            .is_some_and(|there| there.size == file.size);
        let pieces = Pieces::open(&file, self.bar.clone()).await;
        let mut pieces = pieces.with_context(|| what.clone())?;
        let hash = Arc::clone(&pieces.hash);
        if there && !all {
            *self.skipped.lock().unwrap_or_else(PoisonError::into_inner) = true;
            while pieces.next().await.with_context(|| what.clone())?.is_some() {}
        } else {
            let content = stream::try_unfold(pieces, |mut pieces| async move {
                let next = pieces.next().await.map_err(local)?;
                Ok(next.map(|piece| (piece, pieces)))
            });
            let written = self.place.put(&file.path, content.boxed()).await;
            written.with_context(|| what.clone())?;
        }
        let now = tokio::fs::metadata(&file.full)
            .await
            .with_context(|| what.clone())?;
        let mtime_ns = i128::from(now.mtime()) * 1_000_000_000 + i128::from(now.mtime_nsec());
        if (now.len(), mtime_ns) != (file.size, file.mtime_ns) {
            bail!("{what}: the file changed; save it again when nobody writes to it");
        }
        let digest = hash
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .finalize();
        Ok(SavedFile {
            path: file.path,
            size: file.size,
            sha256: hex(&digest),
        })
    }
}

/// Asks the catalog to read the save back until it is a version.
async fn finish(
    client: &CatalogClient,
    args: &SaveArgs,
    save: &str,
    list: &str,
) -> Result<VersionSummary> {
    let path = ["models", args.model.as_str(), "versions", save];
    let request = FinishSave {
        list: list.to_owned(),
    };
    let bar = bar("checking", 0);
    let mut pause = FIRST_PAUSE;
    loop {
        let status: SaveStatus = match client.send_json(Method::PUT, &path, &request).await {
            // Busy, or a store that does not answer: the same question again.
            Err(CatalogError::Refused {
                status: 503,
                message,
                ..
            }) => {
                bar.set_message(message);
                tokio::time::sleep(LONGEST_PAUSE).await;
                continue;
            }
            status => status?,
        };
        if let (SaveState::Ready, Some(version)) = (status.state, status.version) {
            bar.finish_and_clear();
            return Ok(version);
        }
        bar.set_length(status.total_bytes.unwrap_or_default());
        bar.set_position(status.checked_bytes.unwrap_or_default());
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A bar on a terminal, nothing elsewhere.
fn bar(what: &'static str, bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{msg} {wide_bar} {bytes}/{total_bytes} {eta}";
    let bar = ProgressBar::new(bytes).with_message(what);
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // Without it the name that users know from Hugging Face would be another model.
    #[test]
    fn both_spellings_are_one_name() {
        assert_eq!(model_name("team/churn").unwrap().as_str(), "team.churn");
        assert_eq!(model_name("team.churn").unwrap().as_str(), "team.churn");
        for bad in ["churn", "a/b/c", "a/b.c", "../x", "team/"] {
            assert!(model_name(bad).is_err(), "{bad:?}");
        }
    }
}

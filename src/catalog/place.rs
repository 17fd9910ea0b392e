//! Where the catalog of a command is, and with which token it is asked.
//!
//! ```text
//! address   --catalog, else TERRACE_CATALOG, else the catalog that `terrace up` runs on this machine
//! token     --token-file, else TERRACE_TOKEN, else, for the catalog of `terrace up`, its own token
//! trust     --ca-file, else TERRACE_CA_FILE, else, for the catalog of `terrace up`, its own certificate,
//!           else the certificates of the machine
//! ```
//!
//! `terrace up` leaves a note in the run directory, `catalog.json`: the address and the path of the
//! token's file, never the token. A note of one that was killed leads to a clear error.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::client::{CatalogClient, CatalogError};

/// The note of `terrace up`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Address of the catalog.
    pub(crate) url: String,
    /// File with its admin token.
    pub(crate) token_file: PathBuf,
    /// Certificates that the catalog's own must come from, if it speaks TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// Flags of every command that asks a catalog.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct CatalogArgs {
    /// Address of the catalog [default: $TERRACE_CATALOG, else that of terrace up on this machine]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) catalog: Option<String>,
    /// File with the token to send [default: $TERRACE_TOKEN, else that of terrace up]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates (PEM) that an https:// catalog's own must come from [default: $TERRACE_CA_FILE, else
    /// those of the machine]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// An address and what to send there. `Debug` does not show the token.
#[derive(Clone)]
pub(crate) struct Place {
    /// Address of the catalog.
    pub(crate) url: String,
    /// The token, if there is one.
    pub(crate) token: Option<String>,
    /// The file it came from, which may be renewed.
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates to trust, if not the machine's.
    pub(crate) ca_file: Option<PathBuf>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Place");
        shown.field("url", &self.url).finish_non_exhaustive()
    }
}

impl CatalogArgs {
    /// Decides address and token; reads files, asks nobody. `run_base` is where notes are.
    pub(crate) fn place(&self, run_base: &Path) -> Result<Place> {
        let named = self.catalog.clone().or_else(|| variable("TERRACE_CATALOG"));
        let note = match &named {
            Some(_) => None,
            None => read_note(run_base)?,
        };
        let Some(url) = named.or_else(|| note.as_ref().map(|note| note.url.clone())) else {
            bail!(
                "no catalog is named; use --catalog URL or TERRACE_CATALOG, or start one with \
                 terrace catalog serve"
            );
        };
        let noted_ca = note.as_ref().and_then(|note| note.ca_file.clone());
        let (token, token_file) = match (&self.token_file, variable("TERRACE_TOKEN"), note) {
            (Some(file), _, _) => (Some(read_token(file)?), Some(file.clone())),
            (None, Some(token), _) => (Some(token), None),
            (None, None, Some(note)) => {
                (Some(read_token(&note.token_file)?), Some(note.token_file))
            }
            (None, None, None) => (None, None),
        };
        let named = self.ca_file.clone();
        let named = named.or_else(|| variable("TERRACE_CA_FILE").map(PathBuf::from));
        let ca_file = named.or(noted_ca);
        Ok(Place {
            url,
            token,
            token_file,
            ca_file,
        })
    }

    /// A client of that place.
    pub(crate) fn client(&self, run_base: &Path) -> Result<CatalogClient> {
        Ok(self.place(run_base)?.client()?)
    }
}

impl Place {
    /// A client of it; sends nothing yet.
    pub(crate) fn client(&self) -> Result<CatalogClient, CatalogError> {
        let (token, ca_file) = (self.token.as_deref(), self.ca_file.as_deref());
        let client = CatalogClient::new(&self.url, token, ca_file)?;
        match (&self.token_file, token) {
            (Some(file), Some(token)) => client.renewing(file.clone(), token),
            _ => Ok(client),
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where the note is.
pub(crate) fn note_path(run_base: &Path) -> PathBuf {
    run_base.join("catalog.json")
}

/// The note, when there is one.
pub(crate) fn read_note(run_base: &Path) -> Result<Option<Note>> {
    let path = note_path(run_base);
    match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        Ok(bytes) => {
            let note = serde_json::from_slice(&bytes);
            note.map(Some)
                .with_context(|| format!("understand {}; try removing it", path.display()))
        }
    }
}

/// Reads the first line of a file with a token.
pub(crate) fn read_token(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("read the token in {}", file.display()))?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.is_empty() {
        bail!("there is no token in {}", file.display());
    }
    Ok(token.to_owned())
}

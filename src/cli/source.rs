//! What SOURCE means on the command line: a store, the tree of all tables, or a version of a table.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use terrace_cache::store::StoreUrl;
use terrace_catalog::Selector;
use terrace_csi::spaces::SpaceName;

use super::volume;
use crate::catalog::place::{CatalogArgs, Place};
use crate::catalog::view::Located;
use crate::control::client;
use crate::node::options::{CATALOG_SOURCE, CATALOG_TOKEN, MountOptions, PinnedVersion};

/// A parsed SOURCE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `s3://bucket/prefix` and the like.
    Store(StoreUrl),
    /// `volume:home/alice`.
    Volume(SpaceName),
    /// `catalog:`.
    Catalog,
    /// `ads.clicks@v12`.
    Version(Selector),
}

impl Source {
    /// Takes a text apart; asks nobody.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if text == CATALOG_SOURCE {
            return Ok(Self::Catalog);
        }
        if let Some(name) = text.strip_prefix(volume::SOURCE) {
            return Ok(Self::Volume(name.parse()?));
        }
        if text.contains("://") {
            return Ok(Self::Store(text.parse()?));
        }
        let selector = text.parse().with_context(|| {
            format!("{text:?} is no source; write a URL, volume:NAME, catalog:, or a selector such as a.b@v3")
        })?;
        Ok(Self::Version(selector))
    }

    /// Completes the options and credentials of a mount: which catalog, and which version.
    ///
    /// Errors: no catalog is named; for a selector also one that does not answer or has no such version.
    pub(crate) fn complete(
        &self,
        catalog: &CatalogArgs,
        run_base: &Path,
        options: &mut MountOptions,
        credentials: &mut BTreeMap<String, String>,
    ) -> Result<()> {
        if matches!(self, Self::Store(_) | Self::Volume(_)) {
            return Ok(());
        }
        let place = catalog.place(run_base)?;
        if let Self::Version(selector) = self {
            options.version = Some(resolve(&place, selector)?);
            // Nothing of a version changes: the longest caching, and `materialize` finds its files.
            options.snapshot = true;
        }
        options.catalog = Some(place.url);
        // The worker does not stay in this command's directory.
        options.catalog_token = place.token_file.map(std::path::absolute).transpose()?;
        options.catalog_ca = place.ca_file.map(std::path::absolute).transpose()?;
        credentials.extend(place.token.map(|token| (CATALOG_TOKEN.to_owned(), token)));
        Ok(())
    }
}

fn resolve(place: &Place, selector: &Selector) -> Result<PinnedVersion> {
    let query = [("selector", selector.to_string())];
    let detail: Located = client::runtime()?.block_on(async {
        let catalog = place.client()?;
        catalog.get(&["resolve"], &query).await
    })?;
    Ok(PinnedVersion {
        dataset: detail.dataset,
        number: detail.version,
        manifest: detail.manifest,
        committed_ms: detail.committed_ms,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // Without it a mistyped URL would be looked up as a table, or a table's name opened as a directory.
    #[test]
    fn each_form_means_one_thing() {
        assert_eq!(Source::parse("catalog:").unwrap(), Source::Catalog);
        let version = Source::parse("ads.clicks@v12").unwrap();
        assert!(
            matches!(version, Source::Version(selector) if selector.to_string() == "ads.clicks@v12")
        );
        assert!(matches!(
            Source::parse("s3://bucket/x").unwrap(),
            Source::Store(_)
        ));
        let home = Source::parse("volume:home/alice").unwrap();
        assert!(matches!(home, Source::Volume(name) if name.to_string() == "home/alice"));
        for bad in [
            "volume:",
            "volume:alice",
            "volume:home/../etc",
            "catalog:ads",
            "catalog://host",
            "/data",
            "ads",
            "s3:/bucket",
            "",
        ] {
            assert!(Source::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}

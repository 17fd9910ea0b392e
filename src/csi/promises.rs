//! What directory volumes promise, judged by the code that keeps it: levels of durability, cold stores, and
//! where contents are.
//!
//! A volume names a store, and whoever mounts it reads and writes there with the node's credentials; so who
//! runs the driver names the stores that volumes may have (`--cold`), and what lies below them, as he does with
//! directories.

use std::fs::File;
use std::path::{Component, Path};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use terrace_cache::store::{Scheme, StoreUrl};
use terrace_csi::data::Promises;
use terrace_csi::{ColdStore, Contents, ContentsError, Standing};
use terrace_fuse::directory::{Durability, OF_ROOTS, RECORDS, TierError, Whereabouts, whereabouts};

use crate::cli::volume::parse_policy;
use crate::node::options::ColdOptions;

/// Stores that volumes may have.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct ColdArgs {
    /// Store that directories may have as their cold store, with everything below it (s3://bucket/prefix); may be
    /// given again [default: no volume has one]
    #[arg(long, value_name = "URL", requires = "directories", value_parser = store)]
    cold: Vec<StoreUrl>,
}

/// Judges what volumes ask for.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    stores: Vec<StoreUrl>,
}

impl ColdArgs {
    /// Who judges by them.
    pub(super) fn judge(&self) -> Judge {
        Judge {
            stores: self.cold.clone(),
        }
    }
}

impl Judge {
    /// The cold store of a mount.
    ///
    /// Errors: one line, with the attribute that it is about.
    pub(super) fn cold(&self, asked: &ColdStore) -> Result<ColdOptions> {
        let url: StoreUrl = asked.url().parse().context("cold")?;
        let allowed = self.stores.iter().any(|store| is_below(&url, store));
        ensure!(
            allowed,
            "cold: {} lies below none of the stores that the driver allows (--cold)",
            asked.url()
        );
        let policy = asked.policy().map(parse_policy).transpose();
        Ok(ColdOptions {
            url: asked.url().to_owned(),
            policy: policy.context("tierPolicy")?,
        })
    }

    /// Rules of durability, with the store that is behind them.
    fn rules(durability: &terrace_csi::Durability, has_cold: bool) -> Result<Durability> {
        let rules = Durability::parse(&durability.rules()).context("durability")?;
        rules.check(has_cold).context("durability")?;
        Ok(rules)
    }
}

impl Promises for Judge {
    fn check(
        &self,
        durability: &terrace_csi::Durability,
        cold: Option<&ColdStore>,
    ) -> Result<(), String> {
        let judged = Self::rules(durability, cold.is_some()).and_then(|_| {
            cold.map(|cold| self.cold(cold)).transpose()?;
            Ok(())
        });
        judged.map_err(|why| format!("{why:#}").replace('\n', "; "))
    }

    fn stages(&self, durability: &terrace_csi::Durability) -> bool {
        // What nobody understands was refused when the volume was made.
        Self::rules(durability, true).is_ok_and(|rules| rules.stages())
    }

    fn contents(&self) -> &dyn Contents {
        &Records
    }
}

/// The records of the daemon, as a copy needs them.
#[derive(Clone, Copy, Debug)]
struct Records;

impl Contents for Records {
    fn look(&self, file: &File) -> Result<Standing, ContentsError> {
        match whereabouts(file) {
            Ok(Whereabouts::Here) => Ok(Standing {
                object: None,
                omitted: RECORDS,
            }),
            Ok(Whereabouts::Away(key)) => Ok(Standing {
                object: Some(key),
                omitted: &[],
            }),
            Err(TierError::Locked) => Err(ContentsError::Moving),
            Err(error) => Err(ContentsError::Refused(error.to_string())),
        }
    }

    fn of_tops(&self) -> &'static [&'static std::ffi::CStr] {
        OF_ROOTS
    }
}

/// A store that contents can go to.
fn store(text: &str) -> Result<StoreUrl> {
    let url: StoreUrl = text.parse()?;
    if matches!(url.scheme(), Scheme::WebHdfs { .. }) {
        bail!("it takes no files; use s3://, hdfs:// or file:///")
    }
    Ok(url)
}

/// Whether a store is another one, or lies below it.
fn is_below(url: &StoreUrl, store: &StoreUrl) -> bool {
    let (path, above) = (Path::new(url.prefix()), Path::new(store.prefix()));
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    (url.scheme(), url.authority()) == (store.scheme(), store.authority())
        && plain
        && path.starts_with(above)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // A volume that names any store would send the node's credentials there, or read the node's own files.
    #[test]
    fn stores_are_those_that_were_allowed() {
        let judge = Judge {
            stores: ["s3://cold/runs", "file:///mnt/cold"]
                .map(|url| store(url).unwrap())
                .into(),
        };
        for (url, good) in [
            ("s3://cold/runs", true),
            ("s3://cold/runs/team", true),
            ("file:///mnt/cold/team", true),
            ("s3://cold", false),
            ("s3://cold/runs-2", false),
            ("s3://other/runs", false),
            ("s3://cold/runs/../models", false),
            ("file:///mnt/cold/../../etc", false),
            ("file:///etc", false),
            ("hdfs://cold/runs", false),
            ("nothing", false),
        ] {
            let allowed = url
                .parse::<StoreUrl>()
                .is_ok_and(|url| judge.stores.iter().any(|store| is_below(&url, store)));
            assert_eq!(allowed, good, "{url}");
        }
        assert!(store("webhdfs://namenode:9870/cold").is_err());
    }
}

//! What a node said, as catalogs write it for each other: JSON that ignores fields it does not know.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::access::Principal;
use crate::kv::{KvError, MAX_VALUE};
use crate::nodes::presence::{Heard, Heat, MAX_VERSIONS, Mounted, Said, TierUse};
use crate::nodes::record::{decode, encode};

/// What a node said.
#[derive(Debug, Serialize, Deserialize)]
struct SaidRecord {
    /// Whose token, and what it may do.
    reporter: String,
    grants: Vec<String>,
    expires_ms: Option<i64>,
    version: String,
    instance: String,
    /// Name, bytes in use, budget.
    tiers: Vec<(String, Option<u64>, Option<u64>)>,
    /// Mount point, dataset, version.
    mounts: Vec<(String, Option<(String, u64)>)>,
    /// Dataset, version, its bytes, those that are hot, those that are warm, whether it is open.
    heat: Vec<(String, u64, u64, u64, Option<u64>, bool)>,
}

/// The bytes of what was heard; the versions it has least of are left out where it would be too large.
pub(super) fn encode_said(heard: &Heard) -> Result<Bytes, KvError> {
    let version = |(dataset, number): &(crate::DatasetName, u64)| (dataset.to_string(), *number);
    let (said, reporter) = (&heard.said, &heard.reporter);
    let tiers = said.tiers.iter();
    let mounts = said.mounts.iter();
    let mut record = SaidRecord {
        reporter: reporter.label().to_owned(),
        grants: reporter.grants().texts(),
        expires_ms: reporter.expires_ms(),
        version: said.version.clone(),
        instance: said.instance.clone(),
        tiers: tiers
            .map(|tier| (tier.name.clone(), tier.used_bytes, tier.limit_bytes))
            .collect(),
        mounts: mounts
            .map(|mount| {
                (
                    mount.mountpoint.clone(),
                    mount.version.as_ref().map(version),
                )
            })
            .collect(),
        heat: said.heat.iter().map(heat_record).collect(),
    };
    loop {
        let bytes = encode(&record)?;
        if bytes.len() <= MAX_VALUE {
            return Ok(bytes);
        }
        record.heat.truncate(record.heat.len() / 2);
        record.mounts.truncate(record.mounts.len().div_ceil(2));
        if record.heat.is_empty() && record.mounts.len() <= 1 {
            record.mounts.clear();
            record.tiers.clear();
        }
    }
}

fn heat_record(heat: &Heat) -> (String, u64, u64, u64, Option<u64>, bool) {
    (
        heat.dataset.to_string(),
        heat.version,
        heat.total_bytes,
        heat.hot_bytes,
        heat.warm_bytes,
        heat.is_open,
    )
}

/// What was heard, from what another catalog wrote.
pub(super) fn decode_said(bytes: &[u8]) -> Result<Heard, KvError> {
    let record: SaidRecord = decode(bytes)?;
    let damaged = |what: &str| KvError::Corrupt(format!("the report of a node: {what}"));
    let reporter = Principal::restored(&record.reporter, &record.grants, record.expires_ms);
    let tiers = record.tiers.into_iter();
    let tiers = tiers.map(|(name, used_bytes, limit_bytes)| TierUse {
        name,
        used_bytes,
        limit_bytes,
    });
    let dataset = |name: &str| name.parse().map_err(|_| damaged("a dataset is none"));
    let mounts = record.mounts.into_iter().map(|(mountpoint, version)| {
        let version = version.map(|(name, number)| Ok::<_, KvError>((dataset(&name)?, number)));
        Ok(Mounted {
            mountpoint,
            version: version.transpose()?,
        })
    });
    let heat = record.heat.iter().take(MAX_VERSIONS).map(
        |(name, version, total_bytes, hot_bytes, warm_bytes, is_open)| {
            Ok(Heat {
                dataset: dataset(name)?,
                version: *version,
                total_bytes: *total_bytes,
                hot_bytes: *hot_bytes,
                warm_bytes: *warm_bytes,
                is_open: *is_open,
            })
        },
    );
    Ok(Heard {
        reporter: reporter.map_err(|error| damaged(&error.to_string()))?,
        said: Said {
            version: record.version,
            instance: record.instance,
            tiers: tiers.collect(),
            mounts: mounts.collect::<Result<_, KvError>>()?,
            heat: heat.collect::<Result<_, KvError>>()?,
        },
    })
}

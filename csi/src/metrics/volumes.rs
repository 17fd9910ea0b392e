//! Volumes of `data.terrace.io`: how many were made, how large they may become, and how many a node has, by kind
//! and by whom they are charged to.
//!
//! Everything is read from the records when the page is asked for, so a restart forgets nothing and nothing is
//! counted twice. Of tenants at most [`TENANTS_MAX`] have rows of their own; their names come from classes and
//! volumes that administrators write, and the rest shares one row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::Page;
use crate::data::node::Staged;
use crate::{RecordError, RecordState, Records, VolumeRecord};

/// Tenants with rows of their own: as many as a node's configuration may name.
const TENANTS_MAX: usize = 256;

/// The row of those above that, and its name is no tenant's.
const OTHERS: &str = "(others)";

type Rows = Family<Row, Gauge<i64, AtomicI64>>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct Row {
    kind: &'static str,
    tenant: String,
}

/// What a row sums up.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    volumes: i64,
    bytes: i64,
}

/// The numbers of one driver; what it counts is said by who puts it together.
#[derive(Debug, Default)]
pub struct VolumeNumbers {
    made: Option<Arc<Records<VolumeRecord>>>,
    staged: Option<Arc<Records<Staged>>>,
}

impl VolumeNumbers {
    /// Counts the volumes that a controller has made.
    pub fn count_made(&mut self, records: &Arc<Records<VolumeRecord>>) {
        self.made = Some(Arc::clone(records));
    }

    /// Counts the volumes that are staged on a node.
    pub fn count_staged(&mut self, records: &Arc<Records<Staged>>) {
        self.staged = Some(Arc::clone(records));
    }

    /// Shows them on a page.
    pub fn show(self, page: &mut Page) {
        if let Some(records) = self.made {
            let (volumes, bytes) = (Rows::default(), Rows::default());
            let registry = page.registry();
            registry.register(
                "csi_volumes",
                "Volumes that were made and not deleted",
                volumes.clone(),
            );
            registry.register(
                "csi_volume_bytes",
                "Sizes of these volumes, together; of directories, their limits",
                bytes.clone(),
            );
            page.before(move || match made(&records) {
                Ok(sums) => {
                    set(&volumes, &sums, |sum| sum.volumes);
                    set(&bytes, &sums, |sum| sum.bytes);
                }
                Err(error) => tracing::warn!(%error, "volumes cannot be counted"),
            });
        }
        if let Some(records) = self.staged {
            let volumes = Rows::default();
            page.registry().register(
                "csi_staged_volumes",
                "Volumes that are staged on this node",
                volumes.clone(),
            );
            page.before(move || match staged(&records) {
                Ok(sums) => set(&volumes, &sums, |sum| sum.volumes),
                Err(error) => tracing::warn!(%error, "staged volumes cannot be counted"),
            });
        }
    }
}

fn made(records: &Records<VolumeRecord>) -> Result<BTreeMap<Row, Sum>, RecordError> {
    let all = records.list()?;
    let ready = all
        .iter()
        .filter(|record| record.state == RecordState::Ready);
    Ok(sums(ready.map(|record| (&record.context, record.size))))
}

fn staged(records: &Records<Staged>) -> Result<BTreeMap<Row, Sum>, RecordError> {
    let all = records.list()?;
    Ok(sums(all.iter().map(|staged| (staged.context(), 0))))
}

/// Sums volumes up by what their contexts say.
fn sums<'a>(
    volumes: impl Iterator<Item = (&'a BTreeMap<String, String>, u64)>,
) -> BTreeMap<Row, Sum> {
    let (mut sums, mut tenants) = (BTreeMap::<Row, Sum>::new(), BTreeSet::new());
    for (context, bytes) in volumes {
        let kind = if context.contains_key("directory") {
            "directory"
        } else {
            "version"
        };
        let mut tenant = context.get("tenant").map_or("", String::as_str);
        if !tenants.contains(tenant) {
            if tenants.len() < TENANTS_MAX {
                tenants.insert(tenant);
            } else {
                tenant = OTHERS;
            }
        }
        let row = Row {
            kind,
            tenant: tenant.to_owned(),
        };
        let sum = sums.entry(row).or_default();
        sum.volumes += 1;
        sum.bytes = sum
            .bytes
            .saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
    sums
}

/// Shows these rows and no others.
fn set(rows: &Rows, sums: &BTreeMap<Row, Sum>, number: impl Fn(&Sum) -> i64) {
    rows.clear();
    for (row, sum) in sums {
        rows.get_or_create(row).set(number(sum));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // A number that is not on the page, or of a volume that is gone, is a bill for nothing.
    #[test]
    fn the_page_counts_what_was_made() {
        let directory = tempfile::tempdir().unwrap();
        let records = Arc::new(Records::open(&directory.path().join("volumes")).unwrap());
        let volume = |id: &str, state| VolumeRecord {
            id: id.parse().unwrap(),
            name: id.to_owned(),
            state,
            size: 1 << 30,
            parameters: BTreeMap::new(),
            mutable: BTreeMap::new(),
            access: Vec::new(),
            source: None,
            context: BTreeMap::from([
                ("directory".to_owned(), "file:///mnt/a".to_owned()),
                ("tenant".to_owned(), "vision".to_owned()),
            ]),
        };
        records.put(&volume("a", RecordState::Ready)).unwrap();
        records.put(&volume("b", RecordState::Deleting)).unwrap();
        let mut numbers = VolumeNumbers::default();
        numbers.count_made(&records);
        let mut page = Page::new(crate::identity::Readiness::default());
        numbers.show(&mut page);
        let row = "{kind=\"directory\",tenant=\"vision\"}";
        let text = page.text().unwrap();
        for line in [
            format!("terrace_csi_volumes{row} 1"),
            format!("terrace_csi_volume_bytes{row} {}", 1_u64 << 30),
        ] {
            assert!(text.contains(&line), "{line} is not in {text}");
        }
        records.remove(&"a".parse().unwrap()).unwrap();
        assert!(!page.text().unwrap().contains(row));
    }

    // A label that anybody may make up is a page that grows without end.
    #[test]
    fn rows_are_by_tenant_and_not_without_end() {
        let context = |tenant: &str| {
            let key = if tenant.is_empty() {
                "version"
            } else {
                "directory"
            };
            let mut context = BTreeMap::from([(key.to_owned(), "x".to_owned())]);
            if !tenant.is_empty() {
                context.insert("tenant".to_owned(), tenant.to_owned());
            }
            context
        };
        let few = [context("a"), context("a"), context("")];
        let found = sums(few.iter().map(|context| (context, 10)));
        let row = |kind, tenant: &str| Row {
            kind,
            tenant: tenant.to_owned(),
        };
        let sum = found.get(&row("directory", "a")).unwrap();
        assert_eq!((sum.volumes, sum.bytes), (2, 20));
        assert_eq!(found.get(&row("version", "")).unwrap().volumes, 1);
        let many: Vec<_> = (0..2 * TENANTS_MAX)
            .map(|number| context(&number.to_string()))
            .collect();
        let found = sums(many.iter().map(|context| (context, 0)));
        assert_eq!(found.len(), TENANTS_MAX + 1);
        assert_eq!(
            found.get(&row("directory", OTHERS)).unwrap().volumes,
            i64::try_from(TENANTS_MAX).unwrap()
        );
    }
}

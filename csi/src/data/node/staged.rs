//! What was promised about one volume on this node: a record, see [`crate::Records`] for its file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tonic::Status;

use crate::capability::{Options, Usage};
use crate::data::{Context, Shown};
use crate::wire::volume_capability::access_mode::Mode;
use crate::{Record, VolumeId};

/// A volume that is staged, or is about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Staged {
    /// The volume.
    id: VolumeId,
    /// What it shows, as a volume's context says it.
    context: BTreeMap<String, String>,
    /// Where.
    path: PathBuf,
    /// Access mode, by its name in the interface.
    access: String,
    /// Group that the files show, or that a directory belongs to.
    group: Option<u32>,
    /// Readahead of the mount in KiB, when it is not the usual one.
    read_ahead_kb: Option<u32>,
    /// It is an inline volume, staged when it was published.
    inline: bool,
    /// Whether a native tree was begun.
    tree: bool,
    /// Where it is published, by target.
    targets: BTreeMap<PathBuf, Published>,
}

/// How a volume is published at one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Published {
    /// Access mode, by its name in the interface.
    access: String,
    /// Whether it was asked for read-only; a version is in any case.
    read_only: bool,
    /// No program may be started from it.
    no_exec: bool,
}

impl Record for Staged {
    const KIND: &'static str = "staged";

    fn id(&self) -> &VolumeId {
        &self.id
    }
}

impl Staged {
    pub(super) fn new(id: VolumeId, shown: &Shown, path: PathBuf, usage: &Usage) -> Self {
        Self {
            id,
            context: shown.context(),
            path,
            access: usage.access.as_str_name().to_owned(),
            group: usage.group,
            read_ahead_kb: usage.options.read_ahead_kb,
            inline: false,
            tree: false,
            targets: BTreeMap::new(),
        }
    }

    /// The same volume, staged for one inline use.
    pub(super) fn inline(mut self) -> Self {
        self.inline = true;
        self
    }

    pub(super) fn id(&self) -> &VolumeId {
        &self.id
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// What it shows, as a volume's context says it.
    pub(crate) fn context(&self) -> &BTreeMap<String, String> {
        &self.context
    }

    pub(super) fn group(&self) -> Option<u32> {
        self.group
    }

    pub(super) fn read_ahead_kb(&self) -> Option<u32> {
        self.read_ahead_kb
    }

    pub(super) fn is_inline(&self) -> bool {
        self.inline
    }

    pub(super) fn has_tree(&self) -> bool {
        self.tree
    }

    pub(super) fn begin_tree(&mut self) {
        self.tree = true;
    }

    pub(super) fn targets(&self) -> &BTreeMap<PathBuf, Published> {
        &self.targets
    }

    pub(super) fn targets_mut(&mut self) -> &mut BTreeMap<PathBuf, Published> {
        &mut self.targets
    }

    /// What it shows.
    pub(super) fn shown(&self) -> Result<Shown, Status> {
        match Context::parse(&self.context.clone().into_iter().collect())? {
            Context::Resolved(shown) => Ok(shown),
            Context::Named(_) => Err(Status::data_loss("the node's record names no version")),
        }
    }

    /// Why the volume cannot be staged like this as well, if it cannot.
    pub(super) fn conflict(&self, path: &PathBuf, usage: &Usage) -> Option<String> {
        if self.path != *path {
            return Some(format!("it is staged at {}", self.path.display()));
        }
        let same = self.access == usage.access.as_str_name() && self.group == usage.group;
        let same = same && self.read_ahead_kb == usage.options.read_ahead_kb;
        (!same).then(|| "it is staged with another capability".to_owned())
    }

    /// Whether the volume may be shown at a target beside those where it is.
    ///
    /// Errors, as the interface has them: ALREADY_EXISTS for the same target in another way,
    /// FAILED_PRECONDITION for another one when one pod only may have it.
    pub(super) fn allows(
        &self,
        target: &PathBuf,
        asked: &Published,
        usage: &Usage,
    ) -> Result<(), Status> {
        match self.targets.get(target) {
            Some(there) if there == asked => return Ok(()),
            Some(_) => {
                return Err(Status::already_exists(
                    "the volume is published there in another way; unpublish it first",
                ));
            }
            None => {}
        }
        let exclusive = Mode::SingleNodeSingleWriter.as_str_name();
        let taken = self.targets.values().any(|there| there.access == exclusive);
        if !self.targets.is_empty() && (taken || !usage.allows_many_targets()) {
            return Err(Status::failed_precondition(
                "the volume is published to another pod of this node, and one only may have it; \
                 delete that pod, or use the access mode ReadOnlyMany",
            ));
        }
        Ok(())
    }
}

impl Published {
    pub(super) fn new(usage: &Usage, read_only: bool) -> Self {
        let Options {
            read_only: ro,
            no_exec,
            ..
        } = usage.options;
        Self {
            access: usage.access.as_str_name().to_owned(),
            read_only: read_only || ro,
            no_exec,
        }
    }

    pub(super) fn no_exec(&self) -> bool {
        self.no_exec
    }

    /// Whether nothing may be written here, also where the volume can be.
    pub(super) fn is_for_reading(&self) -> bool {
        let readers = [Mode::SingleNodeReaderOnly, Mode::MultiNodeReaderOnly];
        self.read_only || readers.iter().any(|mode| mode.as_str_name() == self.access)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use tonic::Code;

    use super::*;
    use crate::data::{Plan, Version};
    use crate::{PublishMode, WarmUp};

    fn usage(access: Mode) -> Usage {
        Usage {
            access,
            group: None,
            options: Options::default(),
        }
    }

    fn staged(usage: &Usage) -> Staged {
        let plan = Plan {
            version: Version {
                dataset: "a.b".into(),
                number: 1,
                manifest: "00".repeat(32),
                committed_ms: 0,
                files: 1,
                bytes: 1,
            },
            mode: PublishMode::Fuse,
            warm: WarmUp::None,
            pin: false,
            tenant: None,
        };
        let shown = Shown::Version(plan);
        Staged::new("v1".parse().unwrap(), &shown, "/stage".into(), usage)
    }

    // The table of second publishes is what ReadWriteOncePod means.
    #[test]
    fn second_publishes_follow_the_table() {
        for (mode, many) in [
            (Mode::SingleNodeWriter, false),
            (Mode::SingleNodeReaderOnly, false),
            (Mode::SingleNodeSingleWriter, false),
            (Mode::SingleNodeMultiWriter, true),
            (Mode::MultiNodeReaderOnly, true),
            (Mode::MultiNodeSingleWriter, true),
            (Mode::MultiNodeMultiWriter, true),
        ] {
            let usage = usage(mode);
            let mut volume = staged(&usage);
            let asked = Published::new(&usage, false);
            let [one, two] = ["/one", "/two"].map(PathBuf::from);
            volume.allows(&one, &asked, &usage).unwrap();
            volume.targets_mut().insert(one.clone(), asked.clone());
            volume.allows(&one, &asked, &usage).unwrap();
            let other = Published::new(&usage, true);
            let refused = volume.allows(&one, &other, &usage).unwrap_err();
            assert_eq!(refused.code(), Code::AlreadyExists, "{mode:?}");
            let second = volume.allows(&two, &asked, &usage);
            assert_eq!(second.is_ok(), many, "{mode:?}");
            if let Err(refused) = second {
                assert_eq!(refused.code(), Code::FailedPrecondition, "{mode:?}");
            }
        }
    }

    // A record of a volume in use is read by the next version of the driver.
    #[test]
    fn a_record_comes_back_and_names_its_version() {
        let volume = staged(&usage(Mode::MultiNodeReaderOnly));
        let text = serde_json::to_string(&volume).unwrap();
        let again: Staged = serde_json::from_str(&text).unwrap();
        assert_eq!(again, volume);
        let Shown::Version(plan) = again.shown().unwrap() else {
            panic!("no version")
        };
        assert_eq!(plan.version.selector(), "a.b@v1");
    }

    // A reader that could write would change what another pod relies on; a writer that could not is no writer.
    #[test]
    fn who_may_only_read_is_known() {
        for (mode, reads) in [
            (Mode::SingleNodeReaderOnly, true),
            (Mode::MultiNodeReaderOnly, true),
            (Mode::SingleNodeWriter, false),
            (Mode::MultiNodeMultiWriter, false),
        ] {
            assert_eq!(
                Published::new(&usage(mode), false).is_for_reading(),
                reads,
                "{mode:?}"
            );
            assert!(Published::new(&usage(mode), true).is_for_reading());
        }
    }
}

//! The spaces of one base directory: make, find, list, limit.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, fchownat};

use super::base::{adopt, directory_of, fill, find, private};
use super::error::SpaceError;
use super::limit::Projects;
use super::name::SpaceName;
use super::record::{Enforcer, SpaceLimits, SpaceRecord, SpaceUsage};
use crate::scratch::ScratchError;
use crate::scratch::locks::{Guard, Locks};
use crate::scratch::tree::{make_directory, remove_tree, rename_durably};
use crate::{RecordState, Records, VolumeId};

/// A space that is asked for.
#[derive(Clone, Debug)]
pub struct NewSpace {
    /// Its name.
    pub name: SpaceName,
    /// User that its top directory belongs to.
    pub uid: u32,
    /// Group that its top directory belongs to.
    pub gid: u32,
    /// What it may take.
    pub limits: SpaceLimits,
    /// Whose budgets its mounts use.
    pub tenant: Option<String>,
    /// Now, in seconds since 1970.
    pub now: u64,
}

/// Fills the directory of a new space, whose id it has.
type Fill<'a> = &'a dyn Fn(&VolumeId, &File) -> Result<(), SpaceError>;

/// The spaces of one base directory. Several processes, on several nodes, may have it open.
#[derive(Debug)]
pub struct Spaces {
    pub(super) base: PathBuf,
    pub(super) records: Records<SpaceRecord>,
    pub(super) usages: Records<SpaceUsage>,
    locks: Locks,
    step: fn(&'static str),
    /// What `base` names, where it is a descriptor's path.
    _held: Option<OwnedFd>,
}

impl Spaces {
    /// Opens a base directory that has spaces already.
    ///
    /// Errors: `Base` when it has none, or is of another version.
    pub fn open(base: &Path) -> Result<Self, SpaceError> {
        Self::at(find(base)?, None)
    }

    /// Opens a base directory and makes it one when it is none.
    pub fn adopt(base: &Path) -> Result<Self, SpaceError> {
        Self::at(adopt(base)?, None)
    }

    /// As [`Spaces::adopt`], of a directory that the caller has found: whatever happens to the names above
    /// it meanwhile, nothing outside of it is made or removed.
    pub fn beneath(directory: OwnedFd) -> Result<Self, SpaceError> {
        let base = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        fill(&base)?;
        Self::at(base, Some(directory))
    }

    fn at(base: PathBuf, held: Option<OwnedFd>) -> Result<Self, SpaceError> {
        let records = private(&base).join("records");
        Ok(Self {
            records: Records::open(&records)?,
            usages: Records::open(&records)?,
            locks: Locks::new(&private(&base)),
            base,
            step: |_| {},
            _held: held,
        })
    }

    /// Calls `step` between any two steps that a kill can come between, with the name of what was
    /// done last. For tests of kills.
    pub fn with_steps(mut self, step: fn(&'static str)) -> Self {
        self.step = step;
        self
    }

    /// Makes a space, or answers the one that was asked for in the same words.
    ///
    /// Errors: `Exists` when the name has another one, or something else lies in its place; `Busy`.
    pub fn create(&self, asked: &NewSpace) -> Result<SpaceRecord, SpaceError> {
        self.create_filled(asked, &|_, _| Ok(()))
    }

    /// As [`Spaces::create`]; what is made is filled before anybody has it.
    pub(super) fn create_filled(
        &self,
        asked: &NewSpace,
        fill: Fill<'_>,
    ) -> Result<SpaceRecord, SpaceError> {
        let id = id_of(&asked.name);
        let _held = self.hold(&asked.name, &id)?;
        match self.records.get(&id)? {
            Some(found) if found.state == RecordState::Making => {
                if let Some(found) = self.finish(found)? {
                    return same(found, asked);
                }
            }
            Some(found) if found.state == RecordState::Ready => return same(found, asked),
            Some(_) => {
                return Err(SpaceError::Exists {
                    name: asked.name.clone(),
                    what: "in the trash; terrace volume restore brings it back, purge removes it"
                        .to_owned(),
                });
            }
            None => {}
        }
        let at = self.place(&asked.name)?;
        if fs::symlink_metadata(&at).is_ok() {
            return Err(SpaceError::Exists {
                name: asked.name.clone(),
                what: format!("as {at:?}, which no volume was made for; move it away"),
            });
        }
        let record = self.make(id, asked, fill)?;
        let record = self.finish(record)?;
        record.ok_or_else(|| SpaceError::NotFound(asked.name.clone()))
    }

    /// A space that was made and not deleted.
    pub fn space(&self, name: &SpaceName) -> Result<SpaceRecord, SpaceError> {
        let found = self.records.get(&id_of(name))?;
        let ready = found.filter(|record| record.state == RecordState::Ready);
        ready.ok_or_else(|| SpaceError::NotFound(name.clone()))
    }

    /// The directory of a space, which is the one that was made for it.
    ///
    /// Errors: `NotFound`, `Exchanged`.
    pub fn directory(&self, name: &SpaceName) -> Result<PathBuf, SpaceError> {
        let record = self.space(name)?;
        let at = self.path(name);
        self.check(&record, &at)?;
        Ok(at)
    }

    /// A space that is mounted already, and its directory wherever that is now: one in the trash goes on
    /// there.
    ///
    /// Errors: `NotFound`, `Exchanged`.
    pub fn locate(&self, name: &SpaceName) -> Result<(SpaceRecord, PathBuf), SpaceError> {
        let found = self.records.get(&id_of(name))?;
        let made = found.filter(|record| record.state != RecordState::Making);
        let record = made.ok_or_else(|| SpaceError::NotFound(name.clone()))?;
        let (at, trash) = (self.path(name), self.trash(&record.id));
        if record.state == RecordState::Deleting && self.check(&record, &trash).is_ok() {
            return Ok((record, trash));
        }
        self.check(&record, &at)?;
        Ok((record, at))
    }

    /// The base directory, as paths in errors name it.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Every space, also those in the trash, by name.
    pub fn list(&self) -> Result<Vec<SpaceRecord>, SpaceError> {
        let mut all = self.records.list()?;
        all.retain(|record| record.state != RecordState::Making);
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Changes what a space may take. Less than it takes already stops its growth and nothing else.
    pub fn set_limits(
        &self,
        name: &SpaceName,
        limits: SpaceLimits,
    ) -> Result<SpaceRecord, SpaceError> {
        let record = self.space(name)?;
        let _held = self.hold(name, &record.id)?;
        let changed = self
            .records
            .update(&record.id, |record| record.limits = limits)?;
        (self.step)("limits: recorded");
        let changed = changed.ok_or_else(|| SpaceError::NotFound(name.clone()))?;
        // Also when it has them: the call before may have ended between the two.
        if let Enforcer::Project(number) = changed.enforcer {
            self.projects_of(name)?.limit(number, limits)?;
        }
        Ok(changed)
    }

    /// What a space takes: now, where its file system counts; else as a node said last.
    pub fn usage(&self, record: &SpaceRecord) -> Result<SpaceUsage, SpaceError> {
        if let Enforcer::Project(number) = record.enforcer {
            return Ok(self.projects_of(&record.name)?.usage(&record.id, number)?);
        }
        let told = self.usages.get(&record.id)?;
        Ok(told.unwrap_or_else(|| SpaceUsage {
            id: record.id.clone(),
            bytes: 0,
            files: 0,
            at: Some(record.created),
        }))
    }

    /// Notes what a space takes, for who begins to serve it and for reports.
    pub fn note_usage(&self, usage: &SpaceUsage) -> Result<(), SpaceError> {
        Ok(self.usages.put(usage)?)
    }

    /// The id of a name.
    pub fn id(name: &SpaceName) -> VolumeId {
        id_of(name)
    }

    /// Where the directory of a space is, or would be.
    pub fn path(&self, name: &SpaceName) -> PathBuf {
        self.base.join(name.kind().directory()).join(name.word())
    }

    pub(super) fn trash(&self, id: &VolumeId) -> PathBuf {
        private(&self.base).join("trash").join(id.hash())
    }

    pub(super) fn making(&self, id: &VolumeId) -> PathBuf {
        private(&self.base).join("making").join(id.hash())
    }

    pub(super) fn hold(&self, name: &SpaceName, id: &VolumeId) -> Result<Guard, SpaceError> {
        let held = self.locks.try_hold(&id.hash())?;
        held.ok_or_else(|| SpaceError::Busy(name.clone()))
    }

    pub(super) fn step(&self, done: &'static str) {
        (self.step)(done);
    }

    /// The project quotas of the base, which a space was made under.
    pub(super) fn projects_of(&self, name: &SpaceName) -> Result<Projects, SpaceError> {
        let projects = Projects::open(&self.base, &private(&self.base))?;
        projects.ok_or_else(|| SpaceError::Base {
            base: self.base.clone(),
            why: format!(
                "it keeps no project quotas now, and did when {name} was made; mount it with -o prjquota"
            ),
        })
    }

    /// Refuses what is not the directory that was made.
    pub(super) fn check(&self, record: &SpaceRecord, at: &Path) -> Result<(), SpaceError> {
        let why = match fs::symlink_metadata(at) {
            Ok(found) if found.is_dir() && found.ino() == record.inode => return Ok(()),
            Ok(_) => "something else lies there; move it away and put the directory back",
            Err(_) => "it is gone, or cannot be looked at; put it back, or delete the volume",
        };
        Err(SpaceError::Exchanged {
            name: record.name.clone(),
            path: at.to_owned(),
            why,
        })
    }

    fn place(&self, name: &SpaceName) -> Result<PathBuf, SpaceError> {
        Ok(directory_of(&self.base, name.kind())?.join(name.word()))
    }

    /// Makes the directory where nobody looks for it, and then the record that knows it.
    fn make(
        &self,
        id: VolumeId,
        asked: &NewSpace,
        fill: Fill<'_>,
    ) -> Result<SpaceRecord, SpaceError> {
        let making = self.making(&id);
        // What a killed call left; it was never recorded.
        remove_tree(&making)?;
        make_directory(&making, 0o700)?;
        (self.step)("create: directory");
        let projects = Projects::open(&self.base, &private(&self.base))?;
        // Who may not limit projects leaves limits to the daemon, which keeps them everywhere.
        let enforcer = match projects.filter(Projects::may_limit) {
            None => Enforcer::Daemon,
            Some(projects) => {
                let number = {
                    let _shared = self.locks.hold_shared()?;
                    projects.number(&id)?
                };
                (self.step)("create: numbered");
                projects.mark(&making, number)?;
                projects.limit(number, asked.limits)?;
                Enforcer::Project(number)
            }
        };
        let (uid, gid) = (Uid::from_raw(asked.uid), Gid::from_raw(asked.gid));
        let mode = Mode::from_bits_truncate(asked.name.kind().mode());
        let directory = File::open(&making).map_err(ScratchError::io("open", &making))?;
        fchownat(
            &directory,
            c"",
            Some(uid),
            Some(gid),
            AtFlags::AT_EMPTY_PATH,
        )
        .and_then(|()| fchmod(&directory, mode))
        .map_err(ScratchError::io("give away", &making))?;
        fill(&id, &directory)?;
        (self.step)("create: filled");
        directory
            .sync_all()
            .map_err(ScratchError::io("sync", &making))?;
        let found = directory
            .metadata()
            .map_err(ScratchError::io("look at", &making))?;
        (self.step)("create: limited");
        let record = SpaceRecord {
            id,
            name: asked.name.clone(),
            state: RecordState::Making,
            uid: asked.uid,
            gid: asked.gid,
            limits: asked.limits,
            enforcer,
            tenant: asked.tenant.clone(),
            inode: found.ino(),
            created: asked.now,
            due: None,
        };
        self.records.put(&record)?;
        (self.step)("create: recorded");
        Ok(record)
    }

    /// Ends what [`Spaces::make`] began; `None` when nothing of it is there any more.
    pub(super) fn finish(&self, record: SpaceRecord) -> Result<Option<SpaceRecord>, SpaceError> {
        let (making, at) = (self.making(&record.id), self.place(&record.name)?);
        if self.check(&record, &at).is_err() {
            if self.check(&record, &making).is_err() {
                self.records.remove(&record.id)?;
                return Ok(None);
            }
            rename_durably(&making, &at)?;
            self.step("create: renamed");
        }
        let ready = self
            .records
            .update(&record.id, |record| record.state = RecordState::Ready)?;
        self.step("create: ready");
        Ok(ready)
    }
}

/// The same request again is answered, another one refused.
fn same(found: SpaceRecord, asked: &NewSpace) -> Result<SpaceRecord, SpaceError> {
    let what = if (found.uid, found.gid) != (asked.uid, asked.gid) {
        "with another owner"
    } else if found.limits != asked.limits {
        "with another quota; terrace volume quota changes it"
    } else if found.tenant != asked.tenant {
        "with another tenant"
    } else {
        return Ok(found);
    };
    Err(SpaceError::Exists {
        name: found.name,
        what: what.to_owned(),
    })
}

fn id_of(name: &SpaceName) -> VolumeId {
    VolumeId::of_name("space", &name.to_string()).expect("a word and hexadecimal digits are an id")
}

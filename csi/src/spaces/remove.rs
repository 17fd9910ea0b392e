//! Deleting a space in two steps that are days apart: into the trash, and away. Volumes of Kubernetes take both
//! at once, from whatever a kill has left of them.

use std::fs;

use super::base::private;
use super::error::SpaceError;
use super::held::forget;
use super::limit::Projects;
use super::name::SpaceName;
use super::record::{Enforcer, SpaceRecord};
use super::store::Spaces;
use crate::RecordState;
use crate::scratch::tree::{remove_tree, rename_durably};

/// What a purge did, or would do.
#[derive(Debug, Default)]
pub struct Purged {
    /// Spaces whose time has come: gone now, or to go.
    pub due: Vec<SpaceRecord>,
    /// What could not be removed, and why; the next purge tries again.
    pub failed: Vec<(SpaceName, SpaceError)>,
}

impl Spaces {
    /// Moves a space into the trash, where it stays until `due` (seconds since 1970). Who has it mounted
    /// goes on working with it there.
    ///
    /// Errors: `NotFound`, `Exchanged`, `Busy`.
    pub fn delete(&self, name: &SpaceName, due: u64) -> Result<SpaceRecord, SpaceError> {
        let id = Self::id(name);
        let _held = self.hold(name, &id)?;
        let found = self.records.get(&id)?;
        let Some(record) = found.filter(|record| record.state != RecordState::Making) else {
            return Err(SpaceError::NotFound(name.clone()));
        };
        let at = self.path(name);
        // One that somebody has removed by hand can be deleted all the same.
        if record.state == RecordState::Ready && fs::symlink_metadata(&at).is_ok() {
            self.check(&record, &at)?;
        }
        let changed = self.records.update(&id, |record| {
            record.state = RecordState::Deleting;
            record.due = Some(due);
        })?;
        self.step("delete: recorded");
        let record = changed.ok_or_else(|| SpaceError::NotFound(name.clone()))?;
        self.to_trash(&record)?;
        self.step("delete: in the trash");
        Ok(record)
    }

    /// Takes a space away from everybody, whatever there is of it, also what was being made and what has no
    /// record (made by a version without limits); its files go with [`Spaces::empty`]. Again is no error.
    ///
    /// Errors: `Exchanged`, `Busy`, those of the file system.
    pub fn withdraw(&self, name: &SpaceName, now: u64) -> Result<(), SpaceError> {
        let id = Self::id(name);
        {
            let _held = self.hold(name, &id)?;
            let found = self.records.get(&id)?;
            let begun = found.filter(|record| record.state == RecordState::Making);
            if let Some(record) = begun {
                self.finish(record)?;
            }
            remove_tree(&self.making(&id))?;
            if self.records.get(&id)?.is_none() {
                forget(&self.base, &id)?;
                return self.without_record(name);
            }
        }
        self.delete(name, now).map(drop)
    }

    fn without_record(&self, name: &SpaceName) -> Result<(), SpaceError> {
        let id = Self::id(name);
        let projects = Projects::open(&self.base, &private(&self.base))?;
        if let Some(projects) = projects.filter(Projects::may_limit) {
            projects.forget(&id)?;
        }
        let (at, trash) = (self.path(name), self.trash(&id));
        if fs::symlink_metadata(&at).is_ok_and(|found| found.is_dir()) {
            // Of an earlier volume of that name, and withdrawn as well.
            remove_tree(&trash)?;
            rename_durably(&at, &trash)?;
        }
        Ok(())
    }

    /// Removes the files, limit and records of a space that was withdrawn, for ever. Again is no error.
    ///
    /// Errors: `Busy`, those of the file system; what can be removed is.
    pub fn empty(&self, name: &SpaceName) -> Result<(), SpaceError> {
        let id = Self::id(name);
        match self.records.get(&id)? {
            Some(record) => self.purge_one(&record, u64::MAX),
            None => Ok(remove_tree(&self.trash(&id))?),
        }
    }

    /// Brings a space back from the trash.
    ///
    /// Errors: `NotFound` when it is not there, `Exists` when something has its place, `Busy`.
    pub fn restore(&self, name: &SpaceName) -> Result<SpaceRecord, SpaceError> {
        let id = Self::id(name);
        let _held = self.hold(name, &id)?;
        let found = self.records.get(&id)?;
        let Some(record) = found.filter(|record| record.state == RecordState::Deleting) else {
            return Err(SpaceError::NotFound(name.clone()));
        };
        let (at, trash) = (self.path(name), self.trash(&id));
        if self.check(&record, &at).is_err() {
            self.check(&record, &trash)?;
            if fs::symlink_metadata(&at).is_ok() {
                return Err(SpaceError::Exists {
                    name: name.clone(),
                    what: format!("as {at:?}, which no volume was made for; move it away"),
                });
            }
            rename_durably(&trash, &at)?;
            self.step("restore: renamed");
        }
        let ready = self.records.update(&id, |record| {
            record.state = RecordState::Ready;
            record.due = None;
        })?;
        ready.ok_or_else(|| SpaceError::NotFound(name.clone()))
    }

    /// Removes the spaces in the trash whose time has come, for ever: their files (no link is followed,
    /// no mount is entered), limits and records. `dry`: only says which.
    pub fn purge(&self, now: u64, dry: bool) -> Result<Purged, SpaceError> {
        let mut purged = Purged::default();
        for record in self.records.list()? {
            let due = record.due.is_some_and(|due| due <= now);
            if record.state != RecordState::Deleting || !due {
                continue;
            }
            let done = if dry {
                Ok(())
            } else {
                self.purge_one(&record, now)
            };
            match done {
                Ok(()) => purged.due.push(record),
                Err(error) => purged.failed.push((record.name, error)),
            }
        }
        Ok(purged)
    }

    fn purge_one(&self, listed: &SpaceRecord, now: u64) -> Result<(), SpaceError> {
        let _held = self.hold(&listed.name, &listed.id)?;
        // It may have been restored before the lock was had.
        let still = |record: &SpaceRecord| {
            record.state == RecordState::Deleting && record.due.is_some_and(|due| due <= now)
        };
        let Some(record) = self.records.get(&listed.id)?.filter(still) else {
            return Ok(());
        };
        self.to_trash(&record)?;
        remove_tree(&self.trash(&record.id))?;
        forget(&self.base, &record.id)?;
        self.step("purge: files");
        if let Enforcer::Project(number) = record.enforcer {
            self.projects_of(&record.name)?
                .release(&record.id, number)?;
            self.step("purge: limit");
        }
        self.usages.remove(&record.id)?;
        self.records.remove(&record.id)?;
        Ok(())
    }

    /// Ends a deletion that was recorded.
    fn to_trash(&self, record: &SpaceRecord) -> Result<(), SpaceError> {
        let at = self.path(&record.name);
        if self.check(record, &at).is_ok() {
            rename_durably(&at, &self.trash(&record.id))?;
        }
        Ok(())
    }
}

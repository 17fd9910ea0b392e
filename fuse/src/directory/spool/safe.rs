//! Making bytes safe on this node, and what is done when they are not: levels, syncs, and setting aside.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::super::durability::Level;
use super::super::sys;
use super::record::Step;
use super::stage::{Fate, Stage, stamp};
use super::{Spool, io_errno, report};

impl Spool {
    /// Brings a file to a level. `fh`: whose call it is.
    ///
    /// Errors: as [`Spool::sync`] and for `shared` those of the directory; `ESTALE` after a change by
    /// another node.
    pub(in super::super) fn reach(
        &self,
        stage: &Arc<Stage>,
        fh: u64,
        level: Level,
        data_only: bool,
    ) -> Result<(), Errno> {
        stage.lock().told(fh)?;
        match level {
            Level::Accepted => Ok(()),
            Level::Local => self.sync(stage, fh, data_only),
            Level::Shared | Level::Cold => self.copy_up(stage, Some(fh)),
        }
    }

    /// Bytes and the way to them are durable on the SSD when this returns. `fh`: whose call it is.
    ///
    /// Errors: those of the SSD, after which the file is set aside; before its first sync also those of
    /// the directory, in which its name has to be durable.
    fn sync(&self, stage: &Arc<Stage>, fh: u64, data_only: bool) -> Result<(), Errno> {
        self.anchor(stage)?;
        let before = stage.stat().ok().map(|stat| stamp(&stat));
        let synced = if data_only {
            stage.file.sync_data()
        } else {
            stage.file.sync_all()
        };
        if let Err(error) = synced {
            // What the kernel could not write is lost from its memory too: never synced by asking again.
            let errno = io_errno(error);
            let why = format!("this node's SSD could not write it: {errno}");
            self.set_aside(stage, errno, &why, Some(fh));
            return Err(errno);
        }
        stage.lock().synced = before;
        self.room.look_at(stage);
        report::count(&self.counters.syncs, 1);
        Ok(())
    }

    /// Makes durable, once for each file, what leads from a name to its bytes.
    pub(in super::super) fn anchor(&self, stage: &Stage) -> Result<(), Errno> {
        {
            let state = stage.lock();
            if state.anchored || state.unlinked {
                return Ok(());
            }
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let below = sys::open_id(self.mount.as_fd(), &stage.file_id, flags)?;
        File::from(below).sync_all().map_err(io_errno)?;
        self.journal.sync().map_err(io_errno)?;
        self.data.sync_all().map_err(io_errno)?;
        stage.lock().anchored = true;
        // For the next worker, whom the directory may refuse; without it this is done once more.
        self.journal.append(stage.id, Step::Anchored).ok();
        Ok(())
    }

    /// Keeps bytes that may not go where they were meant to. When that fails they stay where they are.
    pub(super) fn set_aside(
        &self,
        stage: &Arc<Stage>,
        errno: Errno,
        why: &str,
        teller: Option<u64>,
    ) {
        {
            let mut state = stage.lock();
            if matches!(state.fate, Fate::Aside(_)) {
                return;
            }
            state.fate = Fate::Aside(errno);
            state.fail(errno, why.to_owned(), teller);
        }
        let path = self.data_path(stage.id);
        let kept = self
            .aside
            .keep(&path, stage.id, &stage.name, stage.since, why);
        match kept {
            Ok(place) => {
                let place = place.display();
                tracing::error!(name = stage.name, why, %place, "a staged file is set aside");
                self.journal.append(stage.id, Step::End).ok();
                self.room.give_back(stage);
                self.room.set_aside(self.aside.total().bytes);
            }
            // The next worker finds it staged and comes to the same conclusion.
            Err(error) => {
                tracing::error!(name = stage.name, why, %error, "a staged file cannot be set aside");
            }
        }
    }
}

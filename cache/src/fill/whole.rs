//! Wishes for all of an object: waited for, waited for as long as its bytes take to come, or not at all.

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use super::error::ReadError;
use super::job::{self, Interest};
use super::object::Object;

/// Reads of a failing store ask for the background fill again and again; it is tried this often.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Object {
    /// Fetches the whole object into the hot tier; returns when all of it is there and checked.
    /// Joins a fill that is under way. Dropping the future cancels the fill unless somebody else
    /// waits for it.
    ///
    /// Errors: [`ReadError::NotKept`] when the hot tier has no room for it or fails; the object
    /// can still be read.
    pub async fn fill(&self) -> Result<(), ReadError> {
        if *self.engine.filled.borrow() {
            return Ok(());
        }
        let (interest, outcome) = job::join(&self.engine);
        let result = job::wait(outcome).await;
        drop(interest);
        result
    }

    /// [`Object::fill`], but no longer than `grace` after every byte has arrived: what takes long then
    /// is the hot tier (a sync that has to end before anything can be evicted), and readers need not
    /// wait for that. `false`: they would have, and the fill goes on in the background.
    pub async fn fill_or_arrive(&self, grace: Duration) -> Result<bool, ReadError> {
        if *self.engine.filled.borrow() {
            return Ok(true);
        }
        let (interest, outcome) = job::join(&self.engine);
        let late = async {
            self.engine.arrived().await;
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            biased;
            result = job::wait(outcome) => result.map(|()| true),
            () = late => {
                *self.lock_background() = Some((interest, Instant::now()));
                Ok(false)
            }
        }
    }

    /// Fetches the whole object into the hot tier while anybody holds this object. Does nothing
    /// when that is under way, done, or when the policy did not admit the object. An error is
    /// logged; readers that want the bytes meet it themselves.
    pub fn fill_in_background(&self) {
        if *self.engine.filled.borrow() || self.engine.hot().is_none() || !self.engine.is_kept() {
            return;
        }
        let mut background = self.lock_background();
        if background
            .as_ref()
            .is_some_and(|(_, begun)| begun.elapsed() < AGAIN_AFTER)
        {
            return;
        }
        let (interest, _) = job::join(&self.engine);
        *background = Some((interest, Instant::now()));
    }

    fn lock_background(&self) -> MutexGuard<'_, Option<(Arc<Interest>, Instant)>> {
        self.background
            .lock()
            .expect("no code under this lock can panic")
    }
}

//! Every resident object in memory: 60 bytes each plus a 4-byte slot, 64 or so in all.
//!
//! Entries lie densely in one vector; an open-addressing table of 32-bit slots finds them by the
//! first eight bytes of the digest (which is uniformly distributed already). A removed entry is
//! filled by the last one, so that a scan needs no free list. Holds no name, no path and no
//! checksum: those stay in the index until an object is opened.

use super::record::Marks;
use crate::identity::Digest;

/// Sizes are counted in units of 4 KiB, up to 16 TiB.
const UNIT: u64 = 4096;
const EMPTY: u32 = u32::MAX;

/// What memory knows about one resident object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) digest: Digest,
    charged: u32,
    present: u32,
    pub(super) used_at: u32,
    pub(super) verified_at: u32,
    pub(super) complete: bool,
    /// `used_at` or `verified_at` changed since it was written to the index.
    pub(super) dirty: bool,
}

impl Entry {
    pub(super) fn new(digest: Digest, charged: u64) -> Self {
        Self {
            digest,
            charged: units(charged),
            present: 0,
            used_at: 0,
            verified_at: 0,
            complete: false,
            dirty: false,
        }
    }

    /// Bytes this object counts in the budget, rounded up to 4 KiB.
    pub(super) fn charged(&self) -> u64 {
        u64::from(self.charged) * UNIT
    }

    pub(super) fn set_charged(&mut self, bytes: u64) {
        self.charged = units(bytes);
    }

    /// Bytes of the blocks that are there, rounded up to 4 KiB.
    pub(super) fn present(&self) -> u64 {
        u64::from(self.present) * UNIT
    }

    pub(super) fn set_present(&mut self, bytes: u64) {
        self.present = units(bytes);
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// A map from digest to [`Entry`].
#[derive(Debug)]
pub(super) struct Table {
    entries: Vec<Entry>,
    slots: Vec<u32>,
}

impl Table {
    /// A table of `entries` whose [`Table::slots`] were made before.
    pub(super) fn with_slots(entries: Vec<Entry>, slots: Vec<u32>) -> Self {
        Self { entries, slots }
    }

    /// The slots by which `entries` are found.
    pub(super) fn slots(entries: &[Entry]) -> Vec<u32> {
        let wanted = (entries.len() + 1) * 8 / 7 + 1;
        let mut slots = vec![EMPTY; wanted.next_power_of_two().max(64)];
        for (index, entry) in entries.iter().enumerate() {
            // A digest that occurs twice keeps its first entry only.
            if let Err(slot) = find(entries, &slots, &entry.digest) {
                slots[slot] = index as u32;
            }
        }
        slots
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All entries, in no order.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Takes marks that are not written yet of at most `most` complete entries before the place `left`;
    /// where to go on, 0 at the end. The pass goes from the end, because the last entry takes the place of
    /// one that is removed between two calls: no other entry misses its turn.
    pub(super) fn take_marks(&mut self, left: usize, most: usize) -> (usize, Vec<(Digest, Marks)>) {
        let mut left = left.min(self.entries.len());
        let mut marks = Vec::new();
        while left > 0 && marks.len() < most {
            left -= 1;
            let entry = &mut self.entries[left];
            if entry.dirty && entry.complete {
                entry.dirty = false;
                let own = Marks {
                    used_at: entry.used_at,
                    verified_at: entry.verified_at,
                };
                marks.push((entry.digest, own));
            }
        }
        (left, marks)
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<&Entry> {
        let slot = self.find(digest).ok()?;
        Some(&self.entries[self.slots[slot] as usize])
    }

    pub(super) fn get_mut(&mut self, digest: &Digest) -> Option<&mut Entry> {
        let slot = self.find(digest).ok()?;
        Some(&mut self.entries[self.slots[slot] as usize])
    }

    /// Adds or replaces an entry.
    pub(super) fn insert(&mut self, entry: Entry) {
        if (self.entries.len() + 1) * 8 > self.slots.len() * 7 {
            self.slots = Self::slots(&self.entries);
        }
        match self.find(&entry.digest) {
            Ok(slot) => self.entries[self.slots[slot] as usize] = entry,
            Err(slot) => {
                self.slots[slot] = self.entries.len() as u32;
                self.entries.push(entry);
            }
        }
    }

    pub(super) fn remove(&mut self, digest: &Digest) -> Option<Entry> {
        let slot = self.find(digest).ok()?;
        let index = self.slots[slot];
        self.close_gap(slot);
        let last = self.entries.len() as u32 - 1;
        if index != last {
            let moved = self.find(&self.entries[last as usize].digest);
            let moved = moved.expect("every entry has a slot");
            self.slots[moved] = index;
        }
        Some(self.entries.swap_remove(index as usize))
    }

    /// Empties `slot` and moves back what probed past it, so that no search ends too early.
    fn close_gap(&mut self, mut slot: usize) {
        let mask = self.slots.len() - 1;
        let mut next = slot;
        loop {
            next = (next + 1) & mask;
            let index = self.slots[next];
            if index == EMPTY {
                break;
            }
            let home = home(&self.slots, &self.entries[index as usize].digest);
            let distance = next.wrapping_sub(home) & mask;
            if distance >= (next.wrapping_sub(slot) & mask) {
                self.slots[slot] = index;
                slot = next;
            }
        }
        self.slots[slot] = EMPTY;
    }

    /// The slot of `digest`, or the empty slot where it belongs.
    fn find(&self, digest: &Digest) -> Result<usize, usize> {
        find(&self.entries, &self.slots, digest)
    }
}

fn home(slots: &[u32], digest: &Digest) -> usize {
    digest.word(0) as usize & (slots.len() - 1)
}

fn find(entries: &[Entry], slots: &[u32], digest: &Digest) -> Result<usize, usize> {
    let mut slot = home(slots, digest);
    loop {
        match slots[slot] {
            EMPTY => return Err(slot),
            index if entries[index as usize].digest == *digest => return Ok(slot),
            _ => slot = (slot + 1) & (slots.len() - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    // Without this, an object could vanish from memory, or come back after its eviction.
    #[test]
    fn behaves_like_a_map_under_random_changes() {
        let mut random = SmallRng::seed_from_u64(7);
        let mut table = Table::with_slots(Vec::new(), Table::slots(&[]));
        let mut model: HashMap<Digest, u64> = HashMap::new();
        for step in 0..200_000u64 {
            // Few distinct home slots, so that runs collide and wrap around.
            let mut bytes = [0; 32];
            bytes[0] = random.random_range(0..8u8) * 31;
            bytes[31] = random.random_range(0..64);
            let digest = Digest(bytes);
            if random.random_range(0..5) < 3 {
                table.insert(Entry::new(digest, step * UNIT));
                model.insert(digest, step * UNIT);
            } else {
                let removed = table.remove(&digest).map(|entry| entry.charged());
                assert_eq!(removed, model.remove(&digest), "step {step}");
            }
            assert_eq!(table.len(), model.len());
            assert_eq!(
                table.get(&digest).map(Entry::charged),
                model.get(&digest).copied()
            );
        }
        for (digest, bytes) in &model {
            assert_eq!(table.get(digest).map(Entry::charged), Some(*bytes));
        }
    }

    // An entry that misses its turn loses when it was last used, and is evicted as if nobody had read it.
    #[test]
    fn marks_are_taken_of_each_entry_once() {
        let digest = |number: u8| Digest([number; 32]);
        let mut table = Table::with_slots(Vec::new(), Table::slots(&[]));
        for number in 0..100 {
            let mut entry = Entry::new(digest(number), UNIT);
            (entry.dirty, entry.complete) = (number % 10 != 0, number % 10 != 1);
            entry.used_at = u32::from(number);
            table.insert(entry);
        }
        let mut taken: HashMap<Digest, u32> = HashMap::new();
        let (mut left, mut removed) = (usize::MAX, 0);
        while left > 0 {
            let marks;
            (left, marks) = table.take_marks(left, 7);
            assert!(marks.len() <= 7);
            for (digest, marks) in marks {
                assert_eq!(taken.insert(digest, marks.used_at), None);
            }
            // Those whose turn has not come yet go, and one comes.
            table.remove(&digest(removed));
            removed += 1;
            table.insert(Entry::new(digest(200 + removed), UNIT));
        }
        for number in (removed..100).filter(|number| number % 10 > 1) {
            assert_eq!(taken.get(&digest(number)), Some(&u32::from(number)));
        }
        let untold = taken.iter().filter(|(_, used_at)| **used_at % 10 < 2);
        assert_eq!(untold.count(), 0);
    }

    // Without this, a million objects could take more memory than the daemon is allowed.
    #[test]
    fn an_entry_stays_small() {
        assert!(size_of::<Entry>() <= 52);
    }
}

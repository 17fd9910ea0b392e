//! The open-mode machine of one inode: which replies to OPEN the kernel will take.
//!
//! The kernel's rules, measured on Linux 6.18 (each violation is EIO to the application):
//!
//! | open already            | a new open may be           |
//! | ----------------------- | --------------------------- |
//! | nothing                 | cached, or passthrough      |
//! | cached                  | cached only                 |
//! | passthrough by id A     | passthrough by id A only    |
//!
//! They hold per node id. An inode number has up to 16 node ids ([`super::node`]), so when a file is
//! open in cached mode and its bytes become complete, a LOOKUP can answer a node id of which nothing
//! is open yet. An OPEN cannot choose: it comes on the node id that the kernel has, and follows the
//! table above whatever would be better.
//!
//! The counts are of handles whose RELEASE has not come. The kernel takes a handle off its own count
//! before it sends RELEASE, so a count here is never below the kernel's, and every answer is right
//! for both.
//!
//! An id stays registered after its last handle closed (an open that finds one costs no system call
//! but one fstat), and goes when its object is evicted or others were used later.

use crate::fs::node::INCARNATIONS;
use crate::handles::Mode;

/// A backing id that is registered with the kernel for one node.
#[derive(Debug)]
pub(super) struct Registered<B> {
    /// Kernel's number.
    pub(super) id: u32,
    /// Where the handle table has it.
    pub(super) index: u32,
    /// The file, unless a dead worker registered it.
    pub(super) backing: Option<B>,
    /// When it became idle, in ticks of the idle list; 0 while in use.
    pub(super) idle_since: u64,
}

/// What open handles leave to a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// It must have this mode.
    Only(Mode),
    /// Nothing is open.
    Free,
}

/// What a close changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// Other handles of this mode are open.
    Open,
    /// It was the last cached one of this node.
    LastCached,
    /// It was the last passthrough one of this node.
    LastPassthrough,
    /// No handle of this mode is known: nothing changed.
    Unknown,
}

/// All node ids of one inode number that have handles or a registered id.
#[derive(Debug)]
pub(super) struct Modes<B> {
    nodes: Vec<NodeModes<B>>,
}

#[derive(Debug)]
struct NodeModes<B> {
    incarnation: u8,
    cached: u32,
    passthrough: u32,
    registered: Option<Registered<B>>,
}

impl<B> Default for Modes<B> {
    fn default() -> Self {
        Self { nodes: Vec::new() }
    }
}

impl<B> Modes<B> {
    /// What open handles of this node leave to a new one.
    pub(super) fn rule(&self, incarnation: u8) -> Rule {
        match self.find(incarnation) {
            Some(NodeModes {
                passthrough: 1..,
                registered: Some(registered),
                ..
            }) => Rule::Only(Mode::Passthrough(registered.id)),
            Some(NodeModes { cached: 1.., .. }) => Rule::Only(Mode::Cached),
            _ => Rule::Free,
        }
    }

    /// Counts a handle. A passthrough one needs its id registered first.
    pub(super) fn opened(&mut self, incarnation: u8, mode: Mode) {
        let node = self.find_or_add(incarnation);
        match mode {
            Mode::Cached => node.cached += 1,
            Mode::Passthrough(_) => node.passthrough += 1,
        }
    }

    /// Discounts a handle.
    pub(super) fn closed(&mut self, incarnation: u8, mode: Mode) -> Closed {
        let Some(node) = self.find_mut(incarnation) else {
            return Closed::Unknown;
        };
        let (count, last) = match mode {
            Mode::Cached => (&mut node.cached, Closed::LastCached),
            Mode::Passthrough(_) => (&mut node.passthrough, Closed::LastPassthrough),
        };
        if *count == 0 {
            return Closed::Unknown;
        }
        *count -= 1;
        let closed = if *count == 0 { last } else { Closed::Open };
        self.tidy();
        closed
    }

    /// The id registered for this node.
    pub(super) fn registered(&mut self, incarnation: u8) -> Option<&mut Registered<B>> {
        self.find_mut(incarnation)?.registered.as_mut()
    }

    /// Notes an id. The node must have none.
    pub(super) fn register(&mut self, incarnation: u8, registered: Registered<B>) {
        let node = self.find_or_add(incarnation);
        debug_assert!(node.registered.is_none(), "one id per node");
        node.registered = Some(registered);
    }

    /// Takes the id of a node away, unless a handle uses it.
    pub(super) fn unregister(&mut self, incarnation: u8) -> Option<Registered<B>> {
        let node = self.find_mut(incarnation)?;
        if node.passthrough > 0 {
            return None;
        }
        let registered = node.registered.take();
        self.tidy();
        registered
    }

    /// The incarnation a LOOKUP should answer. `complete`: a passthrough open would succeed.
    ///
    /// In this order: one that is open in passthrough mode, for the others' page cache and speed;
    /// when complete, the first of which nothing is open in cached mode; when not, the first that
    /// is open in cached mode, for its page cache; 0.
    pub(super) fn incarnation(&self, complete: bool) -> u8 {
        let first = |open: fn(&NodeModes<B>) -> bool| {
            self.nodes
                .iter()
                .filter(|node| open(node))
                .map(|node| node.incarnation)
                .min()
        };
        if let Some(shared) = first(|node| node.passthrough > 0) {
            return shared;
        }
        if !complete {
            return first(|node| node.cached > 0).unwrap_or(0);
        }
        (0..INCARNATIONS)
            .find(|candidate| self.find(*candidate).is_none_or(|node| node.cached == 0))
            .unwrap_or(0)
    }

    /// Whether any node is open in cached mode.
    pub(super) fn any_cached(&self) -> bool {
        self.nodes.iter().any(|node| node.cached > 0)
    }

    /// Whether any handle is open.
    pub(super) fn any_open(&self) -> bool {
        self.nodes
            .iter()
            .any(|node| node.cached > 0 || node.passthrough > 0)
    }

    /// Whether there is nothing to remember.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn find(&self, incarnation: u8) -> Option<&NodeModes<B>> {
        self.nodes
            .iter()
            .find(|node| node.incarnation == incarnation)
    }

    fn find_mut(&mut self, incarnation: u8) -> Option<&mut NodeModes<B>> {
        self.nodes
            .iter_mut()
            .find(|node| node.incarnation == incarnation)
    }

    fn find_or_add(&mut self, incarnation: u8) -> &mut NodeModes<B> {
        let at = self
            .nodes
            .iter()
            .position(|node| node.incarnation == incarnation);
        let at = at.unwrap_or_else(|| {
            self.nodes.push(NodeModes {
                incarnation,
                cached: 0,
                passthrough: 0,
                registered: None,
            });
            self.nodes.len() - 1
        });
        &mut self.nodes[at]
    }

    fn tidy(&mut self) {
        self.nodes
            .retain(|node| node.cached > 0 || node.passthrough > 0 || node.registered.is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(id: u32) -> Registered<()> {
        Registered {
            id,
            index: 0,
            backing: Some(()),
            idle_since: 0,
        }
    }

    // Without it an open beside a cached handle would be answered passthrough: EIO.
    #[test]
    fn open_handles_decide_before_anything_else() {
        let mut modes = Modes::default();
        assert_eq!(modes.rule(0), Rule::Free);
        modes.opened(0, Mode::Cached);
        assert_eq!(modes.rule(0), Rule::Only(Mode::Cached));
        assert_eq!(modes.closed(0, Mode::Cached), Closed::LastCached);
        assert!(modes.is_empty());
        modes.register(0, registered(5));
        assert_eq!(modes.rule(0), Rule::Free, "an idle id binds nobody");
        modes.opened(0, Mode::Passthrough(5));
        assert_eq!(modes.rule(0), Rule::Only(Mode::Passthrough(5)));
        assert!(modes.unregister(0).is_none(), "an id in use stays");
        assert_eq!(
            modes.closed(0, Mode::Passthrough(5)),
            Closed::LastPassthrough
        );
        assert_eq!(modes.closed(0, Mode::Passthrough(5)), Closed::Unknown);
        assert!(modes.unregister(0).is_some());
        assert!(modes.is_empty());
    }

    // Without it a file that completed while it was open would stay slow until everybody closed it.
    #[test]
    fn a_complete_file_that_is_open_cached_gets_the_next_incarnation() {
        let mut modes = Modes::default();
        assert_eq!(modes.incarnation(true), 0);
        modes.opened(0, Mode::Cached);
        assert_eq!(modes.incarnation(false), 0);
        assert_eq!(modes.incarnation(true), 1);
        modes.register(1, registered(9));
        modes.opened(1, Mode::Passthrough(9));
        assert_eq!(
            modes.incarnation(false),
            1,
            "others share what is open in passthrough"
        );
        modes.closed(1, Mode::Passthrough(9));
        modes.opened(1, Mode::Cached);
        assert_eq!(modes.incarnation(true), 2, "evicted and completed again");
        modes.closed(0, Mode::Cached);
        assert_eq!(modes.incarnation(true), 0, "the number is free again");
        for incarnation in 0..INCARNATIONS {
            modes.opened(incarnation, Mode::Cached);
        }
        assert_eq!(
            modes.incarnation(true),
            0,
            "none left: cached, but not wrong"
        );
    }
}

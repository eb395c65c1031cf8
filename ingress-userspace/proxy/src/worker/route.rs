//! The rule of one request: an entry of the table that was in force when it began.

use std::{
    cell::{Cell, RefCell},
    ops::Deref,
    rc::Rc,
    sync::Arc,
};

use crate::table::Entry;

/// An entry that a request has, whatever becomes of the table. Counted by the worker alone: the
/// entry's own count would be a cache line that every request of every core writes.
#[derive(Clone, Debug)]
#[expect(
    clippy::redundant_allocation,
    reason = "the count in front is the worker's own"
)]
pub(super) struct Route(Rc<Arc<Entry>>);

impl Deref for Route {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.0
    }
}

/// The entries that this worker has had requests for, by their slots.
#[derive(Debug, Default)]
pub(super) struct Routes {
    slots: RefCell<Vec<Option<Route>>>,
    /// Of the table when retired entries were last looked for.
    retirements: Cell<u64>,
}

impl Routes {
    /// The worker's own count of `entry`.
    pub(super) fn of(&self, entry: &Arc<Entry>) -> Route {
        let mut slots = self.slots.borrow_mut();
        if let Some(Some(route)) = slots.get(entry.slot())
            && Arc::ptr_eq(&route.0, entry)
        {
            return route.clone();
        }
        let route = Route(Rc::new(Arc::clone(entry)));
        if slots.len() <= entry.slot() {
            slots.resize(entry.slot() + 1, None);
        }
        if let Some(slot) = slots.get_mut(entry.slot()) {
            *slot = Some(route.clone());
        }
        route
    }

    /// Lets go of entries that have left the table; requests under way keep theirs.
    /// Looks for them only if `retirements` of the table says that there are any.
    pub(super) fn forget_retired(&self, retirements: u64) {
        if self.retirements.replace(retirements) == retirements {
            return;
        }
        for slot in self.slots.borrow_mut().iter_mut() {
            slot.take_if(|route| route.is_retired());
        }
    }
}

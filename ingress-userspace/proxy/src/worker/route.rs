//! The route of one request: an entry of the table that was in force when it began.

use std::{ops::Deref, rc::Rc, sync::Arc};

use crate::table::{CanonicalHost, CanonicalPath, Entry, RouteTable};

/// The table that a worker has adopted. Counted by the worker alone: the shared count of the table
/// would be a cache line that every request of every core writes.
#[derive(Clone, Debug)]
#[expect(
    clippy::redundant_allocation,
    reason = "the count in front is the worker's own"
)]
pub(super) struct Adopted(Rc<Arc<RouteTable>>);

/// An entry of a table that lives as long as this does.
#[derive(Clone, Debug)]
pub(super) struct Route {
    table: Adopted,
    /// Place of the entry in the table.
    index: usize,
}

impl Adopted {
    pub(super) fn new(table: Arc<RouteTable>) -> Self {
        Self(Rc::new(table))
    }

    /// The route of a request; `None` where 404 is the answer.
    pub(super) fn lookup(
        &self,
        host: &CanonicalHost<'_>,
        path: &CanonicalPath<'_>,
    ) -> Option<Route> {
        let index = self.0.lookup(host, path)?.index();
        Some(Route {
            table: self.clone(),
            index,
        })
    }
}

impl Deref for Route {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        // The index is that of an entry of this very table.
        &self.table.0.entries()[self.index]
    }
}

//! A client's connection, as the phases of a request share it.

use std::{cell::RefCell, rc::Rc};

use crate::{
    net::{Deadline, Inbound},
    worker::{client::Client, drain::Member, state::Worker, stream::Stream},
};

/// One client's connection.
pub(in crate::worker) struct Connection {
    pub(in crate::worker) client: Rc<Client>,
    pub(in crate::worker) stream: Stream,
    pub(in crate::worker) inbound: Inbound,
    pub(in crate::worker) deadline: Deadline,
    pub(in crate::worker) member: Member,
    /// Interim responses that are not sent yet; what is left of them goes before the final one.
    pub(in crate::worker) notice: RefCell<Vec<u8>>,
}

impl Connection {
    pub(super) fn worker(&self) -> &Worker {
        &self.client.worker
    }
}

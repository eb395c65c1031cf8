//! A client's connection, as the phases of a request share it.

use std::rc::Rc;

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
}

impl Connection {
    pub(super) fn worker(&self) -> &Worker {
        &self.client.worker
    }
}

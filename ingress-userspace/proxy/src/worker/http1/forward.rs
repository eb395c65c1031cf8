//! Sends a request to an endpoint and its response to the client.

use std::rc::Rc;

use http::Version;

use super::{
    begun::{Begun, Detour},
    body::ClientBody,
    connection::Connection,
    relay::relay,
    terms::{After, Terms},
};
use crate::{
    http1::{Body, Next},
    net::Deadline,
    worker::{
        phases::{self, Plan},
        record::Record,
    },
};

impl Connection {
    /// Sends the request to an endpoint and its response to the client.
    pub(super) async fn forward(
        &mut self,
        plan: &mut Plan,
        terms: Terms,
        body: &mut Body,
        record: &mut Record,
    ) -> Result<After, Box<Detour>> {
        let client_body = ClientBody {
            stream: &self.stream,
            inbound: &mut self.inbound,
            body: &mut *body,
            deadline: &mut self.deadline,
            notice: &self.client.notice,
            expects_continue: terms.expects_continue,
            takes_interim: terms.version == Version::HTTP_11,
            takes_trailers: plan.trailers,
        };
        let client = Rc::clone(&self.client);
        let forwarded = phases::forward(&client, plan, client_body, record).await;
        let is_ending = self.member.is_ending();
        let mut begun = Begun::new(forwarded, &client, plan, terms, is_ending, record);
        // For a client that takes nothing: that of the connection may be waiting for the endpoint.
        let mut deadline = Deadline::default();
        let relayed = match &mut begun {
            Begun::Response { sender, source, .. } => {
                let (worker, stream) = (&client.worker, &self.stream);
                relay(worker, stream, &mut deadline, sender, source, record).await
            }
            Begun::Switched { .. } | Begun::Failed(_) => Ok(()),
        };
        let keeps = begun.end(relayed, &client.notice)?;
        record.complete();
        let is_read = matches!(body.next(&mut self.inbound), Ok(Next::End));
        Ok(match is_read {
            true if keeps => After::Next,
            true if !terms.keep_alive && self.inbound.is_empty() => After::Done,
            _ => After::Close,
        })
    }
}

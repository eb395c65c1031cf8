//! Goes on where a request has come to something else than a whole response.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    task::Poll,
    time::Duration,
};

use super::{
    begun::Detour,
    connection::Connection,
    source::Nothing,
    terms::{After, Terms},
};
use crate::{
    http1::{Announced, Body, Framing, Next, SendError, Sender},
    net::{Inbound, Outbound, Socket},
    worker::{
        phases::{self, Plan},
        record::Record,
        tunnel,
    },
};

impl Connection {
    /// Goes on where the client has not got a whole response.
    pub(super) async fn detour(
        &mut self,
        detour: Detour,
        plan: &Plan,
        terms: Terms,
        mut body: Body,
        record: &mut Record,
    ) -> io::Result<After> {
        let failure = match detour {
            Detour::Lost(error) => return Err(error),
            Detour::Switched { head, endpoint } => {
                let idle = plan.upstream().policy().read_timeout;
                return self.switch(head, endpoint, idle, record).await;
            }
            Detour::Broken {
                mut sender,
                resets,
                error,
            } => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(upstream = %plan.upstream().backend(), error, "response broke off");
                self.break_off(&mut sender, resets).await;
                return Ok(After::Abort);
            }
            // Nothing has gone out yet: the client may hear what happened.
            Detour::Failed(error) => error,
        };
        record.forget_status();
        let Some(reply) = phases::error(&failure, plan) else {
            return Ok(After::Abort);
        };
        let is_read = matches!(body.next(&mut self.inbound), Ok(Next::End));
        let unread = if is_read {
            Framing::Length(0)
        } else {
            Framing::Close
        };
        self.answer(&reply, terms, unread, record).await
    }

    /// Ends a response that is not whole so that the client can tell. One that ends with its
    /// connection has only a reset for that.
    async fn break_off(&mut self, sender: &mut Sender, ends_with_connection: bool) {
        if ends_with_connection {
            self.stream.reset();
            return;
        }
        let stream = &self.stream;
        poll_fn(|cx| {
            // What waited for more to go along; no matter whether it can be sent now.
            let _ = stream.poll_send(cx, &[IoSlice::new(sender.unsent())]);
            let _ = stream.poll_flush(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Answers 101 and moves bytes until the tunnel ends.
    async fn switch(
        &mut self,
        head: Outbound,
        endpoint: (Socket, Inbound),
        idle: Duration,
        record: &mut Record,
    ) -> io::Result<After> {
        let mut sender = Sender::response(head, Announced::Nothing);
        if let Err(SendError::Socket(error)) = self.relay(&mut sender, &mut Nothing, record).await {
            return Err(error);
        }
        record.complete();
        let from_client = std::mem::take(&mut self.inbound);
        Box::pin(tunnel::run(
            self.worker(),
            (&self.stream, from_client),
            endpoint,
            idle,
        ))
        .await?;
        Ok(After::Abort)
    }
}

//! Sends a message to the client, at the pace at which it takes it.

use std::{
    future::{Future, poll_fn},
    io,
    task::Poll,
};

use super::connection::Connection;
use crate::{
    http1::{SendError, Sender, Source, Step},
    net::{Deadline, Stall},
    worker::{record::Record, state::Worker, stream::Stream},
};

impl Connection {
    /// Sends a message that does not depend on the rest of the connection.
    pub(super) async fn relay<S: Source>(
        &mut self,
        sender: &mut Sender,
        source: &mut S,
        record: &mut Record,
    ) -> Result<(), SendError<S::Error>> {
        relay(
            &self.client.worker,
            &self.stream,
            &mut self.deadline,
            sender,
            source,
            record,
        )
        .await
    }
}

/// Sends a message to the client; fails if the client takes nothing for too long.
pub(super) fn relay<S: Source>(
    worker: &Worker,
    stream: &Stream,
    deadline: &mut Deadline,
    sender: &mut Sender,
    source: &mut S,
    record: &mut Record,
) -> impl Future<Output = Result<(), SendError<S::Error>>> {
    let mut stall = Stall::default();
    poll_fn(move |cx| {
        let mut moved = 0;
        let step = sender.poll(source, &mut moved, cx, |cx, pieces| {
            stream.poll_send(cx, pieces)
        });
        record.sent(moved);
        let blocked = match step {
            Ok(Step::Done) => match stream.poll_flush(cx) {
                Poll::Ready(flushed) => return Poll::Ready(flushed.map_err(SendError::Socket)),
                Poll::Pending => true,
            },
            Ok(Step::Starved) => stream
                .poll_flush(cx)
                .map_err(SendError::Socket)?
                .is_pending(),
            Ok(Step::Blocked) => true,
            Err(error) => return Poll::Ready(Err(error)),
        };
        if !blocked || moved > 0 {
            stall.clear();
        }
        if !blocked {
            return Poll::Pending;
        }
        let limit = worker.settings.write_timeout;
        stall
            .poll(
                || stream.unacknowledged(),
                deadline,
                worker.now(),
                limit,
                cx,
            )
            .map(|()| Err(SendError::Socket(io::ErrorKind::TimedOut.into())))
    })
}

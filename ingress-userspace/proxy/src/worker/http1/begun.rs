//! What a request has come to once its endpoint has answered, or failed.

use std::{cell::RefCell, io, rc::Rc};

use http::Version;

use super::{
    source::Response,
    terms::Terms,
    writer::{Http1Head, end_head},
};
use crate::{
    http1::{Announced, Framing, SendError, Sender},
    net::{Inbound, Outbound, Socket},
    upstream::{ForwardError, RequestBody},
    worker::{
        client::Client,
        phases::{self, Forwarded, Plan},
        record::Record,
    },
};

/// What came of a request that was sent to an endpoint.
#[allow(
    clippy::large_enum_variant,
    reason = "the large one is the one that nearly every request comes to"
)]
pub(super) enum Begun<'w, B> {
    /// A response, of which the head has arrived.
    Response {
        sender: Sender,
        source: Response<'w, B>,
        /// The client's connection stays open afterwards.
        keeps: bool,
        /// The response has no other end than that of the connection.
        ends_with_connection: bool,
        /// How much of what is sent first is interim responses, in bytes.
        noticed: u32,
    },
    /// The endpoint speaks another protocol from here on.
    Switched {
        head: Outbound,
        endpoint: (Socket, Inbound),
    },
    /// No response.
    Failed(ForwardError),
}

/// What takes the place of a whole response.
pub(super) enum Detour {
    /// The head of a 101 is to be sent, and then whatever comes.
    Switched {
        head: Outbound,
        endpoint: (Socket, Inbound),
    },
    /// There is no response, and nothing was sent to the client.
    Failed(ForwardError),
    /// The response broke off in its middle; `resets` is for one that ends with its connection.
    Broken {
        sender: Sender,
        resets: bool,
        error: ForwardError,
    },
    /// The client is gone.
    Lost(io::Error),
}

impl<'w, B: RequestBody> Begun<'w, B> {
    /// Writes the head for the client, behind the interim responses that are left.
    pub(super) fn new(
        forwarded: Result<Forwarded<B>, ForwardError>,
        client: &'w Rc<Client>,
        plan: &Plan,
        terms: Terms,
        is_ending: bool,
        record: &mut Record,
    ) -> Self {
        let forwarded = match forwarded {
            Ok(forwarded) => forwarded,
            Err(error) => return Self::Failed(error),
        };
        let mut out = Outbound::new();
        out.put(&[&client.notice.take()]);
        let noticed = u32::try_from(out.len()).unwrap_or(u32::MAX);
        phases::response(client, plan, &forwarded, record, &mut Http1Head(&mut out));
        let Forwarded { exchange, head } = forwarded;
        if head.status == 101 {
            out.put(&[b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"]);
            return Self::Switched {
                head: out,
                endpoint: exchange.into_tunnel(&head),
            };
        }
        let ends_with_connection = matches!(head.framing, Framing::Chunked | Framing::Close)
            && terms.version == Version::HTTP_10;
        let announced = match head.framing {
            Framing::Length(0) => Announced::Nothing,
            Framing::Length(_) => Announced::Length,
            Framing::Chunked | Framing::Close if ends_with_connection => Announced::Length,
            Framing::Chunked | Framing::Close => {
                out.put(&[b"Transfer-Encoding: chunked\r\n"]);
                Announced::Chunks
            }
        };
        let keeps = terms.keep_alive && !is_ending && !ends_with_connection;
        end_head(&mut out, terms.version, keeps, head.status == 426);
        // Most responses are small and all there: then they go out in one piece, and the endpoint's
        // connection is free before the client has them.
        let now = client.worker.now();
        let (announced, download) = match exchange.gather(&head, now, &mut out) {
            Ok(()) => (Announced::Nothing, None),
            Err(exchange) => (announced, Some(exchange.into_download(&head, now))),
        };
        Self::Response {
            sender: Sender::response(out, announced),
            source: Response {
                worker: &client.worker,
                download,
                takes_trailers: plan.trailers,
            },
            keeps,
            ends_with_connection,
            noticed,
        }
    }

    /// Lets go of the endpoint, and tells whether the client's connection stays open after its
    /// response.
    ///
    /// Interim responses that were to go along with one that failed are put back into `notice`.
    pub(super) fn end(
        self,
        relayed: Result<(), SendError<ForwardError>>,
        notice: &RefCell<Vec<u8>>,
    ) -> Result<bool, Detour> {
        Err(match (self, relayed) {
            (Self::Response { keeps, .. }, Ok(())) => return Ok(keeps),
            (
                Self::Response {
                    sender, noticed, ..
                },
                Err(SendError::Source(error)),
            ) if sender.is_unsent() => {
                let unsent = sender.unsent().get(..noticed as usize);
                notice
                    .borrow_mut()
                    .extend_from_slice(unsent.unwrap_or_default());
                Detour::Failed(error)
            }
            (
                Self::Response {
                    sender,
                    ends_with_connection: resets,
                    ..
                },
                Err(SendError::Source(error)),
            ) => Detour::Broken {
                sender,
                resets,
                error,
            },
            (_, Err(SendError::Socket(error))) => Detour::Lost(error),
            (Self::Switched { head, endpoint }, _) => Detour::Switched { head, endpoint },
            (Self::Failed(error), _) => Detour::Failed(error),
        })
    }
}

//! One case: what is sent, what must come back, and what must have arrived at the endpoint.

use super::{message::Framing, recorder::Reply};

/// A well-formed request that is sent after every bad one: it must be neither answered nor passed
/// on.
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: smuggled\r\n\r\n";

/// What a client does, one after the other.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Send(Vec<u8>),
    /// Byte by byte.
    Drip(Vec<u8>),
    /// Ends the sending side.
    ShutDown,
    /// An answer: `200 body` (`-` is an empty one), `200` with any body, `200 bo cut`, or `closed`
    /// where none comes; alternatives stand between `|`. `HEAD` in front: it answers one.
    Answer(&'static str),
    /// Bytes of a tunnel.
    Raw(&'static str),
    /// Waits until these bytes have reached the endpoint.
    Arrived(&'static str),
    /// Waits until the endpoint has answered so many requests.
    Answered(usize),
}

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It carries another request.
    Open,
    /// The proxy closes it, with nothing more sent.
    Closed,
    /// Either.
    Any,
}

/// What reaches the endpoint, apart from the probe.
#[derive(Clone, Debug)]
pub(super) enum Arrives {
    /// These requests, as `Message` shows them.
    Exactly(Vec<&'static str>),
    /// At most the beginning of this request, never all of it.
    Unfinished(&'static str),
    /// Anything: the case is about the answers.
    Anything,
}

/// One case. Made by [`forward`], [`refuse`], [`answer`] or [`dialogue`], and run by `check`.
#[must_use = "a case does nothing until it is given to `check`"]
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// Where the rule stands: an RFC and its section.
    pub(super) section: &'static str,
    pub(super) steps: Vec<Step>,
    pub(super) end: End,
    pub(super) arrives: Arrives,
    pub(super) replies: Vec<Reply>,
    /// `name: value` lines of the first request that arrived, all values of a name joined by `|`.
    pub(super) has: Vec<&'static str>,
    pub(super) lacks: Vec<&'static str>,
    /// Names in the first request that arrived, letter by letter.
    pub(super) spelled: Vec<&'static str>,
    /// The same three of the last answer.
    pub(super) told: Vec<&'static str>,
    pub(super) untold: Vec<&'static str>,
    pub(super) told_spelled: Vec<&'static str>,
    pub(super) framing: Option<Framing>,
    pub(super) connections: Option<usize>,
}

/// A conversation of several steps.
pub(super) fn dialogue(section: &'static str, steps: impl Into<Vec<Step>>) -> Case {
    Case {
        section,
        steps: steps.into(),
        end: End::Open,
        arrives: Arrives::Anything,
        replies: Vec::new(),
        has: Vec::new(),
        lacks: Vec::new(),
        spelled: Vec::new(),
        told: Vec::new(),
        untold: Vec::new(),
        told_spelled: Vec::new(),
        framing: None,
        connections: None,
    }
}

/// A request that is answered with 200 and arrives as `arrives`.
pub(super) fn forward(
    section: &'static str,
    sends: impl Into<Vec<u8>>,
    arrives: &'static str,
) -> Case {
    dialogue(section, [Step::Send(sends.into()), Step::Answer("200")]).arrives(&[arrives])
}

/// A request that is answered with one of `statuses`, arrives nowhere and ends the connection,
/// whatever follows it.
pub(super) fn refuse(
    section: &'static str,
    statuses: &'static str,
    sends: impl Into<Vec<u8>>,
) -> Case {
    let mut sends = sends.into();
    sends.extend_from_slice(SMUGGLED);
    dialogue(section, [Step::Send(sends), Step::Answer(statuses)])
        .end(End::Closed)
        .arrives(&[])
}

/// A GET to which the endpoint answers `reply`, of which the client gets `answer`.
pub(super) fn answer(
    section: &'static str,
    reply: impl Into<Vec<u8>>,
    answer: &'static str,
) -> Case {
    dialogue(section, [Step::Send(get("")), Step::Answer(answer)]).replies(reply)
}

/// A GET with more header `lines`, each with its line end.
pub(super) fn get(lines: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET /x HTTP/1.1\r\nHost: a\r\n", lines.as_ref(), b"\r\n"].concat()
}

/// A POST with more header `lines`, each with its line end, and a body.
pub(super) fn post(lines: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let head = format!("POST /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    [head.as_bytes(), body.as_ref()].concat()
}

impl Case {
    pub(super) fn end(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    pub(super) fn arrives(mut self, requests: &[&'static str]) -> Self {
        self.arrives = Arrives::Exactly(requests.to_vec());
        self
    }

    /// No more than the beginning of `request` arrives.
    pub(super) fn breaks_off(mut self, request: &'static str) -> Self {
        self.arrives = Arrives::Unfinished(request);
        self
    }

    /// The endpoint answers the next request with `bytes`.
    pub(super) fn replies(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.reply(Reply {
            bytes: Some(bytes.into()),
            ..Reply::default()
        })
    }

    pub(super) fn reply(mut self, reply: Reply) -> Self {
        self.replies.push(reply);
        self
    }

    /// The endpoint ends its connection after the last reply.
    pub(super) fn hangs_up(mut self) -> Self {
        if let Some(reply) = self.replies.last_mut() {
            reply.close = true;
        }
        self
    }

    pub(super) fn has(mut self, lines: &[&'static str]) -> Self {
        self.has.extend_from_slice(lines);
        self
    }

    pub(super) fn lacks(mut self, names: &[&'static str]) -> Self {
        self.lacks.extend_from_slice(names);
        self
    }

    pub(super) fn spelled(mut self, names: &[&'static str]) -> Self {
        self.spelled.extend_from_slice(names);
        self
    }

    pub(super) fn told(mut self, lines: &[&'static str]) -> Self {
        self.told.extend_from_slice(lines);
        self
    }

    pub(super) fn untold(mut self, names: &[&'static str]) -> Self {
        self.untold.extend_from_slice(names);
        self
    }

    pub(super) fn told_spelled(mut self, names: &[&'static str]) -> Self {
        self.told_spelled.extend_from_slice(names);
        self
    }

    /// How the last answer tells its end.
    pub(super) fn framed(mut self, framing: Framing) -> Self {
        self.framing = Some(framing);
        self
    }

    /// How many connections the endpoint sees; one that is reused counts once.
    pub(super) fn connections(mut self, count: usize) -> Self {
        self.connections = Some(count);
        self
    }
}

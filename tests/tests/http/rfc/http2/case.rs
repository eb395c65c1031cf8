//! One case over HTTP/2: the fields and frames of a request, and what must come of them.

use super::super::recorder::Reply;

/// A field as it is sent, good or not.
pub(super) type Field = (Vec<u8>, Vec<u8>);

/// What follows the fields.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// Nothing: the fields end the stream.
    None,
    /// One DATA frame each, the last of which ends the stream.
    Data(&'static [&'static str]),
    /// One DATA frame with so much padding.
    Padded(&'static str, u8),
    /// DATA, then trailers.
    Trailers(&'static str, Vec<Field>),
    /// DATA without an end; then, once it has arrived, RST_STREAM with this code.
    Reset(&'static str, u32),
}

/// What reaches the endpoint, apart from the probe.
#[derive(Clone, Debug)]
pub(super) enum Arrives {
    /// These requests, as `Message` shows them.
    Exactly(Vec<&'static str>),
    /// At most the beginning of this request, never all of it.
    Unfinished(&'static str),
    /// At most this request, all or a part of it.
    AtMost(&'static str),
}

/// One case. Made by [`forward`] or [`refuse`], and run by `check`.
#[must_use = "a case does nothing until it is given to `check`"]
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// Where the rule stands: an RFC and its section.
    pub(super) section: &'static str,
    pub(super) fields: Vec<Field>,
    /// Fields are cut into frames of this size; the later ones are CONTINUATION.
    pub(super) cut: usize,
    pub(super) body: Body,
    /// Statuses, or `reset` for an error of the stream or the connection, between `|`. A status
    /// may be followed by a body.
    pub(super) outcome: &'static str,
    pub(super) arrives: Arrives,
    pub(super) replies: Vec<Reply>,
    /// `name: value` lines of the request that arrived, all values of a name joined by `|`.
    pub(super) has: Vec<&'static str>,
    pub(super) lacks: Vec<&'static str>,
}

/// A request that is answered with 200 and arrives as `arrives`.
pub(super) fn forward(
    section: &'static str,
    fields: impl Into<Vec<Field>>,
    arrives: &'static str,
) -> Case {
    Case {
        section,
        fields: fields.into(),
        cut: usize::MAX,
        body: Body::None,
        outcome: "200",
        arrives: Arrives::Exactly(vec![arrives]),
        replies: Vec::new(),
        has: Vec::new(),
        lacks: Vec::new(),
    }
}

/// A request that is answered with `outcome` and arrives nowhere.
pub(super) fn refuse(
    section: &'static str,
    outcome: &'static str,
    fields: impl Into<Vec<Field>>,
) -> Case {
    Case {
        outcome,
        arrives: Arrives::Exactly(Vec::new()),
        ..forward(section, fields, "")
    }
}

/// Fields as they stand.
pub(super) fn fields<N: AsRef<[u8]>, V: AsRef<[u8]>>(own: &[(N, V)]) -> Vec<Field> {
    let owned = |(name, value): &(N, V)| (name.as_ref().to_vec(), value.as_ref().to_vec());
    own.iter().map(owned).collect()
}

/// A GET with more fields.
pub(super) fn get<N: AsRef<[u8]>, V: AsRef<[u8]>>(more: &[(N, V)]) -> Vec<Field> {
    request("GET", "/x", more)
}

/// A POST with more fields.
pub(super) fn post<N: AsRef<[u8]>, V: AsRef<[u8]>>(more: &[(N, V)]) -> Vec<Field> {
    request("POST", "/x", more)
}

/// A request with more fields.
pub(super) fn request<N: AsRef<[u8]>, V: AsRef<[u8]>>(
    method: &str,
    path: &str,
    more: &[(N, V)],
) -> Vec<Field> {
    let pseudo = [
        (":method", method),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", path),
    ];
    [fields(&pseudo), fields(more)].concat()
}

/// No more fields.
pub(super) const NONE: &[(&str, &str)] = &[];

impl Case {
    pub(super) fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    pub(super) fn cut(mut self, size: usize) -> Self {
        self.cut = size;
        self
    }

    /// No more than the beginning of `request` arrives.
    pub(super) fn breaks_off(mut self, request: &'static str) -> Self {
        self.arrives = Arrives::Unfinished(request);
        self
    }

    /// No more than `request` arrives.
    pub(super) fn arrives_at_most(mut self, request: &'static str) -> Self {
        self.arrives = Arrives::AtMost(request);
        self
    }

    pub(super) fn outcome(mut self, outcome: &'static str) -> Self {
        self.outcome = outcome;
        self
    }

    /// The endpoint answers with `bytes`.
    pub(super) fn replies(mut self, bytes: &str) -> Self {
        self.replies.push(Reply {
            bytes: Some(bytes.into()),
            ..Reply::default()
        });
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
}

//! What is measured: one row per kind of load.

use std::fmt;

use clap::ValueEnum;

/// A kind of load, and with it a unit of cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Row {
    /// HTTP/1.1, kept connections, 90 bytes
    Http1,
    /// HTTP/1.1, kept connections, 16 KiB
    #[value(name = "http1-16k")]
    Http1Middle,
    /// HTTP/1.1, kept connections, 1 MiB
    #[value(name = "http1-1m")]
    Http1Large,
    /// HTTP/1.1, kept connections, 16 KiB in chunks
    #[value(name = "http1-chunked")]
    Http1Chunked,
    /// HTTP/1.1, kept connections, 4 KiB sent and 90 bytes received
    #[value(name = "http1-post")]
    Http1Post,
    /// HTTP/1.1 over TLS 1.3, kept connections, 90 bytes
    Https1,
    /// One request per connection by TLS 1.3, full handshakes
    Handshakes,
    /// One request per connection by TLS 1.3, sessions resumed by ticket
    Resumptions,
    /// HTTP/2 over TLS 1.3, four streams per connection, 90 bytes
    Https2,
    /// WebSocket echoes of 64 bytes, each of them two messages
    Websocket,
    /// HTTP/1.1 to one route for one host
    #[value(name = "routes-1")]
    OneRoute,
    /// HTTP/1.1 to 10,000 routes, each for a host of its own, in turn
    #[value(name = "routes-10k")]
    ManyRoutes,
    /// Memory of kept connections after one request each
    Idle,
    /// Memory of kept TLS connections after one request each
    IdleTls,
}

/// How many hosts a proxy has a route for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Routes {
    One,
    Many,
}

/// What puts a row's load on a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// wrk, to one path.
    Wrk { tls: bool, path: &'static str },
    /// wrk, with a body in each request.
    WrkPost,
    /// wrk, to the hosts in turn.
    WrkHosts,
    /// h2load.
    H2load,
    /// `bench program handshakes`.
    Handshakes { resume: bool },
    /// `bench program websocket`.
    Websocket,
    /// `bench program idle`.
    Idle { tls: bool },
}

/// Names an answer of 90 bytes.
pub(super) const SMALL: &str = "/a/path?of=some&length";

impl Row {
    /// All rows, which is the default.
    pub(crate) const ALL: [Self; 14] = [
        Self::Http1,
        Self::Http1Middle,
        Self::Http1Large,
        Self::Http1Chunked,
        Self::Http1Post,
        Self::Https1,
        Self::Handshakes,
        Self::Resumptions,
        Self::Https2,
        Self::Websocket,
        Self::OneRoute,
        Self::ManyRoutes,
        Self::Idle,
        Self::IdleTls,
    ];

    /// What its costs are given in.
    pub(super) fn unit(self) -> &'static str {
        match self.load() {
            Load::Handshakes { .. } => "CPU µs/connection",
            Load::Websocket => "CPU µs/message",
            Load::Idle { .. } => "KiB/connection",
            Load::Wrk { .. } | Load::WrkPost | Load::WrkHosts | Load::H2load => "CPU µs/request",
        }
    }

    pub(super) fn load(self) -> Load {
        let wrk = |path| Load::Wrk { tls: false, path };
        match self {
            Self::Http1 => wrk(SMALL),
            Self::Http1Middle => wrk("/16k"),
            Self::Http1Large => wrk("/1m"),
            Self::Http1Chunked => wrk("/chunked"),
            Self::Http1Post => Load::WrkPost,
            Self::Https1 => Load::Wrk {
                tls: true,
                path: SMALL,
            },
            Self::Handshakes => Load::Handshakes { resume: false },
            Self::Resumptions => Load::Handshakes { resume: true },
            Self::Https2 => Load::H2load,
            Self::Websocket => Load::Websocket,
            Self::OneRoute | Self::ManyRoutes => Load::WrkHosts,
            Self::Idle => Load::Idle { tls: false },
            Self::IdleTls => Load::Idle { tls: true },
        }
    }

    pub(super) fn routes(self) -> Routes {
        match self {
            Self::ManyRoutes => Routes::Many,
            _ => Routes::One,
        }
    }

    /// Whether it must be measured on a proxy that has done nothing before: what a load leaves
    /// behind would be used again.
    pub(super) fn wants_fresh_proxy(self) -> bool {
        matches!(self.load(), Load::Idle { .. })
    }

    /// Whether a loop that only copies bytes can carry it. It holds no memory worth a ratio, and
    /// nobody's keys.
    pub(super) fn can_be_copied(self) -> bool {
        match self.load() {
            Load::Wrk { tls, .. } => !tls,
            Load::WrkPost | Load::WrkHosts | Load::Websocket => true,
            Load::H2load | Load::Handshakes { .. } | Load::Idle { .. } => false,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}

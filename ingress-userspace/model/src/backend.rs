//! A Service port that routes refer to.

use std::fmt;

use super::{Endpoint, ObjectName};

/// A Service port as an Ingress references it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServicePort {
    /// `port.number`.
    Number(u16),
    /// `port.name`.
    Name(Box<str>),
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The target of a route: a Service in the Ingress's namespace, and one of its ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendKey {
    /// The Service.
    pub service: ObjectName,
    /// Its port.
    pub port: ServicePort,
}

impl fmt::Display for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
}

/// A Service port and the endpoints that accept requests now.
///
/// No endpoints is a valid state: requests get 503.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The key that routes use.
    pub key: BackendKey,
    /// Sorted by address, without duplicates. The ready ones; if there are none, those that are
    /// terminating but still serving (KEP-1669).
    pub endpoints: Vec<Endpoint>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_as_namespace_service_and_port() {
        for (port, text) in [
            (ServicePort::Number(80), "shop/web:80"),
            (ServicePort::Name("http".into()), "shop/web:http"),
        ] {
            let service = ObjectName::new("shop", "web");
            assert_eq!(BackendKey { service, port }.to_string(), text);
        }
    }
}

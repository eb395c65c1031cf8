//! A Service port that routes refer to.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ObjectName;

/// A Service port as an Ingress references it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

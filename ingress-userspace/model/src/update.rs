//! What the agent tells the proxy: a whole state, or what changed since one.

use std::sync::Arc;

use super::{BackendKey, Certificate, Endpoint, HostPattern, HostRules, ObjectName};

/// One step from one complete state to the next; never a part of one.
///
/// `None` as a value means that the key is gone. A key occurs at most once per list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Number of the state after it. Counts from 1 in each agent.
    pub epoch: u64,
    /// Number of the state that it changes; `None` for a whole state, which replaces everything.
    pub base: Option<u64>,
    /// Endpoints by backend, sorted by address, without duplicates.
    pub endpoints: Vec<(BackendKey, Option<Arc<[Endpoint]>>)>,
    /// Certificates by Secret.
    pub certificates: Vec<(ObjectName, Option<Arc<Certificate>>)>,
    /// Rules by host.
    pub hosts: Vec<(HostPattern, Option<Arc<HostRules>>)>,
}

impl Update {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.base.is_some()
            && self.endpoints.is_empty()
            && self.certificates.is_empty()
            && self.hosts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::ServicePort, *};

    #[test]
    fn an_update_is_empty_only_where_nothing_of_any_kind_differs_from_its_base() {
        let nothing = Update {
            base: Some(1),
            ..Update::default()
        };
        assert!(nothing.is_empty());
        let service = ObjectName::new("shop", "web");
        let port = ServicePort::Number(80);
        for update in [
            // A whole state with nothing in it takes everything away.
            Update::default(),
            Update {
                endpoints: vec![(BackendKey { service, port }, None)],
                ..nothing.clone()
            },
            Update {
                certificates: vec![(ObjectName::new("shop", "tls"), None)],
                ..nothing.clone()
            },
            Update {
                hosts: vec![(HostPattern::Any, None)],
                ..nothing
            },
        ] {
            assert!(!update.is_empty(), "{update:?}");
        }
    }
}

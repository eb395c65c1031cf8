//! What an agent says about its node: a Lease for each node, with the rest in an annotation.

use std::net::Ipv4Addr;

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::api::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::nodes::is_of_a_host;

/// Leases of nodes have this label, and its value.
pub(super) const LABEL: (&str, &str) = ("forebay.dev/lease", "node");
/// Where the report stands.
const ANNOTATION: &str = "forebay.dev/report";
/// Version of the header between the outer and the inner packet that this build reads and writes.
const ENCAPSULATION: u8 = 1;

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It is to be listed, so that it can begin; it serves nothing yet.
    Joining,
    /// Its workers listen: it may own connections.
    Active,
    /// It is to get no new connections; those that it has go on.
    Draining,
}

/// What an agent says about its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Where other nodes reach it.
    pub address: Ipv4Addr,
    /// How it is.
    pub state: NodeState,
    /// The set of nodes that it steers by; zero for none.
    pub epoch: u64,
    /// Tells its hash seed from others: eight hexadecimal digits.
    pub seed: String,
    /// The header that it reads and writes between outer and inner packets.
    pub encapsulation: u8,
}

/// A Lease that says nothing of a node.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReportError {
    /// It was not made by an agent.
    #[error("it has no annotation {ANNOTATION}")]
    Missing,
    /// The annotation is not what an agent writes.
    #[error("annotation {ANNOTATION}: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Nobody has such an address.
    #[error("annotation {ANNOTATION}: address: no node has {0}")]
    Address(Ipv4Addr),
    /// It is not named.
    #[error("spec.holderIdentity names no node")]
    Nobody,
    /// Two would speak for one node, and an old one would have it seem alive.
    #[error("spec.holderIdentity: the Lease of {0} has another name")]
    Another(String),
}

impl Report {
    /// Of a node that is to be listed.
    pub fn new(address: Ipv4Addr, seed: u64) -> Self {
        Self {
            address,
            state: NodeState::Joining,
            epoch: 0,
            seed: fingerprint(seed),
            encapsulation: ENCAPSULATION,
        }
    }

    /// Whether packets may go to it in the header of this build.
    pub(super) fn is_understood(&self) -> bool {
        self.encapsulation == ENCAPSULATION
    }

    /// As the Lease of the node, held by `holder`: the node's name, a slash, and what tells this process
    /// from another on the same node.
    pub(super) fn lease(&self, node: &str, holder: &str, seconds: i32) -> Lease {
        let report = serde_json::to_string(self).unwrap_or_default();
        Lease {
            metadata: ObjectMeta {
                name: Some(lease_name(node)),
                labels: Some([(LABEL.0.to_owned(), LABEL.1.to_owned())].into()),
                annotations: Some([(ANNOTATION.to_owned(), report)].into()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: Some(seconds),
                renew_time: Some(MicroTime(Timestamp::now())),
                ..LeaseSpec::default()
            }),
        }
    }

    /// The node that a Lease is of, and what it says.
    ///
    /// # Errors
    /// [`ReportError`], which names the field.
    pub(super) fn read(lease: &Lease) -> Result<(String, Self), ReportError> {
        let holder = holder(lease).ok_or(ReportError::Nobody)?;
        let node = holder.split('/').next().filter(|node| !node.is_empty());
        let node = node.ok_or(ReportError::Nobody)?.to_owned();
        if lease.metadata.name.as_ref() != Some(&lease_name(&node)) {
            return Err(ReportError::Another(node));
        }
        let annotations = lease.metadata.annotations.as_ref();
        let text = annotations.and_then(|annotations| annotations.get(ANNOTATION));
        let report: Self = serde_json::from_str(text.ok_or(ReportError::Missing)?)?;
        if !is_of_a_host(report.address) {
            return Err(ReportError::Address(report.address));
        }
        Ok((node, report))
    }
}

/// The name of a node's Lease.
pub(super) fn lease_name(node: &str) -> String {
    format!("forebay-node-{node}")
}

/// Who holds a Lease.
pub(super) fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref()
}

/// Tells two seeds apart, and neither from the text: eight hexadecimal digits of SHA-256.
fn fingerprint(seed: u64) -> String {
    let digest = digest(&SHA256, &seed.to_be_bytes());
    let bytes = digest.as_ref().iter().take(4);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(annotation: &str, holder: &str) -> Lease {
        let report = Report::new(Ipv4Addr::new(198, 18, 0, 11), 7);
        let mut lease = report.lease("n1", holder, 15);
        let annotations = lease.metadata.annotations.as_mut().unwrap();
        annotations.insert(ANNOTATION.to_owned(), annotation.to_owned());
        lease
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let report = Report {
            state: NodeState::Active,
            epoch: 12,
            ..Report::new(Ipv4Addr::new(198, 18, 0, 11), 7)
        };
        let lease = report.lease("n1", "n1/a", 15);
        assert_eq!(Report::read(&lease).unwrap(), ("n1".to_owned(), report));
    }

    #[test]
    fn a_lease_that_says_nothing_of_a_node_is_refused_by_the_field() {
        let good =
            r#"{"address":"198.18.0.11","state":"active","epoch":1,"seed":"","encapsulation":1}"#;
        assert!(Report::read(&lease(good, "n1/a")).is_ok());
        for (annotation, holder, said) in [
            (good, "/a", "holderIdentity"),
            (good, "", "holderIdentity"),
            ("", "n1", "report: EOF"),
            (r#"{"address":"198.18.0.11","state":"odd"}"#, "n1", "odd"),
            (
                &*good.replace("198.18.0.11", "0.0.0.0"),
                "n1",
                "no node has 0.0.0.0",
            ),
            (
                &*good.replace("198.18.0.11", "127.0.0.1"),
                "n1",
                "no node has 127",
            ),
        ] {
            let error = Report::read(&lease(annotation, holder)).unwrap_err();
            assert!(error.to_string().contains(said), "{annotation}: {error}");
        }
        let error = Report::read(&lease(good, "n2/a")).unwrap_err().to_string();
        assert!(
            error.contains("the Lease of n2 has another name"),
            "{error}"
        );
        let mut bare = lease(good, "n1");
        bare.metadata.annotations = None;
        assert!(Report::read(&bare).is_err());
    }

    #[test]
    fn what_a_later_version_adds_is_no_fault() {
        let more = r#"{"address":"198.18.0.11","state":"active","epoch":1,"seed":"","encapsulation":1,"zone":"a"}"#;
        assert!(Report::read(&lease(more, "n1")).is_ok());
    }

    #[test]
    fn seeds_have_fingerprints_of_their_own() {
        assert_eq!(fingerprint(7), fingerprint(7));
        assert_ne!(fingerprint(7), fingerprint(8));
        assert_eq!(fingerprint(7).len(), 8);
    }
}

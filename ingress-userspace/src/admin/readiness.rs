//! Whether this process wants connections, and why not. Written by `run`, shown by every answer.

/// Whether this process wants connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// No table is in force yet.
    #[default]
    Starting,
    /// A whole table is in force and workers accept.
    Ready,
    /// It serves ordinary sockets, but not the virtual IPs that it was asked for: the reason. A
    /// rollout must stop here rather than take the virtual IPs from node after node.
    Refused(String),
    /// It was told to end.
    ShuttingDown,
}

impl Readiness {
    /// What a readiness probe asks.
    pub(crate) fn is_ready(&self) -> bool {
        *self == Self::Ready
    }

    /// Why it is not ready, in one line.
    pub(crate) fn reason(&self) -> Option<String> {
        match self {
            Self::Ready => None,
            Self::Starting => Some("no table is in force yet: its source has not answered".into()),
            // The verifier explains itself on many lines; `/status` has them all.
            Self::Refused(reason) => Some(format!(
                "cannot serve the virtual IPs: {}",
                reason.lines().next().unwrap_or_default()
            )),
            Self::ShuttingDown => Some("shutting down".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line() {
        let refused = Readiness::Refused("load steer: refused. Verifier: 0: R1\n1: R2\n".into());
        assert_eq!(
            refused.reason().as_deref(),
            Some("cannot serve the virtual IPs: load steer: refused. Verifier: 0: R1")
        );
        assert!(!refused.is_ready());
    }
}

//! Who wins what two Ingresses claim.

use std::cmp::Reverse;

use super::ObjectName;

/// Precedence if two Ingresses claim the same thing; the lowest wins.
///
/// Older by creation time; on a tie the greater `namespace/name`, as ingress-nginx has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seniority {
    created: i64,
    name: Reverse<ObjectName>,
}

impl Seniority {
    /// Seniority of the Ingress `name`, created at this many seconds since the Unix epoch.
    pub fn new(created: i64, name: ObjectName) -> Self {
        Self {
            created,
            name: Reverse(name),
        }
    }

    /// The namespace of the Ingress.
    pub fn namespace(&self) -> &str {
        &self.name.0.namespace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_goes_first_and_on_a_tie_the_greater_name() {
        let seniority = |created, namespace: &str, name: &str| {
            Seniority::new(created, ObjectName::new(namespace, name))
        };
        for (first, second) in [
            (seniority(1, "a", "a"), seniority(2, "z", "z")),
            (seniority(1, "a", "b"), seniority(1, "a", "a")),
            (seniority(1, "b", "a"), seniority(1, "a", "b")),
        ] {
            assert!(first < second, "{first:?} {second:?}");
        }
    }

    #[test]
    fn it_tells_the_namespace_that_claims() {
        let seniority = Seniority::new(1, ObjectName::new("shop", "web"));
        assert_eq!(seniority.namespace(), "shop");
    }
}

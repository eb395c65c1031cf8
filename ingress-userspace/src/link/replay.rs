//! A whole state and the changes upon it, made one: what a proxy starts from comes into force at once.

use std::{collections::BTreeMap, sync::Arc};

use ingress_model::{
    BackendKey, Certificate, Endpoint, HostPattern, HostRules, ObjectName, Update,
};

/// The state after the updates so far. Each update costs what it changes.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Number of the state; `None` before the first.
    epoch: Option<u64>,
    endpoints: BTreeMap<BackendKey, Arc<[Endpoint]>>,
    certificates: BTreeMap<ObjectName, Arc<Certificate>>,
    hosts: BTreeMap<HostPattern, Arc<HostRules>>,
}

/// An update that changes another state than the one that is there.
#[derive(Debug, thiserror::Error)]
#[error("a change of state {base} comes after state {}", .epoch.map_or("none".to_owned(), |epoch| epoch.to_string()))]
pub(super) struct Gap {
    base: u64,
    epoch: Option<u64>,
}

impl Replay {
    /// The state after one more update.
    ///
    /// # Errors
    /// The update changes another state; this one stays.
    pub(super) fn apply(&mut self, update: Update) -> Result<(), Gap> {
        match update.base {
            None => *self = Self::default(),
            Some(base) if self.epoch != Some(base) => {
                return Err(Gap {
                    base,
                    epoch: self.epoch,
                });
            }
            Some(_) => {}
        }
        self.epoch = Some(update.epoch);
        set(&mut self.endpoints, update.endpoints);
        set(&mut self.certificates, update.certificates);
        set(&mut self.hosts, update.hosts);
        Ok(())
    }

    /// The state as one update; `None` if there was none.
    pub(super) fn whole(self) -> Option<Update> {
        Some(Update {
            epoch: self.epoch?,
            base: None,
            endpoints: all(self.endpoints),
            certificates: all(self.certificates),
            hosts: all(self.hosts),
        })
    }
}

fn set<K: Ord, V>(state: &mut BTreeMap<K, V>, changes: Vec<(K, Option<V>)>) {
    for (key, value) in changes {
        match value {
            Some(value) => state.insert(key, value),
            None => state.remove(&key),
        };
    }
}

fn all<K, V>(state: BTreeMap<K, V>) -> Vec<(K, Option<V>)> {
    let entries = state.into_iter();
    entries.map(|(key, value)| (key, Some(value))).collect()
}

#[cfg(test)]
mod tests {
    use ingress_model::ServicePort;

    use super::*;

    /// Backends that come, and ones that go.
    fn update(epoch: u64, base: Option<u64>, come: &[&str], go: &[&str]) -> Update {
        let key = |name: &&str| BackendKey {
            service: ObjectName::new("shop", *name),
            port: ServicePort::Number(80),
        };
        let come = come.iter().map(|name| (key(name), Some([].into())));
        Update {
            epoch,
            base,
            endpoints: come
                .chain(go.iter().map(|name| (key(name), None)))
                .collect(),
            ..Update::default()
        }
    }

    #[test]
    fn changes_make_a_whole_state_of_a_whole_state() {
        let mut replay = Replay::default();
        replay.apply(update(7, None, &["b", "c"], &[])).unwrap();
        replay.apply(update(8, Some(7), &["a"], &["c"])).unwrap();
        let whole = replay.whole().unwrap();
        assert_eq!(whole, update(8, None, &["a", "b"], &[]));
    }

    #[test]
    fn a_whole_state_replaces_what_was_there() {
        let mut replay = Replay::default();
        replay.apply(update(7, None, &["b"], &[])).unwrap();
        replay.apply(update(1, None, &["a"], &[])).unwrap();
        assert_eq!(replay.whole().unwrap(), update(1, None, &["a"], &[]));
    }

    #[test]
    fn a_change_of_another_state_changes_nothing() {
        let mut replay = Replay::default();
        replay.apply(update(8, Some(7), &["a"], &[])).unwrap_err();
        assert!(Replay::default().whole().is_none());
        replay.apply(update(7, None, &["b"], &[])).unwrap();
        replay
            .apply(update(9, Some(8), &["a"], &["b"]))
            .unwrap_err();
        assert_eq!(replay.whole().unwrap(), update(7, None, &["b"], &[]));
    }
}

//! Which nodes own connections, now and around a change of the set: the order in which a bucket's nodes
//! are tried.
//!
//! Nodes learn of a change one after the other, and a packet may enter by any of them. So a change has
//! two steps, each of which every node must have taken before the next one:
//!
//! | step | who gets new connections | where others are looked for |
//! |---|---|---|
//! | settled | the current owner | there |
//! | prepare | the current owner | there, then at the next one |
//! | commit | the next owner, which is current from now on | there, then at the one before |
//! | expire | the current owner | there |
//!
//! While some nodes have prepared and others have committed, new connections are made at either owner,
//! and each node finds both. Without the first step, a node that has not heard of the change would look
//! only at the old one. GitHub's GLB Director looks at two such hops of each bucket.

use std::collections::BTreeSet;

/// Ids of nodes.
pub type Nodes = BTreeSet<u16>;

/// How many sets before the current one are known: with the current and the next one there are as
/// many as a bucket has hops.
pub const EARLIER: usize = 2;

/// The sets of nodes that own connections, in the order in which their owners are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    current: Nodes,
    next: Option<Nodes>,
    /// The latest one first; at most [`EARLIER`].
    earlier: Vec<Nodes>,
}

/// A step that cannot be taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// A change is under way already.
    #[error("the change that is under way must be committed first")]
    Unfinished,
    /// Connections of as many earlier sets are kept as there is room for.
    #[error("the oldest of the earlier sets must expire first")]
    NoRoom,
    /// No change was prepared.
    #[error("no change was prepared")]
    Unprepared,
}

impl Owners {
    /// A set without a history.
    pub fn of(current: impl IntoIterator<Item = u16>) -> Self {
        Self {
            current: current.into_iter().collect(),
            ..Self::default()
        }
    }

    /// A set with its history, as it was published.
    ///
    /// # Errors
    ///
    /// [`StepError::NoRoom`] where there are more sets than a bucket has hops.
    pub fn restore(
        current: Nodes,
        next: Option<Nodes>,
        earlier: Vec<Nodes>,
    ) -> Result<Self, StepError> {
        if earlier.len() + usize::from(next.is_some()) > EARLIER {
            return Err(StepError::NoRoom);
        }
        Ok(Self {
            current,
            next,
            earlier,
        })
    }

    /// Who owns new connections.
    pub fn current(&self) -> &Nodes {
        &self.current
    }

    /// Who is to own them next.
    pub fn next(&self) -> Option<&Nodes> {
        self.next.as_ref()
    }

    /// Who owned them before, the latest first.
    pub fn earlier(&self) -> &[Nodes] {
        &self.earlier
    }

    /// All sets, in the order in which a bucket's nodes are tried.
    pub fn sets(&self) -> impl Iterator<Item = &Nodes> {
        [&self.current]
            .into_iter()
            .chain(&self.next)
            .chain(&self.earlier)
    }

    /// Announces the set that is to follow.
    ///
    /// # Errors
    ///
    /// [`StepError::Unfinished`], [`StepError::NoRoom`].
    pub fn prepare(&self, next: Nodes) -> Result<Self, StepError> {
        if self.next.is_some() {
            return Err(StepError::Unfinished);
        }
        if self.earlier.len() >= EARLIER {
            return Err(StepError::NoRoom);
        }
        Ok(Self {
            next: Some(next),
            ..self.clone()
        })
    }

    /// Gives new connections to the set that was announced.
    ///
    /// # Errors
    ///
    /// [`StepError::Unprepared`].
    pub fn commit(&self) -> Result<Self, StepError> {
        let current = self.next.clone().ok_or(StepError::Unprepared)?;
        let mut earlier = vec![self.current.clone()];
        earlier.extend(self.earlier.iter().cloned());
        Ok(Self {
            current,
            next: None,
            earlier,
        })
    }

    /// Takes back what was announced: nobody has made connections by it.
    #[must_use]
    pub fn cancel(&self) -> Self {
        Self {
            next: None,
            ..self.clone()
        }
    }

    /// Forgets the oldest of the earlier sets: what connections its nodes still have are cut when
    /// their next packet enters elsewhere.
    #[must_use]
    pub fn expire(&self) -> Self {
        let mut after = self.clone();
        after.earlier.pop();
        after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes<const N: usize>(ids: [u16; N]) -> Nodes {
        ids.into()
    }

    #[test]
    fn a_change_is_prepared_committed_and_expires() {
        let settled = Owners::of([1, 2]);
        assert_eq!(settled.commit(), Err(StepError::Unprepared));
        let prepared = settled.prepare(nodes([1, 2, 3])).unwrap();
        assert_eq!(prepared.prepare(nodes([1])), Err(StepError::Unfinished));
        let order: Vec<_> = prepared.sets().cloned().collect();
        assert_eq!(order, [nodes([1, 2]), nodes([1, 2, 3])]);
        assert_eq!(prepared.cancel(), settled);
        let committed = prepared.commit().unwrap();
        assert_eq!(committed.current(), &nodes([1, 2, 3]));
        let order: Vec<_> = committed.sets().cloned().collect();
        assert_eq!(order, [nodes([1, 2, 3]), nodes([1, 2])]);
        assert_eq!(committed.expire(), Owners::of([1, 2, 3]));
        assert_eq!(settled.expire(), settled);
    }

    #[test]
    fn no_more_sets_are_tried_than_a_bucket_has_hops() {
        let mut owners = Owners::of([1]);
        for next in [2, 3] {
            owners = owners.prepare(nodes([next])).unwrap().commit().unwrap();
            assert!(owners.sets().count() <= 3);
        }
        assert_eq!(owners.prepare(nodes([4])), Err(StepError::NoRoom));
        let earlier = owners.earlier().to_vec();
        let restored = Owners::restore(nodes([3]), None, earlier.clone());
        assert_eq!(restored.as_ref(), Ok(&owners));
        let too_many = Owners::restore(nodes([3]), Some(nodes([4])), earlier);
        assert_eq!(too_many, Err(StepError::NoRoom));
        let after = owners.expire().prepare(nodes([4])).unwrap();
        let order: Vec<_> = after.sets().cloned().collect();
        assert_eq!(order, [nodes([3]), nodes([4]), nodes([2])]);
    }
}

//! How many lines of the log problems may take; `book` writes them.
//!
//! Tenants make problems as fast as they like: an edit in a loop, or ten thousand Ingresses that claim one
//! path, must leave the log readable for what others have to say.

use std::{collections::BTreeMap, time::Duration};

use ingress_model::Severity;
use tokio::time::Instant;

/// Lines of one kind that may come at once.
pub(super) const BURST: u32 = 10;
/// After this long, one more may.
const REFILL: Duration = Duration::from_secs(60);
/// How long lines are left out before it is said how many.
const SUMMARY: Duration = Duration::from_secs(60);
/// All kinds are gone through for spare ones at most this often.
const SWEEP: Duration = Duration::from_secs(1);
/// Kinds that are counted apart. Further ones share the lines of all namespaces together.
const MOST: usize = 4096;

/// What lines have in common that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    /// Of the object; empty where it has none.
    pub(super) namespace: Box<str>,
    /// What the problem depends on.
    pub(super) topic: &'static str,
    pub(super) severity: Severity,
    /// The field, without numbers and keys.
    pub(super) field: Box<str>,
    /// The problem is gone.
    pub(super) is_resolved: bool,
}

/// The lines that each kind may still take.
#[derive(Debug, Default)]
pub(super) struct Quota {
    buckets: BTreeMap<Kind, Bucket>,
    /// The first time at which a bucket is due.
    due: Option<Instant>,
    /// When spare buckets were last looked for.
    swept: Option<Instant>,
    /// How often, to show what a line costs.
    #[cfg(test)]
    sweeps: usize,
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    refilled: Instant,
    left_out: u64,
    /// When it is to be said how many were left out.
    due: Option<Instant>,
}

impl Bucket {
    fn full(now: Instant) -> Self {
        Self {
            tokens: BURST,
            refilled: now,
            left_out: 0,
            due: None,
        }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled).as_secs() / REFILL.as_secs();
        let more = u32::try_from(passed).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(more).min(BURST);
        self.refilled += REFILL.saturating_mul(more);
    }

    /// Nothing would differ if it were forgotten.
    fn is_spare(&self) -> bool {
        self.tokens == BURST && self.left_out == 0
    }
}

impl Quota {
    /// Tells whether a line of that kind may be written; the first of its kind may.
    pub(super) fn take(&mut self, mut kind: Kind, now: Instant) -> bool {
        if !self.buckets.contains_key(&kind) && self.buckets.len() >= MOST {
            self.sweep(now);
            if self.buckets.len() >= MOST {
                kind.namespace = Box::default();
            }
        }
        let bucket = self
            .buckets
            .entry(kind)
            .or_insert_with(|| Bucket::full(now));
        bucket.refill(now);
        if bucket.tokens > 0 {
            bucket.tokens -= 1;
            return true;
        }
        bucket.left_out += 1;
        let due = *bucket.due.get_or_insert(now + SUMMARY);
        self.due = Some(self.due.map_or(due, |first| first.min(due)));
        false
    }

    /// Forgets spare buckets. Not for each line: at the start of a large cluster there are thousands, and none is.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now < swept + SWEEP) {
            return;
        }
        self.swept = Some(now);
        #[cfg(test)]
        {
            self.sweeps += 1;
        }
        self.buckets.retain(|_, bucket| {
            bucket.refill(now);
            !bucket.is_spare()
        });
    }

    /// When [`take_left_out`](Self::take_left_out) has something to say next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// How many lines were left out, of each kind for which it is time to say so.
    pub(super) fn take_left_out(&mut self, now: Instant) -> Vec<(Kind, u64)> {
        let mut left_out = Vec::new();
        for (kind, bucket) in &mut self.buckets {
            if bucket.due.is_some_and(|due| due <= now) {
                bucket.due = None;
                left_out.push((kind.clone(), std::mem::take(&mut bucket.left_out)));
            }
        }
        let due = self.buckets.values().filter_map(|bucket| bucket.due);
        self.due = due.min();
        left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(namespace: &str) -> Kind {
        Kind {
            namespace: namespace.into(),
            topic: "host",
            severity: Severity::Warning,
            field: "spec.rules".into(),
            is_resolved: false,
        }
    }

    #[test]
    fn each_kind_and_namespace_has_lines_of_its_own_and_gets_them_back() {
        let mut quota = Quota::default();
        let now = Instant::now();
        let mut taken = |of: &Kind, times: usize, now| {
            let taken = (0..times).filter(|_| quota.take(of.clone(), now));
            u32::try_from(taken.count()).unwrap()
        };
        assert_eq!(taken(&kind("loud"), 1000, now), BURST);
        assert_eq!(taken(&kind("quiet"), 1, now), 1);
        let resolved = Kind {
            is_resolved: true,
            ..kind("loud")
        };
        assert_eq!(taken(&resolved, 1, now), 1);
        assert_eq!(taken(&kind("loud"), 1000, now + 2 * REFILL), 2);
        let days = Duration::from_secs(2 * 24 * 3600);
        assert_eq!(taken(&kind("loud"), 1000, now + days), BURST);
    }

    #[test]
    fn what_was_left_out_is_counted_once() {
        let mut quota = Quota::default();
        let now = Instant::now();
        for _ in 0..BURST {
            quota.take(kind("a"), now);
        }
        assert_eq!(quota.due(), None);
        for _ in 0..7 {
            quota.take(kind("a"), now);
        }
        assert_eq!(quota.take_left_out(now), []);
        let due = quota.due().unwrap();
        assert_eq!(quota.take_left_out(due), [(kind("a"), 7)]);
        assert_eq!((quota.take_left_out(due), quota.due()), (Vec::new(), None));
    }

    #[test]
    fn thousands_of_namespaces_take_no_more_memory_than_there_is() {
        let mut quota = Quota::default();
        let now = Instant::now();
        for number in 0..3 * MOST {
            quota.take(kind(&number.to_string()), now);
        }
        assert_eq!(quota.buckets.len(), MOST + 1);
        assert_eq!(quota.sweeps, 1, "a line costs no look at all of them");
        // Who has said nothing for long is forgotten.
        assert!(quota.take(kind("late"), now + REFILL));
        assert_eq!(quota.buckets.len(), 2);
    }
}

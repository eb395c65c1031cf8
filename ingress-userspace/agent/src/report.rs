//! What is wrong with the objects, for whoever asks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::time::Instant;

use super::translate::Book;
use ingress_model::Problem;

/// As [`Report::skipped`] names Secrets of which only the name is kept.
pub(super) const UNNAMED_SECRETS: &str =
    "v1/Secret that no Ingress names, beyond 256 KiB in its namespace";

/// Problems and what was left out, as of the last update. Copies show the same.
#[derive(Clone, Debug, Default)]
pub struct Report {
    book: Arc<Mutex<Book>>,
    skipped: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Report {
    pub(super) fn new(book: Arc<Mutex<Book>>) -> Self {
        Self {
            book,
            skipped: Arc::default(),
        }
    }

    /// Every problem once, sorted. Costs what its length says; workers never wait for it.
    pub fn problems(&self) -> Vec<Problem> {
        // A panic elsewhere leaves the book whole: each topic is written in one step.
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.all()
    }

    /// How many warnings and how many errors there are.
    pub fn counts(&self) -> (usize, usize) {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.counts()
    }

    /// When the log is to say how many problems it has left out.
    pub(super) fn log_due(&self) -> Option<Instant> {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.log_due()
    }

    /// Says so.
    pub(super) fn log_left_out(&self) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.log_left_out(Instant::now());
    }

    /// How many objects are not read, by `apiVersion/kind`, and Ingresses of other classes.
    pub fn skipped(&self) -> BTreeMap<String, u64> {
        let skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        skipped.clone()
    }

    /// How many Secrets of type `kubernetes.io/tls` there are of which only the name is kept, because nobody names
    /// them and their namespace has enough such Secrets.
    pub fn unnamed_secrets(&self) -> u64 {
        let skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        skipped.get(UNNAMED_SECRETS).copied().unwrap_or_default()
    }

    pub(super) fn set_skipped(&self, skipped: BTreeMap<String, u64>) {
        *self.skipped.lock().unwrap_or_else(PoisonError::into_inner) = skipped;
    }
}

//! What the lines of `cargo test -- --show-output` say.

use std::ops::AddAssign;

/// How the tests of one or more programs went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Tests that ran and passed.
    pub(crate) passed: usize,
    /// Tests that ran and failed.
    pub(crate) failed: usize,
    /// Why tests did not run, a reason a test.
    pub(crate) skipped: Vec<String>,
    /// The failed tests' names.
    pub(crate) failures: Vec<String>,
    /// A program failed without a failed test: it did not compile, or died.
    pub(crate) crashed: bool,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
        self.failures.extend(other.failures);
        self.crashed |= other.crashed;
    }
}

/// Reads the lines in order.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    count: Count,
    /// Inside the part that repeats what passing tests printed: only skips are worth showing.
    in_successes: bool,
    /// Programs that began and did not report a result yet.
    running: usize,
}

impl Reader {
    /// Takes one line; true if a person wants to see it.
    pub(crate) fn read(&mut self, line: &str) -> bool {
        if let Some(reason) = line.strip_prefix("SKIPPED: ") {
            self.count.skipped.push(reason.trim().to_owned());
            return true;
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.running = self.running.saturating_sub(1);
            self.count.passed += number_before(result, " passed");
            self.count.failed += number_before(result, " failed");
        } else if line.starts_with("running ")
            && (line.ends_with(" tests") || line.ends_with(" test"))
        {
            self.running += 1;
        } else if line == "successes:" {
            self.in_successes = true;
        } else if line == "failures:" {
            self.in_successes = false;
        } else if let Some(test) = line.strip_prefix("test ") {
            self.read_test(test);
        }
        !self.in_successes
    }

    /// Reads `NAME ... ok`, `NAME ... FAILED` or `NAME ... ignored, REASON`.
    fn read_test(&mut self, test: &str) {
        let Some((name, outcome)) = test.rsplit_once(" ... ") else {
            return;
        };
        if outcome.starts_with("FAILED") {
            self.count.failures.push(name.to_owned());
        } else if let Some(reason) = outcome.strip_prefix("ignored") {
            self.count.skipped.push(format!("{name}: ignored{reason}"));
            // Not among those that passed: make up for what `finish` takes away.
            self.count.passed += 1;
        }
    }

    /// The count, once the command has ended.
    pub(crate) fn finish(mut self, success: bool) -> Count {
        // A skipping test returns early, which the test program takes for a pass.
        self.count.passed = self.count.passed.saturating_sub(self.count.skipped.len());
        self.count.crashed = self.running > 0 || (!success && self.count.failed == 0);
        self.count
    }
}

fn number_before(text: &str, word: &str) -> usize {
    let before = text.split(word).next().unwrap_or_default();
    before
        .rsplit(|c: char| !c.is_ascii_digit())
        .next()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str], success: bool) -> (Count, Vec<String>) {
        let mut reader = Reader::default();
        let shown = lines
            .iter()
            .filter(|line| reader.read(line))
            .map(|line| (*line).to_owned())
            .collect();
        (reader.finish(success), shown)
    }

    #[test]
    fn skipped_tests_are_not_counted_as_passed() {
        let (count, shown) = read(
            &[
                "running 4 tests",
                "test a ... ok",
                "test b ... ok",
                "test c ... ignored, too slow",
                "test d ... ok",
                "successes:",
                "---- a stdout ----",
                "noise",
                "---- b stdout ----",
                "SKIPPED: needs root",
                "",
                "successes:",
                "    a",
                "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            ],
            true,
        );
        assert_eq!((count.passed, count.failed, count.crashed), (2, 0, false));
        assert_eq!(count.skipped, ["c: ignored, too slow", "needs root"]);
        assert!(!shown.contains(&"noise".to_owned()), "{shown:?}");
        assert!(
            shown.contains(&"SKIPPED: needs root".to_owned()),
            "{shown:?}"
        );
    }

    #[test]
    fn failures_are_named_and_their_output_is_shown() {
        let (count, shown) = read(
            &[
                "running 2 tests",
                "test prefix::matches ... FAILED",
                "test other ... ok",
                "successes:",
                "    other",
                "failures:",
                "---- prefix::matches stdout ----",
                "left: 1",
                "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s",
            ],
            false,
        );
        assert_eq!((count.passed, count.failed, count.crashed), (1, 1, false));
        assert_eq!(count.failures, ["prefix::matches"]);
        assert!(shown.contains(&"left: 1".to_owned()), "{shown:?}");
    }

    #[test]
    fn a_program_that_does_not_compile_or_dies_is_a_failure() {
        let (count, _) = read(&["error[E0425]: cannot find value"], false);
        assert!(count.crashed);
        let (count, _) = read(&["running 3 tests", "test a ... ok"], false);
        assert!(count.crashed);
    }
}

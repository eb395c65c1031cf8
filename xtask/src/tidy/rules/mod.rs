//! The rules, each a pure function from one file to its faults.

/// What is wrong, and in which line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Counted from 1.
    pub(crate) line: usize,
    /// For a person to read.
    pub(crate) what: String,
}

const BANNED_NAMES: [&str; 8] = [
    "util", "utils", "helper", "helpers", "common", "misc", "manager", "managers",
];

fn fault(line: usize, what: impl Into<String>) -> Fault {
    Fault {
        line,
        what: what.into(),
    }
}

/// A file opens by saying what it holds.
pub(crate) fn opening(text: &str) -> Option<Fault> {
    let says = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("//! "));
    let long_enough = says.is_some_and(|says| says.trim().len() > 3);
    (!long_enough).then(|| fault(1, "the first line is not `//! what this file holds`"))
}

/// No file is named after nothing in particular.
pub(crate) fn name(path: &str) -> Option<Fault> {
    let banned = path
        .split('/')
        .any(|part| BANNED_NAMES.contains(&part.trim_end_matches(".rs")));
    banned.then(|| {
        fault(
            1,
            "the name says nothing: util, helper, common, misc and manager are not used",
        )
    })
}

/// A promise names the issue that keeps it. What follows `//` in a line is taken for a comment.
pub(crate) fn todos(text: &str) -> Vec<Fault> {
    let open = |comment: &str| {
        let mark = comment
            .split(|c: char| !c.is_alphanumeric())
            .find(|word| ["TODO", "FIXME", "XXX"].contains(word));
        let after = mark.and_then(|mark| comment.split_once(mark));
        after.is_some_and(|(_, after)| !after.trim_start_matches(['(', ' ']).starts_with('#'))
    };
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line
            .split_once("//")
            .is_some_and(|(_, comment)| open(comment))
        {
            faults.push(fault(
                number + 1,
                "a promise without an issue, as in `TODO(#12)`",
            ));
        }
    }
    faults
}

/// Versions stand in one table, at the top.
pub(crate) fn versions(text: &str) -> Vec<Fault> {
    let mut in_dependencies = false;
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
        } else if in_dependencies
            && line.contains('=')
            && !line.starts_with('#')
            && !line.contains("workspace = true")
        {
            faults.push(fault(number + 1, "a version outside the workspace's table"));
        }
    }
    faults
}

#[cfg(test)]
mod tests;

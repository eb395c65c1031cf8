//! The rules, each a pure function from one file to its faults.

use super::source::Source;

/// What is wrong, and in which line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Counted from 1.
    pub(crate) line: usize,
    /// For a person to read.
    pub(crate) what: String,
}

/// Which modules of userspace a module may name. Whoever is missing here (`run`, `main`, `lib`) may
/// name all.
const IMPORTS: [(&str, &[&str]); 10] = [
    ("model", &[]),
    ("telemetry", &[]),
    ("config", &["model", "telemetry", "kernel"]),
    ("controller", &["model", "telemetry"]),
    ("table", &["model", "telemetry"]),
    ("kernel", &["model", "telemetry"]),
    ("tls", &["model", "telemetry"]),
    ("upstream", &["model", "telemetry"]),
    (
        "worker",
        &["table", "upstream", "tls", "model", "telemetry"],
    ),
    ("admin", &["table", "model", "telemetry"]),
];

/// Which modules of userspace may name a crate; the others must not.
const CRATES: [(&str, &[&str]); 7] = [
    ("kube", &["controller"]),
    ("k8s_openapi", &["controller"]),
    ("aya", &["kernel"]),
    ("hyper", &["worker", "upstream", "admin"]),
    ("hyper_util", &["worker", "upstream", "admin"]),
    ("rustls", &["tls", "upstream"]),
    ("tokio_rustls", &["tls", "upstream"]),
];

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

/// `unsafe` stands only in the kernel package and in files named `sys.rs`.
pub(crate) fn unsafe_code(path: &str, source: &Source) -> Vec<Fault> {
    if path.starts_with("ingress-ebpf/") || path.ends_with("/sys.rs") {
        return Vec::new();
    }
    let words = source.words();
    let found = words.iter().filter(|(_, word)| *word == "unsafe");
    found
        .map(|(line, _)| fault(*line, "`unsafe` outside ingress-ebpf and sys.rs"))
        .collect()
}

/// A promise names the issue that keeps it.
pub(crate) fn todos(source: &Source) -> Vec<Fault> {
    let open = |line: &str| {
        ["TODO", "FIXME", "XXX"].iter().any(|mark| {
            line.split(|c: char| !c.is_alphanumeric())
                .any(|word| word == *mark)
                && !line
                    .split(mark)
                    .nth(1)
                    .is_some_and(|rest| rest.trim_start_matches(['(', ' ']).starts_with('#'))
        })
    };
    let lines = source
        .comments
        .lines()
        .enumerate()
        .filter(|(_, line)| open(line));
    lines
        .map(|(number, _)| fault(number + 1, "a TODO without an issue, as in `TODO(#12)`"))
        .collect()
}

/// The module of userspace that a file belongs to: the first part of its path under `src`.
fn module(path: &str) -> Option<(&str, usize)> {
    let inside = path.strip_prefix("ingress-userspace/src/")?;
    let parts: Vec<&str> = inside
        .trim_end_matches(".rs")
        .trim_end_matches("/mod")
        .split('/')
        .collect();
    Some((parts.first().copied()?, parts.len()))
}

/// Modules name only those below them.
pub(crate) fn imports(path: &str, source: &Source) -> Vec<Fault> {
    let Some((module, depth)) = module(path) else {
        return Vec::new();
    };
    let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
        return Vec::new();
    };
    let all: Vec<&str> = IMPORTS
        .iter()
        .map(|(name, _)| *name)
        .chain(["run"])
        .collect();
    let mut faults = Vec::new();
    for (line, named) in named_modules(source, depth) {
        if named != module && all.contains(&named) && !allowed.contains(&named) {
            faults.push(fault(line, format!("`{module}` must not import `{named}`")));
        }
    }
    faults
}

/// The modules named after `crate::`, or after as many `super::` as lead to the top.
fn named_modules(source: &Source, depth: usize) -> Vec<(usize, &str)> {
    let words = source.words();
    let mut named = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let mut next = at;
        match words[at].1 {
            "crate" | "ingress_userspace" => next += 1,
            "super" => {
                let mut ups = 0;
                while is(&words, next, "super") && is(&words, next + 1, "::") {
                    ups += 1;
                    next += 2;
                }
                // Inside `mod tests` there is one more level than the path shows, which only makes
                // this stricter.
                next = if ups >= depth && next > at {
                    next - 1
                } else {
                    words.len()
                };
            }
            _ => next = words.len(),
        }
        if is(&words, next, "::") {
            named.extend(first_names(&words[next + 1..]));
        }
        at += 1;
    }
    named
}

fn is(words: &[(usize, &str)], at: usize, what: &str) -> bool {
    words.get(at).is_some_and(|(_, word)| *word == what)
}

/// `a::b` names `a`; `{a::{x, y}, b}` names `a` and `b`.
fn first_names<'a>(words: &[(usize, &'a str)]) -> Vec<(usize, &'a str)> {
    if !is(words, 0, "{") {
        return words.first().copied().into_iter().collect();
    }
    let mut names = Vec::new();
    let mut depth = 0;
    let mut expecting = false;
    for (line, word) in words {
        match *word {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if expecting && depth == 1 {
            names.push((*line, *word));
        }
        expecting = depth == 1 && (*word == "," || (*word == "{" && names.is_empty()));
    }
    names
}

/// A crate with a place of its own is named only there.
pub(crate) fn crates(path: &str, source: &Source) -> Vec<Fault> {
    let Some((module, _)) = module(path) else {
        return Vec::new();
    };
    let words = source.words();
    let mut faults = Vec::new();
    for (at, (line, word)) in words.iter().enumerate() {
        let Some((name, allowed)) = CRATES.iter().find(|(name, _)| name == word) else {
            continue;
        };
        let is_path = is(&words, at + 1, "::") && (at == 0 || !is(&words, at - 1, "::"));
        let is_use = at > 0 && is(&words, at - 1, "use");
        if (is_path || is_use) && !allowed.contains(&module) {
            faults.push(fault(
                *line,
                format!(
                    "`{name}` belongs to {}, not to `{module}`",
                    allowed.join(", ")
                ),
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

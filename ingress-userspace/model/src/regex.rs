//! The path of a rule as a case-insensitive regex, with a bound on the memory it takes.

use std::{fmt, hash, sync::Arc};

use regex_automata::{
    Anchored, Input,
    meta::{BuildError, Regex},
    util::{captures::Captures, syntax},
};
use regex_syntax::ast;

/// Heap bytes that one compiled pattern may take. The idiom `/api(/|$)(.*)` takes 5 KiB, and
/// `/.{0,300}`, which nobody needs, 20.
const SIZE_LIMIT: usize = 64 << 10;

/// nginx's `~* "^path"`: case is ignored and the end is open.
///
/// As in nginx, `.` is any byte and case is that of ASCII, so that paths which are not UTF-8 match
/// and can be rewritten. Only a class of other characters, such as `[é]`, has no meaning byte by
/// byte; such a regex is read as text.
///
/// Copies share what was compiled. Two are equal if their text is, and both are literals or neither.
#[derive(Clone)]
pub struct PathRegex {
    text: Arc<str>,
    /// What every path that matches begins with, in whatever case: most rules of a host are told
    /// apart by it, without running a regex.
    literal: usize,
    /// `None` for a literal: nothing is left to be matched.
    compiled: Option<Arc<Regex>>,
}

/// Why a path cannot be used as a regex.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathRegexError {
    /// It is not one by itself: `/a)|(/b` must not end the group that the anchor needs.
    #[error("{0}")]
    Syntax(String),
    /// It needs more memory than one pattern may have.
    #[error("it needs more than {} KiB of memory", SIZE_LIMIT >> 10)]
    TooLarge,
}

impl PathRegex {
    /// Compiles `path`, with or without `^` in front.
    ///
    /// # Errors
    /// It is no regex, uses what a linear-time engine lacks (look-around, back-references), or
    /// needs too much memory.
    pub fn new(path: &str) -> Result<Self, PathRegexError> {
        let bare = path.strip_prefix('^').unwrap_or(path);
        ast::parse::Parser::new()
            .parse(bare)
            .map_err(|error| PathRegexError::Syntax(error.kind().to_string()))?;
        let compiled = build(bare, false).or_else(|error| build(bare, true).map_err(|_| error))?;
        Ok(Self {
            text: path.into(),
            literal: literal_start(path).len(),
            compiled: Some(Arc::new(compiled)),
        })
    }

    /// A regex for every path that begins with `start`, a [`literal_start`].
    pub fn literal(start: &str) -> Self {
        Self {
            text: start.into(),
            literal: start.len(),
            compiled: None,
        }
    }

    /// Whether it was made by [`literal`](Self::literal).
    pub(super) fn is_literal(&self) -> bool {
        self.compiled.is_none()
    }

    /// Whether somebody else has what was compiled.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.text) > 1
    }

    /// The path as written in the rule.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Heap bytes of what was compiled, shared by all copies; scratch space of the threads that
    /// use it comes on top.
    pub fn memory(&self) -> usize {
        self.compiled
            .as_ref()
            .map_or(0, |regex| regex.memory_usage())
    }

    /// Whether `path` matches.
    pub fn is_match(&self, path: &[u8]) -> bool {
        self.may_match(path)
            && self
                .compiled
                .as_ref()
                .is_none_or(|regex| regex.is_match(input(path)))
    }

    /// The whole match and the groups `$0` to `$9` of `path`, as ranges; `None` without a match,
    /// and for a [`literal`](Self::literal), which has no groups.
    pub fn captures(&self, path: &[u8]) -> Option<Captures> {
        let regex = self.compiled.as_ref()?;
        let mut captures = regex.create_captures();
        if self.may_match(path) {
            regex.captures(input(path), &mut captures);
        }
        captures.is_match().then_some(captures)
    }

    fn may_match(&self, path: &[u8]) -> bool {
        let bare = self.text.strip_prefix('^').unwrap_or(&self.text);
        let literal = bare.as_bytes().get(..self.literal).unwrap_or_default();
        path.get(..literal.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(literal))
    }
}

fn input(path: &[u8]) -> Input<'_> {
    Input::new(path).anchored(Anchored::Yes)
}

fn build(path: &str, unicode: bool) -> Result<Regex, PathRegexError> {
    let syntax = syntax::Config::new()
        .case_insensitive(true)
        .unicode(unicode)
        .utf8(false);
    // No lazy DFA: each thread would keep up to 2 MiB of it per pattern. Paths are short, and most
    // patterns are one-pass.
    let config = Regex::config()
        .hybrid(false)
        .dfa(false)
        .utf8_empty(false)
        .nfa_size_limit(Some(SIZE_LIMIT))
        .onepass_size_limit(Some(SIZE_LIMIT));
    Regex::builder()
        .syntax(syntax)
        .configure(config)
        .build(path)
        .map_err(|error: BuildError| match error.size_limit() {
            Some(_) => PathRegexError::TooLarge,
            None => PathRegexError::Syntax(error.syntax_error().map_or_else(
                || error.to_string(),
                // The first lines draw the pattern.
                |error| match error {
                    regex_syntax::Error::Parse(error) => error.kind().to_string(),
                    regex_syntax::Error::Translate(error) => error.kind().to_string(),
                    other => other.to_string(),
                },
            )),
        })
}

/// The text with which everything begins that a regex can match, whether it can be compiled or not.
pub fn literal_start(path: &str) -> &str {
    let path = path.strip_prefix('^').unwrap_or(path);
    if path.contains('|') && has_bare_alternative(path) {
        return "";
    }
    let Some(end) = path.find(META) else {
        return path;
    };
    let (start, rest) = path.split_at(end);
    // `x+*` is `(x+)*`.
    let repeated = rest.trim_start_matches('+');
    let may_be_absent = repeated.starts_with(['*', '?', '{']);
    let last = start.chars().next_back().map_or(0, char::len_utf8);
    let start = &start[..end - if may_be_absent { last } else { 0 }];
    &start[..start.floor_char_boundary(256)]
}

/// Whether a `|` stands outside of every group, or may: then nothing is common to all matches.
fn has_bare_alternative(path: &str) -> bool {
    let Some(open) = path.find('(') else {
        return true;
    };
    // Escapes, classes and PCRE's comments can hide a parenthesis; where they occur nothing is
    // taken for granted.
    if path.contains(['\\', '[']) || path.contains("(?#") {
        return true;
    }
    let mut depth = 0_usize;
    path[open..].chars().any(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == '|' && depth == 0
    }) || path[..open].contains('|')
}

/// What is not itself in a regex.
const META: [char; 14] = [
    '\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$',
];

impl PartialEq for PathRegex {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.is_literal() == other.is_literal()
    }
}

impl Eq for PathRegex {}

impl hash::Hash for PathRegex {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Debug for PathRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PathRegex({:?})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_ignored_the_start_is_anchored_and_the_end_is_open() {
        for (pattern, path, matches) in [
            ("/api(/|$)(.*)", "/api", true),
            ("/api(/|$)(.*)", "/API/v1", true),
            ("/api(/|$)(.*)", "/apis", false),
            ("/api(/|$)(.*)", "/x/api", false),
            ("^/a", "/ab", true),
            ("/a|/b", "/b", true),
            ("/a|/b", "/c", false),
            ("/ab?c", "/ac", true),
            ("/a(b|c)d", "/acd", true),
            ("/.", "/\u{e9}", true),
            ("/[é]", "/é", true),
            ("/é", "/é/x", true),
            (r"/\(|/x", "/x", true),
            ("/a+{0}", "/", true),
            ("^^/a", "/a", true),
        ] {
            let regex = PathRegex::new(pattern).unwrap();
            assert_eq!(regex.is_match(path.as_bytes()), matches, "{pattern} {path}");
            assert_eq!(
                regex.captures(path.as_bytes()).is_some(),
                matches,
                "{pattern} {path}"
            );
        }
        assert!(PathRegex::new("/.$").unwrap().is_match(b"/\xff"));
    }

    #[test]
    fn a_literal_is_no_regex_of_the_same_text() {
        let regex = || PathRegex::new("/a.b").unwrap();
        assert_eq!(regex(), regex());
        assert_eq!(PathRegex::literal("/a.b"), PathRegex::literal("/a.b"));
        assert_ne!(regex(), PathRegex::literal("/a.b"));
    }

    #[test]
    fn a_literal_matches_what_begins_with_it_and_has_no_groups() {
        let literal = PathRegex::literal("/a.b");
        for (path, matches) in [
            ("/a.b", true),
            ("/A.B/c", true),
            ("/a.", false),
            ("/axb", false),
            ("", false),
        ] {
            assert_eq!(literal.is_match(path.as_bytes()), matches, "{path:?}");
            assert!(literal.captures(path.as_bytes()).is_none(), "{path:?}");
        }
        assert_eq!(literal.memory(), 0);
    }

    #[test]
    fn regexes_are_told_apart_by_their_text() {
        use hash::BuildHasher as _;
        let hasher = hash::BuildHasherDefault::<hash::DefaultHasher>::default();
        let [one, other] = ["/a", "/b"].map(|text| PathRegex::new(text).unwrap());
        assert_eq!(hasher.hash_one(&one), hasher.hash_one(one.clone()));
        assert_ne!(hasher.hash_one(&one), hasher.hash_one(&other));
        assert_eq!(
            format!("{one:?}, {other:?}"),
            r#"PathRegex("/a"), PathRegex("/b")"#
        );
    }

    #[test]
    fn groups_are_ranges_of_the_path() {
        let regex = PathRegex::new("/api(/|$)(.*)").unwrap();
        let path = b"/api/v1";
        let captures = regex.captures(path).unwrap();
        let group = |number| captures.get_group(number).map(|span| &path[span.range()]);
        assert_eq!(group(2), Some(&b"v1"[..]));
        assert_eq!(group(3), None);
    }

    #[test]
    fn what_is_no_regex_or_too_large_is_refused() {
        for pattern in ["/a)|(/b", "/(?!admin)", r"/(a)\1", "/[", "/(?<n"] {
            let error = PathRegex::new(pattern);
            assert!(
                matches!(error, Err(PathRegexError::Syntax(_))),
                "{pattern} {error:?}"
            );
        }
        for pattern in ["/.{0,3000}", "/(a{100}){100}"] {
            assert_eq!(
                PathRegex::new(pattern),
                Err(PathRegexError::TooLarge),
                "{pattern}"
            );
        }
    }

    #[test]
    fn everyday_patterns_take_little_memory() {
        for pattern in [
            "/",
            "/api(/|$)(.*)",
            "/v[0-9]+/(.*)",
            "/(users|orders)/[a-z0-9-]+",
        ] {
            let memory = PathRegex::new(pattern).unwrap().memory();
            assert!(memory < 16 << 10, "{pattern} {memory}");
        }
    }

    #[test]
    fn a_pattern_takes_the_more_memory_the_more_it_says() {
        let memory = |pattern| PathRegex::new(pattern).unwrap().memory();
        let (short, long) = (memory("/v[0-9]"), memory("/v[0-9]{50}"));
        assert!(0 < short && short < long, "{short} {long}");
    }

    #[test]
    fn the_literal_start_refuses_nothing_that_the_regex_matches() {
        let tokens = [
            "/", "b", "K", "é", "*", "?", "+", "{0}", "{0,1}", "{2}", "(", ")", "|", "^", "$",
            "\\", "[b]", ".", "(?-i)", "(?x)", "(?:", "#", "\\b", "(|b)",
        ];
        let paths = [
            "", "/", "/a", "/A", "/ab", "/aab", "/b", "/ak", "/é", "/aé", "/a#", "/a/", "b",
        ];
        let mut tried = 0;
        for start in ["/a", "^/a", "/", "^^/"] {
            for first in tokens {
                for second in tokens {
                    let pattern = format!("{start}{first}{second}");
                    let Ok(regex) = PathRegex::new(&pattern) else {
                        continue;
                    };
                    tried += 1;
                    let compiled = regex.compiled.as_ref().unwrap();
                    for path in paths {
                        let path = path.as_bytes();
                        let matches = compiled.is_match(input(path));
                        assert_eq!(regex.is_match(path), matches, "{pattern} {path:?}");
                    }
                }
            }
        }
        assert!(tried > 1000, "{tried}");
    }

    #[test]
    fn the_literal_start_is_common_to_all_matches() {
        for (pattern, start) in [
            ("/foo", "/foo"),
            ("^/foo/.*", "/foo/"),
            ("/fooo?", "/foo"),
            ("/foo(/|$)(.*)", "/foo"),
            ("/a|/b", ""),
            ("(/a|/b)", ""),
            ("/x(a|b)|/y", ""),
            (r"/x\||/y", ""),
            ("/[(|]x", ""),
            ("/x(?#()|/y", ""),
            ("/é*", "/"),
            ("/foo+", "/foo"),
            ("/foo+*", "/fo"),
            ("/foo++{0}", "/fo"),
            ("^^/foo", ""),
        ] {
            assert_eq!(literal_start(pattern), start, "{pattern}");
        }
    }
}

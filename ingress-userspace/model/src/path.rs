//! The path of an Ingress rule.

use serde::{Deserialize, Serialize};

/// How a rule's path matches a request's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PathKind {
    /// Element by element; also what `ImplementationSpecific` means without a regex annotation.
    Prefix,
    /// The whole path, byte by byte.
    Exact,
    /// `ImplementationSpecific` on a host in regex mode, or with regex characters in it.
    Regex,
}

/// Path and kind of one rule.
///
/// Starts with `/` and is at most 4 KiB; a `Prefix` or `Exact` path has only bytes that a request
/// path can have. Source: Kubernetes Ingress, "Path types".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(PathKind, Box<str>)")]
pub struct PathPattern {
    kind: PathKind,
    path: Box<str>,
}

/// An invalid path of a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathPatternError {
    /// Does not start with `/`.
    #[error("path {0:?} does not start with /")]
    Relative(String),
    /// Longer than 4 KiB.
    #[error("path is longer than 4096 bytes")]
    TooLong,
    /// Has a control character, a space, or (outside a regex) a `?` or `#`.
    #[error("path {0:?} has a character that is not allowed in a request path")]
    Character(String),
}

impl PathPattern {
    /// Checks `path` for `kind`; an empty path means `/`.
    ///
    /// # Errors
    /// The path is relative, too long, or has a character that is not allowed in a request path.
    pub fn new(kind: PathKind, path: &str) -> Result<Self, PathPatternError> {
        let path = if path.is_empty() { "/" } else { path };
        if path.len() > 4096 {
            return Err(PathPatternError::TooLong);
        }
        let anchored = kind == PathKind::Regex && path.starts_with("^/");
        if !path.starts_with('/') && !anchored {
            return Err(PathPatternError::Relative(path.to_owned()));
        }
        let refused = |c: char| {
            c.is_control() || c == ' ' || (kind != PathKind::Regex && matches!(c, '?' | '#'))
        };
        if path.contains(refused) {
            return Err(PathPatternError::Character(path.to_owned()));
        }
        Ok(Self {
            kind,
            path: path.into(),
        })
    }

    /// How the path matches.
    pub fn kind(&self) -> PathKind {
        self.kind
    }

    /// The path as written in the rule.
    pub fn as_str(&self) -> &str {
        &self.path
    }
}

impl TryFrom<(PathKind, Box<str>)> for PathPattern {
    type Error = PathPatternError;

    fn try_from((kind, path): (PathKind, Box<str>)) -> Result<Self, PathPatternError> {
        Self::new(kind, &path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_no_request_can_carry_are_refused() {
        use PathPatternError::{Character, Relative, TooLong};
        let long = format!("/{}", "a".repeat(4096));
        let quoted = |path: &str| path.to_owned();
        for (kind, path, error) in [
            (PathKind::Prefix, "foo", Relative(quoted("foo"))),
            (PathKind::Prefix, "^/foo", Relative(quoted("^/foo"))),
            (PathKind::Regex, "^foo", Relative(quoted("^foo"))),
            (PathKind::Exact, "/a b", Character(quoted("/a b"))),
            (PathKind::Exact, "/a?b", Character(quoted("/a?b"))),
            (PathKind::Prefix, "/a#b", Character(quoted("/a#b"))),
            (PathKind::Prefix, "/a\nb", Character(quoted("/a\nb"))),
            (PathKind::Regex, "/a\nb", Character(quoted("/a\nb"))),
            (PathKind::Regex, "/a b", Character(quoted("/a b"))),
            (PathKind::Prefix, &long, TooLong),
        ] {
            assert_eq!(
                PathPattern::new(kind, path),
                Err(error),
                "{kind:?} {path:?}"
            );
        }
    }

    #[test]
    fn other_paths_are_kept_as_they_are_written() {
        let longest = format!("/{}", "a".repeat(4095));
        for (kind, path) in [
            (PathKind::Prefix, "/a/"),
            (PathKind::Exact, "/^a$(b|c)é"),
            (PathKind::Regex, "/a?b#"),
            (PathKind::Regex, "^/a"),
            (PathKind::Prefix, &longest),
        ] {
            let pattern = PathPattern::new(kind, path).unwrap();
            assert_eq!((pattern.kind(), pattern.as_str()), (kind, path));
        }
    }

    #[test]
    fn empty_path_is_the_root() {
        assert_eq!(
            PathPattern::new(PathKind::Prefix, "").unwrap().as_str(),
            "/"
        );
    }
}

//! Rust source with comments and literals told from code: no parser, just enough for the rules.

/// One file's text, twice: only its code, and only its comments. Both keep every line where it was.
#[derive(Debug)]
pub(crate) struct Source {
    /// The code; comments and the insides of literals are blanks.
    pub(crate) code: String,
    /// The comments; all else is blanks.
    pub(crate) comments: String,
}

/// Where the reader is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Code,
    LineComment,
    /// How deep: Rust's block comments nest.
    BlockComment(u32),
    Text,
    /// How many `#` close it.
    RawText(usize),
}

impl Source {
    /// Reads a file's text.
    pub(crate) fn new(text: &str) -> Self {
        let mut code = String::with_capacity(text.len());
        let mut comments = String::with_capacity(text.len());
        let mut place = Place::Code;
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let (next, length) = step(place, rest, code.chars().next_back());
            let taken = &rest[..length.max(c.len_utf8())];
            for c in taken.chars() {
                let keep = |kept: bool| if kept || c == '\n' { c } else { ' ' };
                let in_comment =
                    |place| matches!(place, Place::LineComment | Place::BlockComment(_));
                code.push(keep(place == Place::Code && next == Place::Code));
                comments.push(keep(in_comment(place) || in_comment(next)));
            }
            rest = &rest[taken.len()..];
            place = next;
        }
        Self { code, comments }
    }

    /// The code's words with their lines: identifiers, `::`, and single signs.
    pub(crate) fn words(&self) -> Vec<(usize, &str)> {
        let mut words = Vec::new();
        for (number, line) in self.code.lines().enumerate() {
            let mut rest = line.trim_start();
            while let Some(first) = rest.chars().next() {
                let identifier = rest.find(|c: char| !is_identifier(c)).unwrap_or(rest.len());
                let length = match identifier {
                    0 if rest.starts_with("::") => 2,
                    0 => first.len_utf8(),
                    length => length,
                };
                words.push((number + 1, &rest[..length]));
                rest = rest[length..].trim_start();
            }
        }
        words
    }
}

fn is_identifier(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where the text goes on, and after how many bytes (at least one character).
fn step(place: Place, rest: &str, before: Option<char>) -> (Place, usize) {
    match place {
        Place::Code => step_code(rest, before),
        Place::LineComment if rest.starts_with('\n') => (Place::Code, 1),
        Place::BlockComment(depth) if rest.starts_with("/*") => (Place::BlockComment(depth + 1), 2),
        Place::BlockComment(1) if rest.starts_with("*/") => (Place::Code, 2),
        Place::BlockComment(depth) if rest.starts_with("*/") => (Place::BlockComment(depth - 1), 2),
        Place::Text if rest.starts_with('\\') => (
            Place::Text,
            1 + rest[1..].chars().next().map_or(0, char::len_utf8),
        ),
        Place::Text if rest.starts_with('"') => (Place::Code, 1),
        Place::RawText(hashes) if closes(rest, hashes) => (Place::Code, 1 + hashes),
        same => (same, 0),
    }
}

fn step_code(rest: &str, before: Option<char>) -> (Place, usize) {
    if rest.starts_with("//") {
        return (Place::LineComment, 2);
    }
    if rest.starts_with("/*") {
        return (Place::BlockComment(1), 2);
    }
    if rest.starts_with('"') {
        return (Place::Text, 1);
    }
    if rest.starts_with('r') && !before.is_some_and(|c| is_identifier(c) && c != 'b') {
        let hashes = rest[1..].chars().take_while(|&c| c == '#').count();
        if rest[1 + hashes..].starts_with('"') {
            return (Place::RawText(hashes), 2 + hashes);
        }
    }
    // A quote in a character literal opens no text: '"', and '\'' and '\\' likewise.
    let literal = ["'\"'", "'\\\"'", "'\\''", "'\\\\'"]
        .into_iter()
        .find(|literal| rest.starts_with(literal));
    (Place::Code, literal.map_or(0, str::len))
}

fn closes(rest: &str, hashes: usize) -> bool {
    rest.starts_with('"') && rest[1..].chars().take_while(|&c| c == '#').count() >= hashes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        for (text, code) in [
            ("let a = 1; // unsafe", "let a = 1;"),
            ("/* a /* b */ c */ d", "d"),
            (r#"say("un\"safe"); b"#, "say( ); b"),
            ("r#\"a \" b\"# + c", "+ c"),
            ("br\"x\" + c", "b + c"),
            ("for\"x\"", "for"),
            ("let q = '\"'; unsafe", "let q = '\"'; unsafe"),
            ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
            ("é // ü", "é"),
        ] {
            let source = Source::new(text);
            let squeezed = source.code.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(
                squeezed,
                code.split_whitespace().collect::<Vec<_>>().join(" "),
                "{text}"
            );
        }
    }

    #[test]
    fn lines_stay_where_they_were() {
        let source = Source::new("a\n\"x\ny\"\n/* \n */ b");
        assert_eq!(source.words(), [(1, "a"), (5, "b")]);
    }

    #[test]
    fn words_are_identifiers_and_signs() {
        let source = Source::new("use crate::{a, b_2::C};");
        let words: Vec<&str> = source.words().into_iter().map(|(_, word)| word).collect();
        assert_eq!(
            words,
            [
                "use", "crate", "::", "{", "a", ",", "b_2", "::", "C", "}", ";"
            ]
        );
    }
}

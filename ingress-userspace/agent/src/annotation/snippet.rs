//! Reads a snippet of nginx's configuration only to tell whether it may refuse a request.
//!
//! Snippets are never applied. Most of them set headers of responses, and losing those lets nobody
//! in; any directive that is not known to be of that kind may restrict access.

/// Directives that cannot refuse a request. `set` is here because only an `if`, which is not, can
/// make something of it.
#[rustfmt::skip]
const HARMLESS: &[&str] = &[
    "access_log", "add_header", "add_trailer", "charset", "client_body_buffer_size", "client_body_timeout",
    "client_max_body_size", "error_log", "etag", "expires", "gzip", "gzip_comp_level", "gzip_min_length",
    "gzip_proxied", "gzip_types", "gzip_vary", "keepalive_timeout", "log_not_found", "more_clear_headers",
    "more_set_headers", "proxy_buffer_size", "proxy_buffering", "proxy_buffers", "proxy_busy_buffers_size",
    "proxy_connect_timeout", "proxy_cookie_domain", "proxy_cookie_path", "proxy_hide_header", "proxy_http_version",
    "proxy_max_temp_file_size", "proxy_pass_header", "proxy_read_timeout", "proxy_redirect",
    "proxy_request_buffering", "proxy_send_timeout", "send_timeout", "server_tokens", "set", "sub_filter",
    "sub_filter_once", "sub_filter_types", "tcp_nodelay",
];

/// Request headers that tell a backend nothing about who the client is that Forebay does not say
/// itself. Any other that a snippet sets or clears may be what a backend trusts.
#[rustfmt::skip]
const HARMLESS_REQUEST_HEADERS: &[&str] = &[
    "accept-encoding", "connection", "host", "upgrade", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port",
    "x-forwarded-proto", "x-real-ip",
];

/// What nginx takes for white space. Another character that this parser skipped could hide a `#`.
const WHITESPACE: [char; 4] = [' ', '\t', '\r', '\n'];

fn ends_word(c: char) -> bool {
    c == ';' || WHITESPACE.contains(&c)
}

/// Whether a snippet has a directive that could refuse a request, or cannot be read.
pub(super) fn may_restrict(text: &str) -> bool {
    let Some(directives) = directives(text) else {
        return true;
    };
    directives
        .iter()
        .any(|directive| match directive.as_slice() {
            ["proxy_set_header", name, ..] => {
                !HARMLESS_REQUEST_HEADERS.contains(&name.to_ascii_lowercase().as_str())
            }
            [name, ..] => !HARMLESS.contains(name),
            [] => false,
        })
}

/// Whether ModSecurity may be told to refuse requests; without this it only writes what it sees.
///
/// The engine is turned on by a directive, by an action of a rule, or in rules that are elsewhere.
pub(super) fn turns_modsecurity_on(text: &str) -> bool {
    let text = text.to_ascii_lowercase().replace("\\\n", " ");
    let words: Vec<_> = text
        .split_whitespace()
        .map(|word| word.trim_matches(['"', '\'']))
        .collect();
    let elsewhere = |word: &&str| matches!(*word, "include" | "includeoptional" | "secremoterules");
    text.contains("ruleengine=")
        || words.iter().any(elsewhere)
        || words.windows(2).any(|pair| pair == ["secruleengine", "on"])
}

/// The words of each simple directive; `None` for a block, an escape, or anything else whose end
/// another parser could see elsewhere.
fn directives(text: &str) -> Option<Vec<Vec<&str>>> {
    let mut directives = Vec::new();
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(WHITESPACE);
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '#' => {
                rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
                rest = rest.trim_start_matches(WHITESPACE);
                continue;
            }
            ';' => {
                directives.push(std::mem::take(&mut words));
                rest = rest[1..].trim_start_matches(WHITESPACE);
                continue;
            }
            quote @ ('"' | '\'') => {
                let inner = &rest[1..];
                let end = inner.find(quote)?;
                if inner[..end].contains('\\') {
                    return None;
                }
                words.push(&inner[..end]);
                rest = &inner[end + 1..];
                if !rest.starts_with(ends_word) {
                    return None;
                }
                rest = rest.trim_start_matches(WHITESPACE);
                continue;
            }
            _ => rest.find(ends_word)?,
        };
        let word = &rest[..end];
        if word.contains(['{', '}', '\\', '"', '\'']) {
            return None;
        }
        words.push(word);
        rest = rest[end..].trim_start_matches(WHITESPACE);
    }
    words.is_empty().then_some(directives)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directives_that_are_known_not_to_refuse_requests_pass() {
        for text in [
            "",
            "# deny all;\n",
            "add_header X-Frame-Options \"SAMEORIGIN; x\" always;\nmore_set_headers 'A: b';",
            "proxy_set_header Upgrade $http_upgrade; # a comment\n proxy_set_header Connection \"upgrade\";",
            "set $a b;;",
        ] {
            assert!(!may_restrict(text), "{text:?}");
        }
        for text in [
            "deny all;",
            "add_header A b; deny all;",
            "add_header A \"# b\"; deny all;",
            "add_header A b#; deny all;",
            "location /admin { deny all; }",
            "if ($http_x = a) { return 403; }",
            "return 403;",
            "auth_basic x;",
            "proxy_set_header X-Remote-User \"\";",
            "more_clear_input_headers X-Remote-User;",
            "add_header A 'b\\'; deny all;",
            "add_header A \"b\"c; deny all;",
            "add_header A \u{a0}# ; deny all;",
            "add_header A ${b}; deny all;",
            "add_header A \"b",
            "add_header A b",
            "Add_Header A b;",
        ] {
            assert!(may_restrict(text), "{text:?}");
        }
    }

    #[test]
    fn modsecurity_refuses_requests_only_when_it_is_on() {
        for (text, on) in [
            ("SecRuleEngine On\nSecRule x", true),
            ("secruleengine \"on\"", true),
            ("SecRuleEngine \\\n  On", true),
            ("SecAction \"id:1,phase:1,pass,ctl:ruleEngine=On\"", true),
            ("Include /etc/nginx/modsecurity/strict.conf", true),
            ("IncludeOptional \"strict.conf\"", true),
            ("SecRemoteRules key https://rules.example.com/", true),
            ("SecRuleEngine DetectionOnly", false),
            ("SecAuditLog /dev/stdout", false),
        ] {
            assert_eq!(turns_modsecurity_on(text), on, "{text}");
        }
    }
}

//! What is refused, what is removed, and what is understood.

use super::*;
use crate::http1::Field;

/// Sanitizes a request and gives `look` what came of it.
fn check<T>(
    version: Version,
    method: &str,
    target: Result<Target<'_>, Rejection>,
    fields: &[(&str, &str)],
    look: impl FnOnce(Sanitized<'_>) -> T,
) -> Result<T, Rejection> {
    let mut bytes = Vec::new();
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| Field::write(&mut bytes, name.as_bytes(), value.as_bytes()))
        .collect();
    let fields = Fields {
        head: &bytes,
        fields: &fields,
    };
    let head = RequestHead {
        version,
        method: method.as_bytes(),
        target,
        fields,
        has_body: None,
    };
    sanitize(&head).map(look)
}

fn http1<T>(
    method: &str,
    text: &str,
    fields: &[(&str, &str)],
    look: impl FnOnce(Sanitized<'_>) -> T,
) -> Result<T, Rejection> {
    check(
        Version::HTTP_11,
        method,
        target(text.as_bytes()),
        fields,
        look,
    )
}

#[test]
fn targets_are_taken_apart() {
    let parts = |authority, path, query| {
        Ok(Target {
            authority,
            path,
            query,
        })
    };
    for (text, expected) in [
        ("/", parts(None, "/", None)),
        ("/a?b?c", parts(None, "/a", Some("b?c"))),
        ("/a?", parts(None, "/a", Some(""))),
        ("http://x.y", parts(Some("x.y"), "", None)),
        ("HTTPS://x.y:8/a?b", parts(Some("x.y:8"), "/a", Some("b"))),
        ("http://x.y?b", parts(Some("x.y"), "", Some("b"))),
        ("*", parts(None, "*", None)),
        ("/a#b", Err(Rejection::Target)),
        ("/a?b#c", Err(Rejection::Target)),
        ("foo", Err(Rejection::Target)),
        ("x.y:80", Err(Rejection::Target)),
        ("ftp://x.y/", Err(Rejection::Target)),
        ("http:///a", Err(Rejection::Host)),
        ("", Err(Rejection::Target)),
    ] {
        assert_eq!(target(text.as_bytes()), expected, "{text}");
    }
    assert!(target(b"/\xff").is_err());
}

#[test]
fn a_request_has_exactly_one_valid_host() {
    use Version as V;
    for (version, text, fields, expected) in [
        (V::HTTP_11, "/", &[("host", "a.b:80")][..], Ok("a.b")),
        (V::HTTP_11, "/", &[], Err(Rejection::Host)),
        (
            V::HTTP_11,
            "/",
            &[("host", "a"), ("Host", "a")],
            Err(Rejection::Host),
        ),
        (V::HTTP_11, "/", &[("host", "a b")], Err(Rejection::Host)),
        (V::HTTP_11, "/", &[("host", "u@a")], Err(Rejection::Host)),
        (V::HTTP_11, "/", &[("host", "é")], Err(Rejection::Host)),
        (V::HTTP_11, "http://x.y/", &[("host", "a")], Ok("x.y")),
        (
            V::HTTP_11,
            "http://u@x.y/",
            &[("host", "a")],
            Err(Rejection::Host),
        ),
        (V::HTTP_11, "http://x.y/", &[], Err(Rejection::Host)),
        (V::HTTP_10, "/", &[], Ok("")),
        (V::HTTP_2, "http://x.y/", &[], Ok("x.y")),
        (V::HTTP_2, "http://x.y/", &[("host", "X.y")], Ok("x.y")),
        (
            V::HTTP_2,
            "http://x.y/",
            &[("host", "other")],
            Err(Rejection::Host),
        ),
        (V::HTTP_2, "/", &[], Err(Rejection::Host)),
    ] {
        let target = target(text.as_bytes());
        let host = check(version, "GET", target, fields, |request| {
            request.host.as_str().to_owned()
        });
        assert_eq!(
            host.as_deref().map_err(|error| *error),
            expected,
            "{version:?} {text} {fields:?}"
        );
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    use FramingError::{Both, ContentLength, TransferEncoding};
    for (method, text, fields, rejection) in [
        ("CONNECT", "/", &[("x", "y")][..], Rejection::Method),
        ("TRACE", "/", &[], Rejection::Method),
        ("GET", "*", &[], Rejection::Target),
        ("GET", "/a/../../b", &[], Rejection::Target),
        ("GET", "/%00", &[], Rejection::Target),
        (
            "POST",
            "/",
            &[("transfer-encoding", "gzip, chunked")],
            TransferEncoding.into(),
        ),
        (
            "POST",
            "/",
            &[("transfer-encoding", "x")],
            TransferEncoding.into(),
        ),
        (
            "POST",
            "/",
            &[("transfer-encoding", "chunked"), ("content-length", "1")],
            Both.into(),
        ),
        (
            "POST",
            "/",
            &[("content-length", "1"), ("content-length", "2")],
            ContentLength.into(),
        ),
        ("POST", "/", &[("expect", "200-ok")], Rejection::Expectation),
        (
            "GET",
            "/",
            &[("connection", "close, X-Forwarded-For")],
            Rejection::Connection,
        ),
        ("GET", "/", &[("connection", "Host")], Rejection::Connection),
        (
            "GET",
            "/",
            &[("connection", "a,Authorization")],
            Rejection::Connection,
        ),
    ] {
        let fields = [&[("host", "a")][..], fields].concat();
        assert_eq!(
            http1(method, text, &fields, |_| ()),
            Err(rejection),
            "{method} {text} {fields:?}"
        );
    }
    let old = check(
        Version::HTTP_10,
        "POST",
        target(b"/"),
        &[("transfer-encoding", "chunked")],
        |_| (),
    );
    assert_eq!(old, Err(FramingError::OldVersion.into()));
}

#[test]
fn options_may_ask_about_the_server() {
    let is_for_server = |method, text| {
        http1(method, text, &[("host", "a")], |request| {
            request.is_for_server
        })
    };
    assert_eq!(is_for_server("OPTIONS", "*"), Ok(true));
    assert_eq!(is_for_server("OPTIONS", "/"), Ok(false));
}

#[test]
fn fields_that_connection_names_are_known() {
    let fields = [
        ("host", "a"),
        ("connection", "keep-alive, X-Secret"),
        ("Connection", "other,close"),
    ];
    http1("GET", "/", &fields, |mut request| {
        for (name, named) in [
            ("x-secret", true),
            ("OTHER", true),
            ("keep-alive", false),
            ("close", false),
        ] {
            assert_eq!(request.named.contains(name.as_bytes()), named, "{name}");
        }
    })
    .unwrap();
}

#[test]
fn only_a_whole_websocket_request_upgrades() {
    let whole = [
        ("host", "a"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
    ];
    let upgrade = |method: &str, fields: &[(&str, &str)]| {
        http1(method, "/", fields, |request| request.upgrade).unwrap()
    };
    assert!(upgrade("GET", &whole));
    assert!(!upgrade("POST", &whole));
    for missing in 1..whole.len() {
        let mut fields = whole.to_vec();
        let (name, _) = fields.remove(missing);
        assert!(!upgrade("GET", &fields), "without {name}");
    }
    assert!(!upgrade(
        "GET",
        &[&whole[..2], &[("upgrade", "h2c")], &whole[3..]].concat()
    ));
    assert!(!upgrade(
        "GET",
        &[&whole[..], &[("content-length", "1")]].concat()
    ));
}

#[test]
fn an_identity_of_the_client_is_taken_if_it_is_short_text() {
    let long = "x".repeat(129);
    for (value, taken) in [
        ("mine", true),
        ("", false),
        (&*long, false),
        ("a\u{e9}", false),
    ] {
        let fields = [("host", "a"), ("x-request-id", value)];
        let id = http1("GET", "/", &fields, |request| request.request_id.is_some());
        assert_eq!(id, Ok(taken), "{value}");
    }
}

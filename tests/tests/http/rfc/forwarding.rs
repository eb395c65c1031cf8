//! What the proxy says of the client, and what the client may not say of itself.

use super::{
    case::{forward, get},
    check::check,
};

#[test]
fn forwarding_fields_are_the_proxys_own() {
    let cases: [(&str, &[&str], &[&str]); 15] = [
        (
            "",
            &[
                "x-real-ip: 127.0.0.1",
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-host: a",
                "x-forwarded-proto: http",
                "x-forwarded-scheme: http",
                "x-scheme: http",
            ],
            &[
                "x-original-forwarded-for",
                "x-original-forwarded-host",
                "forwarded",
                "via",
            ],
        ),
        (
            "X-Forwarded-For: 192.0.2.1\r\n",
            &[
                "x-forwarded-for: 127.0.0.1",
                "x-original-forwarded-for: 192.0.2.1",
            ],
            &[],
        ),
        (
            "X-Forwarded-For: 192.0.2.1\r\nX-FORWARDED-FOR: b\r\n",
            &[
                "x-forwarded-for: 127.0.0.1",
                "x-original-forwarded-for: 192.0.2.1, b",
            ],
            &[],
        ),
        (
            "X-Forwarded-Host: evil\r\n",
            &["x-forwarded-host: a", "x-original-forwarded-host: evil"],
            &["x-original-forwarded-for"],
        ),
        (
            "X-Original-Forwarded-For: evil\r\n",
            &["x-forwarded-for: 127.0.0.1"],
            &["x-original-forwarded-for"],
        ),
        (
            "X-Original-Forwarded-Host: evil\r\n",
            &["x-forwarded-host: a"],
            &["x-original-forwarded-host"],
        ),
        (
            "X-Original-Forwarded-For: evil\r\nX-Forwarded-For: b\r\n",
            &["x-original-forwarded-for: b"],
            &[],
        ),
        (
            "X-Original-Forwarded-Proto: evil\r\n",
            &[],
            &["x-original-forwarded-proto"],
        ),
        ("X-Real-IP: 192.0.2.1\r\n", &["x-real-ip: 127.0.0.1"], &[]),
        (
            "X-Forwarded-Proto: https\r\n",
            &["x-forwarded-proto: http"],
            &[],
        ),
        (
            "X-Forwarded-Scheme: https\r\n",
            &["x-forwarded-scheme: http"],
            &[],
        ),
        ("X-Scheme: https\r\n", &["x-scheme: http"], &[]),
        (
            "Forwarded: for=192.0.2.1;host=evil\r\n",
            &[],
            &["forwarded"],
        ),
        ("Proxy: http://evil\r\n", &[], &["proxy"]),
        ("X-Request-ID: mine-1\r\n", &["x-request-id: mine-1"], &[]),
    ];
    check(cases.map(|(lines, has, lacks)| {
        forward("9110 17.1; 7239 8.1", get(lines), "GET /x none -")
            .has(has)
            .lacks(lacks)
    }));
}

//! How much of a head is read.

use super::{
    case::{End, Step, dialogue, forward, get, refuse},
    check::check,
};

#[test]
fn a_head_over_the_limits_is_too_large() {
    let fields = |count: usize| "X: y\r\n".repeat(count);
    let field = |size: usize| format!("X: {}\r\n", "y".repeat(size));
    let target = |size: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(size));
    check([
        refuse("6585 5: one long value", "431", get(field(33 * 1024))),
        refuse(
            "6585 5: one long name",
            "431",
            get(format!("{}: y\r\n", "X".repeat(33 * 1024))),
        ),
        refuse(
            "6585 5: many long values",
            "431",
            get(field(4000).repeat(9)),
        ),
        refuse("6585 5: many fields", "431", get(fields(100))),
        refuse("6585 5: very many fields", "431", get(fields(1000))),
        refuse("9110 15.5.15: a long target", "414|431", target(40 * 1024)),
        refuse(
            "9110 15.5.15: a very long target",
            "414|431",
            target(100 * 1024),
        ),
        refuse(
            "6585 5: a line without an end",
            "414|431",
            "x".repeat(100 * 1024),
        ),
    ]);
    let open = format!("GET /x HTTP/1.1\r\nHost: a\r\n{}", fields(100));
    let too_many = [Step::Send(open.into()), Step::Answer("431")];
    check([dialogue("6585 5: too many before the end", too_many)
        .end(End::Closed)
        .arrives(&[])]);
    check([
        forward("6585 5: one value", get(field(30 * 1024)), "GET /x none -"),
        forward(
            "6585 5: as many fields as there may be",
            get(fields(99)),
            "GET /x none -",
        ),
    ]);
    let long: &'static str = format!("GET /{} none -", "x".repeat(8000)).leak();
    check([forward("9112 3: at least 8000", target(8000), long)]);
}

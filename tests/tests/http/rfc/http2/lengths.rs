//! `content-length` against what the frames hold (RFC 9113 section 8.1.1).

use super::{
    case::{Body, forward, post, refuse, request},
    check::check,
};

const REFUSED: &str = "400|reset";

#[test]
fn a_length_is_what_comes() {
    let own: [(&str, &str, Body, &str); 5] = [
        (
            "9113 8.1.1",
            "5",
            Body::Data(&["hello"]),
            "POST /x length hello",
        ),
        (
            "9113 8.1.1",
            "5",
            Body::Data(&["he", "", "llo", ""]),
            "POST /x length hello",
        ),
        (
            "9113 6.1: padding is no content",
            "5",
            Body::Padded("hello", 20),
            "POST /x length hello",
        ),
        ("9113 8.1.1: nothing", "0", Body::None, "POST /x length -"),
        (
            "9113 8.1.1: nothing",
            "0",
            Body::Data(&[""]),
            "POST /x length -",
        ),
    ];
    check(own.map(|(section, length, body, arrives)| {
        forward(section, post(&[("content-length", length)]), arrives).body(body)
    }));
    let get = request("GET", "/x", &[("content-length", "5")]);
    check([forward("9110 9.3.1", get, "GET /x length hello").body(Body::Data(&["hello"]))]);
}

#[test]
fn a_length_that_is_not_what_comes_is_refused() {
    let own: [(&str, &str, Body, &str); 5] = [
        (
            "9113 8.1.1: too little",
            "5",
            Body::Data(&["hell"]),
            "POST /x length hello",
        ),
        (
            "9113 8.1.1: too little",
            "5",
            Body::Data(&["he", "ll", ""]),
            "POST /x length hello",
        ),
        (
            "9113 8.1.1: nothing",
            "5",
            Body::None,
            "POST /x length hello",
        ),
        (
            "9113 8.1.1: nothing",
            "5",
            Body::Data(&[""]),
            "POST /x length hello",
        ),
        (
            "9113 8.1.1: too much",
            "5",
            Body::Data(&["hellothere"]),
            "POST /x length hello",
        ),
    ];
    check(own.map(|(section, length, body, whole)| {
        refuse(section, REFUSED, post(&[("content-length", length)]))
            .body(body)
            .breaks_off(whole)
    }));
}

#[test]
fn what_comes_after_a_length_is_reached_goes_nowhere() {
    let own: [(&str, Body, &str); 2] = [
        ("5", Body::Data(&["hello", "x"]), "POST /x length hello"),
        ("0", Body::Data(&["x"]), "POST /x length -"),
    ];
    // The request may be on its way, and even answered, before the frame that is too much comes.
    check(own.map(|(length, body, whole)| {
        let fields = post(&[("content-length", length)]);
        refuse("9113 8.1.1: too much", "200|400|reset", fields)
            .body(body)
            .arrives_at_most(whole)
    }));
}

#[test]
fn a_length_is_one_number() {
    let values = [
        "+5",
        "-5",
        "0x5",
        "5 5",
        "5, 5",
        "5,",
        "",
        "x",
        "5.0",
        "18446744073709551621",
    ];
    check(values.map(|value| {
        refuse("9110 8.6", REFUSED, post(&[("content-length", value)])).body(Body::Data(&["hello"]))
    }));
    let two = [("content-length", "5"), ("content-length", "6")];
    check([refuse("9110 8.6: two", REFUSED, post(&two)).body(Body::Data(&["hello"]))]);
}

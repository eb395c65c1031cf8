//! Any bytes of a client, whole and byte by byte, through a whole worker: what the endpoint reads is
//! the requests that the client sent, each exactly once, with the same method, target, fields, framing
//! and body. Two other readers decide that: a forgiving one says what the client can have meant, a
//! strict one what the endpoint gets.
#![no_main]

use forebay_fuzz::{
    forwarded::Wanted,
    oracle::{End, Framing, Manner, Request, final_response, is_token, requests},
    pace::Pace,
    site::{Agreeing, Seen, Site},
};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static SITE: Site = Site::default();
}

fuzz_target!(|bytes: &[u8]| {
    // HTTP/2 has a target of its own.
    if bytes.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") {
        return;
    }
    // Byte by byte takes its time.
    let slow = if bytes.len() < 512 {
        Pace::BYTES
    } else {
        Pace::of(b"17")
    };
    for pace in [Pace::WHOLE, slow] {
        let seen = SITE.with(|site| site.run(bytes, pace, &mut Agreeing));
        check(bytes, &seen);
    }
});

fn check(bytes: &[u8], seen: &Seen) {
    let sent = requests(bytes, Manner::Forgiving);
    let received: Vec<Request> = seen
        .endpoint
        .iter()
        .flat_map(|received| requests(received, Manner::Strict))
        .collect();
    let mut received = received.iter();
    let mut methods = Vec::new();
    // Whether the connection surely goes on, and whether it may.
    let (mut is_sure, mut goes_on) = (true, true);
    for request in &sent {
        if !goes_on {
            break;
        }
        methods.push(request.method.as_slice());
        goes_on = keeps_alive(request);
        let must_arrive = is_sure && is_plain(request) && request.body.end == End::Whole;
        if request.method == b"OPTIONS" && request.target == b"*" {
            // Answered on the spot, or refused. What it brings along is not waited for.
            is_sure = must_arrive && request.framing == Framing::None;
            continue;
        }
        let Some(got) = received.next() else {
            assert!(!must_arrive, "a good request did not arrive: {request:?}");
            // It was refused, and with it the connection.
            break;
        };
        let wanted = Wanted::of(request)
            .unwrap_or_else(|| panic!("its target is none, but it arrived: {request:?}"));
        wanted.check(got);
        assert!(
            !must_arrive || got.body.end == End::Whole,
            "a good request stands still: {request:?}"
        );
    }
    assert_eq!(
        received.next(),
        None,
        "the endpoint got more than was sent: {sent:?}"
    );
    check_answers(&seen.client, &methods);
}

/// The methods of what is no request, as far as its answer tells.
const ANY: [&[u8]; 2] = [b"GET", b"HEAD"];

/// The client gets whole responses, and no more than it is due: one for each request, and one for
/// what is none.
fn check_answers(mut bytes: &[u8], methods: &[&[u8]]) {
    let mut answered = 0;
    while !bytes.is_empty() {
        // What is none may have looked like a HEAD.
        let own = methods.get(answered).map_or(&ANY[..], std::slice::from_ref);
        let read = |method: &&[u8]| {
            let (_, read) = final_response(bytes, method, true, Manner::Strict);
            read.done()
                .filter(|response| response.body.end == End::Whole)
        };
        match own.iter().find_map(read) {
            Some(response) => bytes = &bytes[response.length..],
            // For one that waits for it.
            None if bytes == b"HTTP/1.1 100 Continue\r\n\r\n" => break,
            None => panic!("the client got no response: {}", bytes.escape_ascii()),
        }
        answered += 1;
    }
    assert!(
        answered <= methods.len() + 1,
        "{answered} responses for {} requests",
        methods.len()
    );
}

/// Whether the client may send another request.
fn keeps_alive(request: &Request) -> bool {
    let options = request.head.members("connection");
    let has = |option: &[u8]| options.iter().any(|own| own == option);
    !has(b"close") && (!request.http10 || has(b"keep-alive"))
}

/// Whether nothing about it could be found fault with by anyone: it must arrive.
fn is_plain(request: &Request) -> bool {
    let is_word = |text: &[u8]| text.iter().all(u8::is_ascii_alphanumeric);
    let host: Vec<&[u8]> = request.head.values("host").collect();
    let is_plain_host =
        matches!(host.as_slice(), [host] if !host.is_empty() && host.len() < 60 && is_word(host));
    !request.http10
        && is_token(&request.method)
        && !matches!(&*request.method, b"CONNECT" | b"TRACE")
        && (request.target == b"*" && request.method == b"OPTIONS"
            || request.target.starts_with(b"/") && is_word(&request.target[1..]))
        && is_plain_host
        && request.head.length < 16 * 1024
        && request.head.fields.len() < 100
        && request.head.fields.iter().all(|field| {
            matches!(
                &*field.name,
                b"host" | b"content-length" | b"transfer-encoding" | b"accept" | b"cookie"
            )
        })
        && match request.framing {
            Framing::Length(length) => length < 1 << 20,
            _ => true,
        }
}

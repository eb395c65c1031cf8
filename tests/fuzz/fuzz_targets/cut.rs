//! A request and its response, cut at any byte and taken as slowly as the input wants: client and
//! endpoint get what they get when all comes at once.
//!
//! The input is three parts with a line `--` between them: in which pieces bytes move (see `Pace`; `!`
//! before it has the endpoint answer without waiting for the request), the request, the response.
#![no_main]

use forebay_fuzz::{
    oracle::{End, Field, Framing, Manner, Read, Request, Response, final_response, request},
    pace::{Pace, parts},
    site::{Answer, Endpoint, Seen, Site},
};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static SITE: Site = Site::default();
}

/// The request of an input that has none.
const ANY: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n";
/// The response of an input that has none.
const FINE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fuzz_target!(|input: &[u8]| {
    let mut parts = parts(input);
    let sizes = parts.next().unwrap_or_default();
    let bytes = parts.next().filter(|part| !part.is_empty()).unwrap_or(ANY);
    let answer = parts.next().unwrap_or(FINE);
    let (sizes, waits) = match sizes {
        [b'!', sizes @ ..] => (sizes, false),
        sizes => (sizes, true),
    };
    // One request: what follows it depends on how the first one ended.
    let sent = request(bytes, Manner::Forgiving).done();
    let bytes = match &sent {
        Some(sent) if sent.body.end == End::Whole => &bytes[..sent.length],
        Some(_) => bytes,
        None => return,
    };
    let Some(sent) = sent else { return };
    let run = |pace| {
        let mut endpoint = Scripted { answer, waits };
        SITE.with(|site| site.run(bytes, pace, &mut endpoint))
    };
    let (whole, cut) = (run(Pace::WHOLE), run(Pace::of(sizes)));
    let (whole, cut) = (Outcome::of(&whole, &sent), Outcome::of(&cut, &sent));
    if let (true, End::Broken(reason)) = (waits, sent.body.end) {
        // How much of it went on before that was seen is a matter of pieces.
        assert_eq!(whole.response, cut.response, "at once, and cut");
        for arrived in whole.arrived.iter().chain(&cut.arrived) {
            assert!(!arrived.is_whole, "a body was ended that is none: {reason}");
        }
    } else if waits {
        assert_eq!(whole, cut, "at once, and cut");
    } else if sent.body.end == End::Whole {
        // Who gets a response before the request is read may stop sending it.
        assert_eq!(whole.response, cut.response, "at once, and cut");
    }
    if waits && !whole.arrived.is_empty() && sent.body.end == End::Whole {
        whole.response.check(&sent, answer);
    }
});

/// An endpoint that sends the same bytes whatever it gets, and closes the connection.
struct Scripted<'a> {
    answer: &'a [u8],
    /// For a whole request.
    waits: bool,
}

impl Endpoint for Scripted<'_> {
    fn answer(&mut self, received: &[u8]) -> Answer {
        let is_whole = match request(received, Manner::Strict) {
            Read::Done(request) => request.body.end == End::Whole,
            Read::Open => false,
            Read::Bad(reason) => panic!("the endpoint got no request: {reason}"),
        };
        if self.waits && !is_whole {
            return Answer::default();
        }
        Answer {
            bytes: self.answer.to_vec(),
            closes: true,
        }
    }
}

/// What client and endpoint know in the end, whatever the pieces in which they learned it.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    response: Got,
    /// The requests that arrived: more than one where the first was in vain.
    arrived: Vec<Arrived>,
}

#[derive(Debug, PartialEq, Eq)]
struct Arrived {
    head: Vec<Field>,
    framing: Framing,
    data: Vec<u8>,
    trailers: Vec<Field>,
    is_whole: bool,
}

/// What the client got.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    /// A whole response, after these interim ones.
    Whole(Vec<u16>, Message),
    /// Nothing, so far.
    Nothing,
    /// A failure that shows: one of our own, or a response that breaks off.
    Failure,
}

#[derive(Debug, PartialEq, Eq)]
struct Message {
    status: u16,
    fields: Vec<Field>,
    data: Vec<u8>,
    trailers: Vec<Field>,
}

impl Outcome {
    fn of(seen: &Seen, sent: &Request) -> Self {
        let arrived = seen.endpoint.iter().filter(|bytes| !bytes.is_empty());
        Self {
            response: Got::of(seen, sent),
            arrived: arrived.filter_map(|bytes| Arrived::of(bytes)).collect(),
        }
    }
}

impl Arrived {
    /// `None` where the head is not whole.
    fn of(bytes: &[u8]) -> Option<Self> {
        let request = request(bytes, Manner::Strict).done()?;
        let is_whole = request.body.end == End::Whole;
        Some(Self {
            head: request.head.fields,
            framing: request.framing,
            // How much goes on before the rest turns out to be none is a matter of pieces.
            data: if is_whole {
                request.body.data
            } else {
                Vec::new()
            },
            trailers: request.body.trailers,
            is_whole,
        })
    }
}

impl Got {
    fn of(seen: &Seen, sent: &Request) -> Self {
        // Only an orderly end of the connection can be the end of a body.
        let closed = matches!(
            seen.end,
            ingress_proxy::fuzz::End::ShutDown | ingress_proxy::fuzz::End::Closed
        );
        if seen.client.is_empty() && seen.end == ingress_proxy::fuzz::End::Open {
            return Self::Nothing;
        }
        let (interim, read) = final_response(&seen.client, &sent.method, closed, Manner::Strict);
        match read {
            Read::Done(response) if response.body.end == End::Whole => {
                if response.status == 101 {
                    assert_eq!(interim.len(), 0, "an interim response before 101");
                }
                assert_eq!(
                    response.length,
                    seen.client.len(),
                    "the client got more than its response"
                );
                if response.status == 502 {
                    return Self::Failure;
                }
                let interim = interim
                    .iter()
                    .map(|interim| interim.status)
                    // Who asks for the body early enough need not be told to send it.
                    .filter(|status| *status != 100)
                    .collect();
                Self::Whole(interim, Message::of(response))
            }
            Read::Done(_) => Self::Failure,
            Read::Open if seen.end == ingress_proxy::fuzz::End::Open => Self::Nothing,
            Read::Open => Self::Failure,
            Read::Bad(reason) => panic!(
                "the client got no response, {reason}: {}",
                seen.client.escape_ascii()
            ),
        }
    }

    /// Checks that the response is the one in `answer`, as another reader sees it.
    fn check(&self, sent: &Request, answer: &[u8]) {
        let (_, read) = final_response(answer, &sent.method, true, Manner::Forgiving);
        match (read, self) {
            (Read::Done(wanted), Self::Whole(_, got)) => {
                assert_eq!(got.status, wanted.status, "status");
                assert_eq!(got.data, wanted.body.data, "body");
                assert_eq!(
                    wanted.body.end,
                    End::Whole,
                    "a response that is not whole was ended"
                );
            }
            (Read::Done(wanted), Self::Nothing | Self::Failure) => assert!(
                wanted.body.end != End::Whole || wanted.status == 502 || !is_plain(&wanted),
                "a good response did not arrive: {wanted:?}"
            ),
            (Read::Open | Read::Bad(_), Self::Whole(_, got)) => {
                panic!("a response came of what is none: {got:?}")
            }
            (Read::Open | Read::Bad(_), _) => {}
        }
    }
}

/// Whether nothing about it could be found fault with: it must arrive.
fn is_plain(response: &Response) -> bool {
    response.head.length < 16 * 1024 && response.head.fields.len() < 100 && response.status != 101
}

impl Message {
    fn of(response: Response) -> Self {
        let is_ours = |field: &Field| field.name == b"date";
        // How a body ends is said in the way that the pieces allowed.
        let mut fields = response.head.fields;
        fields.retain(|field| !is_ours(field));
        Self {
            status: response.status,
            fields,
            data: response.body.data,
            trailers: response.body.trailers,
        }
    }
}

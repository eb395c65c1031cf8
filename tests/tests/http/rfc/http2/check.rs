//! Runs cases over HTTP/2 and compares both sides with what they must have seen.

use super::{
    super::{
        check::{begins, compare_fields},
        message::{Message, text},
        recorder::{Arrivals, Recorder},
    },
    case::{Arrives, Body, Case, Field, NONE, request},
    frame::{self, CONTINUATION, Connection, DATA, END_HEADERS, END_STREAM, HEADERS, Outcome},
    hpack,
};
use crate::proxy::{Cluster, Proxy};

/// Runs the cases, each on a proxy of its own, and fails with all that went wrong.
#[track_caller]
pub(super) fn check(cases: impl IntoIterator<Item = Case>) {
    let (mut count, mut failures) = (0, Vec::new());
    for case in cases {
        count += 1;
        if let Err(failure) = run(&case) {
            let field = |(name, value): &Field| format!("{}: {}", text(name), text(value));
            let fields: Vec<_> = case.fields.iter().map(field).collect();
            failures.push(format!(
                "  RFC {}: {failure}\n      {}\n      {:?}",
                case.section,
                fields.join(", ").chars().take(400).collect::<String>(),
                case.body
            ));
        }
    }
    assert!(count > 0, "no cases");
    assert!(
        failures.is_empty(),
        "{} of {count} cases:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

fn run(case: &Case) -> Result<(), String> {
    let recorder = Recorder::start(case.replies.clone());
    let proxy = Proxy::start(&Cluster::of(&[recorder.address]));
    let mut connection = Connection::open(proxy.http);
    let talked = talk(case, &mut connection, &recorder);
    drop(connection);
    let panics = proxy.metric("forebay_panics_total{worker=\"0\"}");
    // The endpoint's connections end with the worker: then all that was sent has arrived.
    drop(proxy);
    let arrivals = recorder.finish();
    let probed = talked.map_err(|error| format!("{error}; {arrivals}"))?;
    if panics > 0 {
        return Err("a panic".to_owned());
    }
    compare(case, arrivals, probed)
}

/// Sends the request, and a probe where the connection lives on; says whether it has.
fn talk(case: &Case, connection: &mut Connection, recorder: &Recorder) -> Result<bool, String> {
    send(case, connection, recorder)?;
    let outcome = match case.body {
        // The proxy owes nothing for a stream that the client has ended.
        Body::Reset(..) => None,
        _ => Some(connection.outcome(1)?),
    };
    if let Some(outcome) = &outcome
        && !case.outcome.split('|').any(|one| is(outcome, one))
    {
        return Err(format!("expected {:?}, got {outcome:?}", case.outcome));
    }
    if outcome == Some(Outcome::Gone) {
        return Ok(false);
    }
    send_fields(
        connection,
        3,
        END_STREAM,
        &request("GET", "/probe", NONE),
        usize::MAX,
    );
    match connection.outcome(3)? {
        outcome if is(&outcome, "200 /probe") => Ok(true),
        outcome => Err(format!("the probe got {outcome:?}")),
    }
}

fn send(case: &Case, connection: &mut Connection, recorder: &Recorder) -> Result<(), String> {
    let flags = match case.body {
        Body::None => END_STREAM,
        _ => 0,
    };
    send_fields(connection, 1, flags, &case.fields, case.cut);
    match &case.body {
        Body::None => {}
        Body::Data(pieces) => {
            for (at, piece) in pieces.iter().enumerate() {
                let flags = if at + 1 == pieces.len() {
                    END_STREAM
                } else {
                    0
                };
                connection.send(DATA, flags, 1, piece.as_bytes());
            }
        }
        Body::Padded(data, size) => {
            let padding = vec![0; usize::from(*size)];
            let payload = [&[*size], data.as_bytes(), &padding].concat();
            connection.send(DATA, END_STREAM | frame::PADDED, 1, &payload);
        }
        Body::Trailers(data, trailers) => {
            connection.send(DATA, 0, 1, data.as_bytes());
            send_fields(connection, 1, END_STREAM, trailers, usize::MAX);
        }
        Body::Reset(data, code) => {
            connection.send(DATA, 0, 1, data.as_bytes());
            if !recorder.has_received(data.as_bytes()) {
                return Err(format!("{data:?} did not arrive"));
            }
            connection.send(frame::RST_STREAM, 0, 1, &code.to_be_bytes());
        }
    }
    Ok(())
}

fn send_fields(connection: &mut Connection, stream: u32, flags: u8, own: &[Field], cut: usize) {
    let coded = own.iter().map(|(name, value)| hpack::field(name, value));
    let block = coded.collect::<Vec<_>>().concat();
    let frames = match &block[..] {
        [] => vec![&block[..]],
        block => block.chunks(cut.min(16 * 1024)).collect(),
    };
    for (at, frame) in frames.iter().enumerate() {
        let last = if at + 1 == frames.len() {
            END_HEADERS
        } else {
            0
        };
        match at {
            0 => connection.send(HEADERS, flags | last, stream, frame),
            _ => connection.send(CONTINUATION, last, stream, frame),
        }
    }
}

/// Whether an outcome is the one that was `expected`.
fn is(outcome: &Outcome, expected: &str) -> bool {
    match outcome {
        Outcome::Answer { status, body } => match expected.split_once(' ') {
            Some((code, shown)) => *code == status.to_string() && body == shown,
            None => expected == status.to_string(),
        },
        Outcome::Reset(_) | Outcome::Gone => expected == "reset",
    }
}

fn compare(case: &Case, mut arrivals: Arrivals, probed: bool) -> Result<(), String> {
    let shown = arrivals.to_string();
    if probed {
        let probe = arrivals
            .messages
            .iter()
            .position(|message| message.start == "GET /probe");
        let probe = probe.ok_or_else(|| format!("the probe did not arrive; {shown}"))?;
        arrivals.messages.remove(probe);
    }
    match &case.arrives {
        Arrives::Exactly(expected) => {
            let all = arrivals.messages.iter().map(ToString::to_string);
            if all.chain(arrivals.stray).collect::<Vec<_>>() != *expected {
                return Err(format!("not {expected:?}; {shown}"));
            }
        }
        Arrives::Unfinished(whole) | Arrives::AtMost(whole) => {
            let may_be_whole = matches!(case.arrives, Arrives::AtMost(_));
            let fits = |message: &Message| {
                begins(message, whole) || may_be_whole && message.to_string() == *whole
            };
            let half = |stray: &String| stray.starts_with("half a head");
            if arrivals.messages.len() > 1
                || !arrivals.messages.iter().all(fits)
                || !arrivals.stray.iter().all(half)
            {
                return Err(shown);
            }
        }
    }
    match arrivals.messages.first() {
        Some(first) => compare_fields("the request", first, &case.has, &case.lacks, &[]),
        None if case.has.is_empty() => Ok(()),
        None => Err(format!("no request to look at; {shown}")),
    }
}

//! Runs cases and compares both sides with what they must have seen.

use super::{
    case::{Arrives, Case, End, Step},
    client::Client,
    message::{Kind, Message, text},
    recorder::{Arrivals, Recorder},
};
use crate::proxy::{Cluster, Proxy};

/// A request that is sent after every good one: it must be answered as if nothing had come before.
const PROBE: &[u8] = b"GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n";

/// Runs the cases, each on a proxy of its own, and fails with all that went wrong.
#[track_caller]
pub(super) fn check(cases: impl IntoIterator<Item = Case>) {
    let (mut count, mut failures) = (0, Vec::new());
    for case in cases {
        count += 1;
        if let Err(failure) = run(&case) {
            let sent = case
                .steps
                .iter()
                .map(|step| format!("\n      {}", shown(step)));
            let sent: String = sent.collect();
            let replies = case
                .replies
                .iter()
                .filter_map(|reply| reply.bytes.as_deref());
            let replies: String = replies
                .map(|reply| format!("\n      reply {}", cut(reply)))
                .collect();
            failures.push(format!("  RFC {}: {failure}{sent}{replies}", case.section));
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

fn shown(step: &Step) -> String {
    match step {
        Step::Send(bytes) => format!("send {}", cut(bytes)),
        Step::Drip(bytes) => format!("drip {}", cut(bytes)),
        other => format!("{other:?}"),
    }
}

/// Bytes for a message, but for the middle of a long run.
fn cut(bytes: &[u8]) -> String {
    match bytes.len() {
        0..=400 => text(bytes),
        length => format!("{}… ({length} bytes)", text(&bytes[..200])),
    }
}

fn run(case: &Case) -> Result<(), String> {
    let recorder = Recorder::start(case.replies.clone());
    let proxy = Proxy::start(&Cluster::of(&[recorder.address]));
    let mut client = Client::connect(proxy.http);
    let answered = converse(case, &mut client, &recorder);
    drop(client);
    let panics = proxy.metric("forebay_panics_total{worker=\"0\"}");
    // The endpoint's connections end with the worker: then all that was sent has arrived.
    drop(proxy);
    let arrivals = recorder.finish();
    let answered = answered.map_err(|error| format!("{error}; {arrivals}"))?;
    if panics > 0 {
        return Err("a panic".to_owned());
    }
    if let Some(answer) = answered {
        compare_answer(case, &answer)?;
    }
    compare_arrivals(case, arrivals)
}

/// Takes the steps; the last answer, if there was one.
fn converse(
    case: &Case,
    client: &mut Client,
    recorder: &Recorder,
) -> Result<Option<Message>, String> {
    let mut last = None;
    for step in &case.steps {
        match step {
            Step::Send(bytes) => client.send(bytes),
            Step::Drip(bytes) => bytes.iter().for_each(|byte| client.send(&[*byte])),
            Step::ShutDown => client.shut_down(),
            Step::Raw(bytes) => client.raw(bytes.as_bytes())?,
            Step::Answer(expected) => {
                let (kind, expected) = match expected.strip_prefix("HEAD ") {
                    Some(expected) => (Kind::ResponseToHead, expected),
                    None => (Kind::Response, *expected),
                };
                let answer = client.answer(kind)?;
                if !expected.split('|').any(|one| is(answer.as_ref(), one)) {
                    let got = answer.map_or("closed".to_owned(), |answer| answer.to_string());
                    return Err(format!("expected {expected:?}, got {got:?}"));
                }
                last = answer.or(last);
            }
            Step::Arrived(bytes) if !recorder.has_received(bytes.as_bytes()) => {
                return Err(format!("{bytes:?} did not arrive"));
            }
            Step::Answered(count) if !recorder.has_answered(*count) => {
                return Err(format!("the endpoint did not answer {count} requests"));
            }
            Step::Arrived(_) | Step::Answered(_) => {}
        }
    }
    match case.end {
        End::Any => {}
        End::Closed => client.end()?,
        End::Open => {
            client.send(PROBE);
            let probe = client.answer(Kind::Response)?;
            if !is(probe.as_ref(), "200 /probe") {
                let got = probe.map_or("closed".to_owned(), |probe| probe.to_string());
                return Err(format!("the probe got {got:?}"));
            }
        }
    }
    Ok(last)
}

/// Whether an answer, or the lack of one, is the one that was `expected`.
fn is(answer: Option<&Message>, expected: &str) -> bool {
    let Some(answer) = answer else {
        return expected == "closed";
    };
    if !expected.contains(' ') {
        return answer.whole && answer.start == expected;
    }
    // How the body was framed is asked apart from this.
    let shown = answer.to_string();
    let mut parts = shown.splitn(3, ' ');
    let (status, _, body) = (parts.next(), parts.next(), parts.next());
    expected.split_once(' ') == status.zip(body)
}

fn compare_answer(case: &Case, answer: &Message) -> Result<(), String> {
    compare_fields(
        "the answer",
        answer,
        &case.told,
        &case.untold,
        &case.told_spelled,
    )?;
    match case.framing {
        Some(framing) if answer.framing != framing => {
            Err(format!("answered by {:?}, not {framing:?}", answer.framing))
        }
        _ => Ok(()),
    }
}

/// Whether a message is a beginning of `whole`, and not all of it.
pub(super) fn begins(message: &Message, whole: &str) -> bool {
    let shown = message.to_string();
    let start = shown.strip_suffix(" cut");
    start.is_some_and(|start| whole.starts_with(start.trim_end_matches('-')))
}

pub(super) fn compare_fields(
    whose: &str,
    message: &Message,
    has: &[&str],
    lacks: &[&str],
    spelled: &[&str],
) -> Result<(), String> {
    for line in has {
        let (name, expected) = line.split_once(": ").unwrap_or((line, ""));
        let values: Vec<_> = message.values(name).map(text).collect();
        if values.join("|") != expected || values.is_empty() {
            return Err(format!("{whose} has {name} {values:?}, not {expected:?}"));
        }
    }
    for name in lacks {
        if let Some(value) = message.values(name).next() {
            return Err(format!("{whose} has {name}: {}", text(value)));
        }
    }
    for name in spelled {
        if !message.fields.iter().any(|(own, _)| own == name) {
            let names: Vec<_> = message.fields.iter().map(|(own, _)| own).collect();
            return Err(format!("{whose} has no {name} in {names:?}"));
        }
    }
    Ok(())
}

fn compare_arrivals(case: &Case, mut arrivals: Arrivals) -> Result<(), String> {
    let shown = arrivals.to_string();
    if case.end == End::Open {
        match arrivals.messages.pop() {
            Some(probe) if probe.to_string() == "GET /probe none -" => {}
            _ => return Err(format!("the probe did not arrive last; {shown}")),
        }
    }
    let is_stray = match &case.arrives {
        Arrives::Exactly(expected) => {
            let all: Vec<_> = arrivals.messages.iter().map(ToString::to_string).collect();
            let all: Vec<_> = all.iter().chain(&arrivals.stray).collect();
            if all != *expected {
                return Err(format!("not {expected:?}; {shown}"));
            }
            false
        }
        Arrives::Unfinished(whole) => {
            arrivals.messages.len() > 1
                || !arrivals
                    .messages
                    .iter()
                    .all(|message| begins(message, whole))
                || arrivals
                    .stray
                    .iter()
                    .any(|stray| !stray.starts_with("half a head"))
        }
        Arrives::Anything => !arrivals.stray.is_empty(),
    };
    if is_stray {
        return Err(shown);
    }
    if let Some(expected) = case.connections
        && arrivals.connections != expected
    {
        return Err(format!(
            "{} connections, not {expected}",
            arrivals.connections
        ));
    }
    match arrivals.messages.first() {
        Some(first) => compare_fields("the request", first, &case.has, &case.lacks, &case.spelled),
        None if case.has.is_empty() && case.spelled.is_empty() => Ok(()),
        None => Err(format!("no request to look at; {shown}")),
    }
}

impl std::fmt::Display for Arrivals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let messages: Vec<_> = self.messages.iter().map(ToString::to_string).collect();
        write!(f, "arrived: {messages:?}")?;
        match &self.stray[..] {
            [] => Ok(()),
            stray => write!(f, ", stray: {stray:?}"),
        }
    }
}

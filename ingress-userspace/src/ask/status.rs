//! `forebay status`: what is in force and what is wrong, for people, for programs and for probes.

use std::{
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{client, output};
use crate::config::{ADMIN_SOCKET, StatusArgs};

/// Prints the status of the running Forebay; with `--ready` or `--healthy`, one line and an exit
/// code for a probe.
///
/// # Errors
/// No Forebay answers, or it answers what is no status.
pub(crate) fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let socket = args.admin.path(ADMIN_SOCKET);
    let probe = if args.ready {
        Some("/readyz")
    } else if args.healthy {
        Some("/healthz")
    } else {
        None
    };
    if let Some(target) = probe {
        let (status, body) = client::get(&socket, target)?;
        output::print(&body)?;
        return Ok(if status == 200 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    let (status, body) = client::get(&socket, "/status")?;
    ensure!(status == 200, "it answers {status}: {}", body.trim_end());
    if args.json {
        output::print(&body)?;
    } else {
        let status = serde_json::from_str(&body).context("it answers no status")?;
        output::print(&summary(&status, SystemTime::now()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(status: &Value, now: SystemTime) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let node = text(&status["node"]).map(|node| format!(" on {node}"));
    let readiness = match text(&status["not_ready"]) {
        Some(reason) => format!("not ready: {reason}"),
        None => "ready".to_owned(),
    };
    let mut summary = format!(
        "Forebay {}{}: {readiness}\n",
        text(&status["version"]).unwrap_or_default(),
        node.unwrap_or_default(),
    );
    let mut rows = vec![
        ["source".to_owned(), source(&status["source"])],
        ["data plane".to_owned(), data_plane(&status["data_plane"])],
        ["listeners".to_owned(), listeners(&status["listeners"])],
    ];
    if let Some(announced) = announced(&status["data_plane"]["announced"]) {
        rows.push(["announced".to_owned(), announced]);
    }
    if let Some(proxy) = text(&status["proxy"]) {
        // An agent, which has no routes.
        rows.push(["proxy".to_owned(), proxy]);
    } else {
        rows.push(["routes".to_owned(), routes(status, now)]);
    }
    if let Some(expiry) = next_expiry(&status["certificates"], now) {
        rows.push(["certificates".to_owned(), expiry]);
    }
    summary.push_str(&output::table(&rows));
    let problems = status["problems"].as_array().map_or(&[][..], Vec::as_slice);
    if !problems.is_empty() {
        summary.push_str(&format!("\nproblems ({}):\n", problems.len()));
        summary.extend(problems.iter().map(problem));
    }
    summary
}

fn source(source: &Value) -> String {
    let kind = source["kind"].as_str().unwrap_or_default();
    let state = match &source["state"] {
        Value::String(state) => state.clone(),
        // An object: its name, and why.
        state => {
            let name = state["state"].as_str();
            name.map_or_else(
                || state.to_string(),
                |name| {
                    let rest = state.as_object().into_iter().flatten();
                    // How each kind is doing is for `--json`.
                    let rest = rest.filter(|(field, value)| *field != "state" && !value.is_array());
                    let rest: Vec<_> = rest
                        .map(|(field, value)| format!("{field} {value}"))
                        .collect();
                    format!("{name} {}", rest.join(", "))
                },
            )
        }
    };
    format!("{kind}, {}", state.trim_end())
}

fn data_plane(data_plane: &Value) -> String {
    let mode = data_plane["mode"].as_str().unwrap_or_default();
    match data_plane["degraded"].as_str() {
        // The verifier explains itself on many lines.
        Some(reason) => format!(
            "{mode}, degraded: {}",
            reason.lines().next().unwrap_or_default()
        ),
        None => mode.to_owned(),
    }
}

/// Which node says of which virtual IP that it is there.
fn announced(announced: &Value) -> Option<String> {
    let announced = announced.as_array()?.iter().map(|one| {
        let text = |field: &str| one[field].as_str().unwrap_or_default();
        let here = if one["here"] == true {
            ", this node"
        } else {
            ""
        };
        format!("{} by {}{here}", text("vip"), text("node"))
    });
    Some(announced.collect::<Vec<_>>().join("; "))
}

fn listeners(listeners: &Value) -> String {
    let listeners = listeners.as_array().into_iter().flatten();
    let shown = listeners.map(|listener| {
        let text = |field: &str| listener[field].as_str().unwrap_or_default();
        format!("{} {}", text("listener"), text("address"))
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn routes(status: &Value, now: SystemTime) -> String {
    let mut text = status["routes"].to_string();
    if let Some(denied @ 1..) = status["denied_routes"].as_u64() {
        text.push_str(&format!(", {denied} of them denied"));
    }
    let changed = status["changed"].as_i64();
    if let Some(changed) = changed {
        let ago = span(seconds(now).saturating_sub(changed));
        text.push_str(&format!(", changed {ago} ago"));
    }
    text
}

/// How many certificates there are, and which one expires first.
fn next_expiry(certificates: &Value, now: SystemTime) -> Option<String> {
    let certificates = certificates.as_object()?;
    let expiries = certificates
        .iter()
        .filter_map(|(secret, at)| Some((at.as_i64()?, secret)));
    let (at, secret) = expiries.min()?;
    let left = at.saturating_sub(seconds(now));
    let when = if left <= 0 {
        format!("{secret} expired {} ago", span(left.saturating_neg()))
    } else {
        format!("{secret} expires first, in {}", span(left))
    };
    Some(format!("{}; {when}", certificates.len()))
}

fn problem(problem: &Value) -> String {
    let text = |field: &str| problem[field].as_str().filter(|text| !text.is_empty());
    let place = [text("file"), text("object"), text("field")];
    let place: Vec<_> = place.into_iter().flatten().collect();
    format!(
        "  {}: {}: {}\n",
        text("severity").unwrap_or("problem"),
        place.join(" "),
        text("message").unwrap_or_default()
    )
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A span of time in its greatest whole unit.
fn span(seconds: i64) -> String {
    match seconds {
        ..=119 => format!("{} s", seconds.max(0)),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        172_800.. => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_summary_says_what_is_wrong_and_where() {
        let status = json!({
            "version": "0.1.0", "node": "n1", "ready": false, "not_ready": "shutting down",
            "source": {"kind": "folder", "state": "in-sync"},
            "listeners": [{"listener": "http", "address": "0.0.0.0:80"}],
            "data_plane": {"mode": "sockets", "degraded": "no CAP_BPF\n0: R1=ctx()",
                           "announced": [{"vip": "198.51.100.10", "node": "n1", "here": true},
                                         {"vip": "2001:db8::10", "node": "n2", "here": false}]},
            "problems": [{"severity": "error", "object": "Ingress shop/web", "field": "spec",
                          "file": null, "message": "no such Service"}],
            "routes": 7, "denied_routes": 2, "certificates": {"shop/tls": 1_000_000},
            "changed": 990_000,
        });
        let text = summary(&status, UNIX_EPOCH + Duration::from_secs(990_060));
        for part in [
            "Forebay 0.1.0 on n1: not ready: shutting down\n",
            "folder, in-sync\n",
            "sockets, degraded: no CAP_BPF\n",
            "http 0.0.0.0:80\n",
            "198.51.100.10 by n1, this node; 2001:db8::10 by n2\n",
            "7, 2 of them denied, changed 60 s ago\n",
            "1; shop/tls expires first, in 2 h\n",
            "  error: Ingress shop/web spec: no such Service\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn an_answer_of_another_version_is_shown_as_far_as_it_goes() {
        for status in [
            json!({}),
            json!(null),
            json!({"problems": 7, "source": {"state": {"x": 1}}}),
        ] {
            assert!(
                summary(&status, UNIX_EPOCH).starts_with("Forebay "),
                "{status}"
            );
        }
    }

    #[test]
    fn spans_have_their_greatest_unit() {
        for (seconds, text) in [
            (-1, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7_200, "2 h"),
            (200_000, "2 days"),
        ] {
            assert_eq!(span(seconds), text, "{seconds}");
        }
    }
}

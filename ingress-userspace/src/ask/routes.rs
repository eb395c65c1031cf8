//! `forebay routes`: the table in force, for people or as JSON.

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use ingress_model::HostPattern;

use super::{client, output};
use crate::config::{ADMIN_SOCKET, RoutesArgs};

/// Prints the routes in force, all of them or those of one host.
///
/// # Errors
/// No Forebay answers, or it answers what is no list of routes.
pub(crate) fn routes(args: &RoutesArgs) -> anyhow::Result<ExitCode> {
    let (status, body) = client::get(&args.admin.path(ADMIN_SOCKET), "/routes")?;
    ensure!(status == 200, "it answers {status}: {}", body.trim_end());
    let mut routes: Vec<Value> = serde_json::from_str(&body).context("it answers no routes")?;
    if let Some(host) = &args.host {
        keep_host(&mut routes, host);
    }
    if args.json {
        let mut text = serde_json::to_string_pretty(&routes)?;
        text.push('\n');
        output::print(&text)?;
    } else if routes.is_empty() {
        let whose = args.host.as_ref().map(|host| format!(" of {host}"));
        output::print(&format!(
            "no routes{}; `forebay status` lists what is wrong\n",
            whose.unwrap_or_default()
        ))?;
    } else {
        output::print(&listing(&routes))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Keeps the routes that requests for `asked` meet: those of the most specific host that matches. A
/// pattern, such as `*.example.com`, means the rules written with it.
fn keep_host(routes: &mut Vec<Value>, asked: &HostPattern) {
    let pattern = |route: &Value| route["host"].as_str()?.parse::<HostPattern>().ok();
    let meets = |pattern: &HostPattern| match asked {
        HostPattern::Exact(name) => pattern.matches(name),
        HostPattern::Wildcard(_) | HostPattern::Any => pattern == asked,
    };
    // In the order of patterns an exact host comes first, and rules without a host last.
    let best = routes.iter().filter_map(pattern).filter(meets).min();
    routes.retain(|route| best.is_some() && pattern(route) == best);
}

fn listing(routes: &[Value]) -> String {
    let mut rows = vec![
        [
            "HOST",
            "PATH",
            "TYPE",
            "BACKEND",
            "ENDPOINTS",
            "INGRESS",
            "",
        ]
        .map(str::to_owned),
    ];
    rows.extend(routes.iter().map(|route| {
        let text = |field: &str| route[field].as_str().unwrap_or_default().to_owned();
        let endpoints = route["endpoints"].as_array().map_or(0, Vec::len);
        [
            text("host"),
            text("path"),
            text("path_type"),
            text("backend"),
            endpoints.to_string(),
            text("ingress"),
            remarks(route),
        ]
    }));
    output::table(&rows)
}

/// What is special about a route.
fn remarks(route: &Value) -> String {
    let mut remarks = Vec::new();
    if let Some(reason) = route["denied"].as_str() {
        remarks.push(format!("denied: {reason}"));
    }
    if route["redirect_to_https"] == true {
        remarks.push("https only".to_owned());
    }
    if let Some(target) = route["rewrite_target"].as_str() {
        remarks.push(format!("rewritten to {target}"));
    }
    remarks.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_host_has_the_routes_that_its_requests_meet() {
        let hosts = [
            "*",
            "*.example.com",
            "a.example.com",
            "a.example.com",
            "*.test",
        ];
        for (asked, kept) in [
            ("A.example.com", &["a.example.com", "a.example.com"][..]),
            ("b.example.com", &["*.example.com"]),
            ("b.c.example.com", &["*"]),
            ("*.example.com", &["*.example.com"]),
            ("*", &["*"]),
            ("*.elsewhere", &[]),
        ] {
            let mut routes: Vec<_> = hosts.iter().map(|host| json!({"host": host})).collect();
            keep_host(&mut routes, &asked.parse().unwrap());
            let left: Vec<_> = routes.iter().filter_map(|r| r["host"].as_str()).collect();
            assert_eq!(left, kept, "{asked}");
        }
    }

    #[test]
    fn a_listing_has_a_line_per_route_and_says_what_is_special() {
        let route = |denied: Value| {
            json!({"host": "a.example", "path": "/x", "path_type": "Prefix", "ingress": "shop/web",
                   "backend": "shop/s:80", "endpoints": [{"address": "192.0.2.1:80"}],
                   "redirect_to_https": true, "denied": denied})
        };
        let text = listing(&[route(Value::Null), route("auth-url".into())]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(
            lines[1].contains("a.example  /x") && lines[1].ends_with("https only"),
            "{text}"
        );
        assert!(lines[2].contains("denied: auth-url"), "{text}");
    }
}

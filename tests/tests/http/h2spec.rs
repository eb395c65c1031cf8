//! HTTP/2 by h2spec, a conformance suite that is not ours: every case, also the strict ones, in the
//! clear and over TLS.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use ingress_lab::{origin::Origin, skipped};
use ingress_model::Policy;

use crate::proxy::{Cluster, Proxy};

/// Names the program, which `cargo xtask test` builds and nothing else looks for.
const VARIABLE: &str = "FOREBAY_H2SPEC";

/// How many cases the pinned release has: fewer were run if some were passed over.
const CASES: usize = 146;

/// Section and name of a case that does not hold.
type Known = (&'static str, &'static str);

/// A port in the clear serves HTTP/1.1 too: what does not begin with the preface is a request there,
/// and a bad one. The answer is 400 and the end of the connection, which the suite takes for a frame
/// that broke off.
const NO_PREFACE: Known = ("http2/3.5", "Sends invalid connection preface");

#[test]
fn h2spec_passes_in_the_clear_but_for_what_is_known() {
    check(|proxy| proxy.http, &[], &[NO_PREFACE]);
}

#[test]
fn h2spec_passes_over_tls() {
    check(|proxy| proxy.https, &["--tls", "--insecure"], &[]);
}

/// Runs the suite; what fails must be what is known to fail.
fn check(address: impl FnOnce(&Proxy) -> SocketAddr, options: &[&str], known: &[Known]) {
    let Some(program) = env::var_os(VARIABLE).map(PathBuf::from) else {
        skipped(&format!("{VARIABLE} names no h2spec"));
        return;
    };
    let origin = Origin::start("pod-1", ([127, 0, 0, 1], 0).into()).unwrap();
    let mut cluster =
        Cluster::default().route("", "/", "web", &[origin.address()], Policy::default());
    cluster.certificate("shop.example");
    let proxy = Proxy::start(&cluster.0);
    let cases = run(&program, address(&proxy), options);
    assert_eq!(cases.len(), CASES, "cases that were run");
    let is_known = |case: &&Case| known.contains(&(&case.section, &case.name));
    let unexpected: Vec<&Case> = cases
        .iter()
        .filter(|case| case.failure.is_some() != is_known(case))
        .collect();
    assert!(
        unexpected.is_empty(),
        "new failures, or known ones that are none any more: {unexpected:#?}"
    );
}

/// One case and what came of it.
#[derive(Debug)]
struct Case {
    section: String,
    name: String,
    /// Why it failed.
    failure: Option<String>,
}

/// Runs the whole suite against `address`.
fn run(program: &Path, address: SocketAddr, options: &[&str]) -> Vec<Case> {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.xml");
    let output = Command::new(program)
        .args(["--strict", "--host"])
        .arg(address.ip().to_string())
        .arg("--port")
        .arg(address.port().to_string())
        .arg("--junit-report")
        .arg(&report)
        .args(options)
        .output()
        .unwrap_or_else(|error| panic!("start {}: {error}", program.display()));
    let report = fs::read_to_string(&report)
        .unwrap_or_else(|error| panic!("no report: {error}: {output:?}"));
    read(&report)
}

/// Reads the suite's report, whose elements stand on lines of their own.
fn read(report: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in report.lines().map(str::trim) {
        if line.starts_with("<testcase ") {
            cases.push(Case {
                section: attribute(line, "package"),
                name: attribute(line, "classname"),
                failure: None,
            });
        } else if ["<failure>", "<error>", "<skipped>"]
            .iter()
            .any(|element| line.starts_with(element))
            && let Some(case) = cases.last_mut()
        {
            case.failure = Some(line.to_owned());
        } else if !line.starts_with('<')
            && let Some(failure) = cases.last_mut().and_then(|case| case.failure.as_mut())
        {
            // What was expected, one answer per line, and what came.
            failure.push_str("; ");
            failure.push_str(line);
        }
    }
    cases
}

fn attribute(line: &str, name: &str) -> String {
    let (_, rest) = line
        .split_once(&format!(" {name}=\""))
        .unwrap_or_else(|| panic!("no {name} in {line}"));
    rest.split('"').next().unwrap_or_default().to_owned()
}

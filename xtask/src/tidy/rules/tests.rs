//! Each rule against sources that keep it and sources that break it.

use super::*;

fn lines(faults: impl IntoIterator<Item = Fault>) -> Vec<usize> {
    faults.into_iter().map(|fault| fault.line).collect()
}

#[test]
fn a_file_opens_with_what_it_holds() {
    assert_eq!(opening("//! Routes by host.\n"), None);
    for text in [
        "",
        "use a;\n",
        "//!\n",
        "//! x\n",
        "// Routes by host.\n",
        "\n//! Routes by host.\n",
    ] {
        assert!(opening(text).is_some(), "{text:?}");
    }
}

#[test]
fn names_that_say_nothing_are_refused() {
    for (path, fine) in [
        ("ingress-userspace/src/worker/accept.rs", true),
        ("ingress-userspace/src/util.rs", false),
        ("ingress-userspace/src/helpers/mod.rs", false),
        ("tests/src/common/mod.rs", false),
    ] {
        assert_eq!(name(path).is_none(), fine, "{path}");
    }
}

#[test]
fn unsafe_stands_only_where_it_may() {
    let source =
        Source::new("// unsafe\n#![forbid(unsafe_code)]\nlet a = \"unsafe\";\nunsafe { b() }\n");
    for (path, expected) in [
        ("ingress-userspace/src/worker/mod.rs", vec![4]),
        ("tests/src/lab/mod.rs", vec![4]),
        ("ingress-userspace/src/kernel/sys.rs", vec![]),
        ("tests/src/lab/sys.rs", vec![]),
        ("ingress-ebpf/programs/steer.rs", vec![]),
    ] {
        assert_eq!(lines(unsafe_code(path, &source)), expected, "{path}");
    }
}

#[test]
fn a_todo_names_its_issue() {
    for (text, faults) in [
        ("// TODO later", vec![1]),
        ("a\n// FIXME: later", vec![2]),
        ("// TODO(#12): later", vec![]),
        ("// TODO #12 later", vec![]),
        ("let todo = \"TODO\";", vec![]),
        ("// the TODOs of others", vec![]),
    ] {
        assert_eq!(lines(todos(&Source::new(text))), faults, "{text}");
    }
}

#[test]
fn modules_import_only_those_below() {
    for (path, text, faults) in [
        ("worker/accept.rs", "use crate::table::RouteTable;", 0),
        (
            "worker/accept.rs",
            "use crate::{model::Host, table::{Entry, kernel}, telemetry};",
            0,
        ),
        (
            "worker/accept.rs",
            "use crate::{model::{Host, Path}, kernel::Dataplane};",
            1,
        ),
        ("worker/accept.rs", "use crate::worker::request;", 0),
        ("worker/accept.rs", "fn f(x: crate::controller::Feed) {}", 1),
        ("worker/accept.rs", "use super::super::admin::Status;", 1),
        ("worker/accept.rs", "use super::request::admin;", 0),
        ("worker/mod.rs", "use super::admin::Status;", 1),
        (
            "controller/translate/path.rs",
            "use super::super::super::table::Entry;",
            1,
        ),
        (
            "table/compile.rs",
            "use crate::{\n    model::Snapshot,\n    controller::Feed,\n};",
            1,
        ),
        ("model/mod.rs", "use crate::telemetry::metrics;", 1),
        ("kernel/load.rs", "pub(crate) fn worker() {}", 0),
        ("kernel/load.rs", "// use crate::worker;", 0),
        (
            "run.rs",
            "use crate::{admin, controller, kernel, worker};",
            0,
        ),
    ] {
        let found = imports(&format!("ingress-userspace/src/{path}"), &Source::new(text));
        assert_eq!(found.len(), faults, "{path}: {text}: {found:?}");
    }
}

#[test]
fn crates_are_named_only_in_their_modules() {
    for (path, text, faults) in [
        ("controller/watch.rs", "use kube::Client;", 0),
        ("worker/mod.rs", "use kube::Client;", 1),
        ("worker/mod.rs", "use hyper::body::Incoming;", 0),
        ("table/lookup.rs", "fn f(x: hyper::Uri) {}", 1),
        ("kernel/load.rs", "use aya::{Ebpf, maps};", 0),
        ("admin/mod.rs", "use aya;", 1),
        ("worker/mod.rs", "use crate::hyper::x;", 0),
        ("worker/mod.rs", "let hyper = 1;", 0),
        ("telemetry/log.rs", "use rustls_pki_types::ServerName;", 0),
    ] {
        let found = crates(&format!("ingress-userspace/src/{path}"), &Source::new(text));
        assert_eq!(found.len(), faults, "{path}: {text}: {found:?}");
    }
}

#[test]
fn versions_stand_in_the_workspace_table() {
    let text = "[package]\nversion = \"1\"\n[dependencies]\na.workspace = true\nb = { workspace = true }\nc = \"1\"\n\
        [dev-dependencies]\nd = { version = \"2\" }\n[lints]\nworkspace = true\n";
    assert_eq!(lines(versions(text)), [6, 8]);
}

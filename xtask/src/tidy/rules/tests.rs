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
        ("tests/lab/src/common/mod.rs", false),
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
        ("tests/lab/src/lab/mod.rs", vec![4]),
        ("ingress-userspace/src/kernel/sys.rs", vec![]),
        ("tests/lab/src/lab/sys.rs", vec![]),
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
fn versions_stand_in_the_workspace_table() {
    let text = "[package]\nversion = \"1\"\n[dependencies]\na.workspace = true\nb = { workspace = true }\nc = \"1\"\n\
        [dev-dependencies]\nd = { version = \"2\" }\n[lints]\nworkspace = true\n";
    assert_eq!(lines(versions(text)), [6, 8]);
}

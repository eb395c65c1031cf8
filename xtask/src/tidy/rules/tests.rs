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
fn a_promise_names_its_issue() {
    for (comment, faults) in [
        ("TODO later", vec![2]),
        ("! FIXME: later", vec![2]),
        ("TODO(later)", vec![2]),
        ("TODO(#12): later", vec![]),
        ("TODO #12 later", vec![]),
        ("the TODOs of others", vec![]),
    ] {
        // Joined here: this file is checked, too.
        let text = format!(
            "a();
b(); //{comment}
let todo = \"TODO\";
"
        );
        assert_eq!(lines(todos(&text)), faults, "{text}");
    }
}

#[test]
fn versions_stand_in_the_workspace_table() {
    let text = "[package]\nversion = \"1\"\n[dependencies]\na.workspace = true\nb = { workspace = true }\nc = \"1\"\n\
        [dev-dependencies]\nd = { version = \"2\" }\n[lints]\nworkspace = true\n";
    assert_eq!(lines(versions(text)), [6, 8]);
}

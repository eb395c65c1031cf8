//! The reference page of annotations, written from the registry.

use std::fmt::Write as _;

use super::{
    reading::BadValue,
    registry,
    row::{Otherwise, Row, Scope, Support},
};

/// The page as Markdown. A test holds `docs/annotations.md` equal to it.
pub fn reference() -> String {
    let mut page = String::from(
        "# Annotations\n\n\
         Written by `forebay annotations`; do not edit.\n\n\
         Every annotation of ingress-nginx is known. The prefix is `nginx.ingress.kubernetes.io/`, or that of \
         `--annotations-prefix`; `forebay.dev/` means the same and wins.\n\n\
         - **read**: supported.\n\
         - **denies**: it restricts access or says how a backend must be spoken to, and that is not supported. \
         Requests get 503, so that nothing is opened that was to be protected.\n\
         - **ignored**: not supported yet; the Ingress is served without it, with a warning.\n\
         - **harmless**: there is nothing to be done.\n\
         - **never**: refused on purpose, with a warning.\n",
    );
    for (title, rows) in registry::TOPICS {
        // Writing to memory cannot fail.
        let _ = write!(
            page,
            "\n## {title}\n\n| annotation | what becomes of it | applies to | risk | a bad value | |\n|---|---|---|---|---|---|\n"
        );
        for row in rows {
            page.push_str(&line(row));
        }
    }
    page
}

fn line(row: &Row) -> String {
    let names: Vec<_> = row.names.iter().map(|name| format!("`{name}`")).collect();
    let scope = match row.scope {
        Scope::Route => "rules",
        Scope::Host => "host",
        Scope::Upstream => "backends",
    };
    let (support, why, bad) = match &row.support {
        Support::Read { bad, .. } => {
            let bad = match bad {
                BadValue::Default => "the default applies",
                BadValue::KeepLastGood => "the last good version stays in force",
            };
            ("read", "", bad)
        }
        Support::Denies {
            reason, otherwise, ..
        } => match otherwise {
            Otherwise::Nothing => ("denies", *reason, "denies"),
            Otherwise::Never(_) => ("denies or never", *reason, "denies"),
        },
        Support::Canary => ("denies", "canaries are not supported", "as `false`"),
        Support::NotYet => ("ignored", "", ""),
        Support::NoEffect(why) => ("harmless", *why, ""),
        Support::Never(why) => ("never", *why, ""),
    };
    let notes: Vec<_> = [why, row.note]
        .into_iter()
        .filter(|note| !note.is_empty())
        .map(|note| note.trim_end_matches('.'))
        .collect();
    format!(
        "| {} | {support} | {scope} | {:?} | {bad} | {} |\n",
        names.join(", "),
        row.risk,
        notes.join(". ")
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_reference_page_is_what_the_registry_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/annotations.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == super::reference(),
            "docs/annotations.md is stale: `cargo run -- annotations > docs/annotations.md`"
        );
    }
}

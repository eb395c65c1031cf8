//! Any host and path of a rule, a line each: what is accepted matches the hosts it names, and a path
//! stays as it was written.
#![no_main]

use ingress_model::{HostPattern, PathKind, PathPattern};
use ingress_proxy::table::CanonicalHost;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let (host, path) = input.split_once('\n').unwrap_or((input, ""));
    match host.parse::<HostPattern>() {
        Ok(HostPattern::Exact(name)) => assert_answered(&name, host),
        Ok(HostPattern::Wildcard(suffix)) if suffix.len() < 250 => {
            assert_answered(&format!("x.{suffix}"), host)
        }
        Ok(HostPattern::Wildcard(_) | HostPattern::Any) | Err(_) => {}
    }
    for kind in [PathKind::Prefix, PathKind::Exact, PathKind::Regex] {
        if let Ok(pattern) = PathPattern::new(kind, path) {
            assert_eq!(pattern.as_str(), if path.is_empty() { "/" } else { path });
        }
    }
});

/// A request can carry `name`, and the pattern answers for it.
fn assert_answered(name: &str, pattern: &str) {
    let canonical =
        CanonicalHost::parse(name).unwrap_or_else(|error| panic!("{pattern:?}: {name:?}: {error}"));
    let pattern: HostPattern = pattern.parse().expect("it was parsed before");
    assert!(
        pattern.matches(canonical.as_str()),
        "{pattern:?} does not answer for {name:?}"
    );
}

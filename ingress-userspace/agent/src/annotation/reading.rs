//! Sets one field of a policy from the value of an annotation.

use std::{fmt::Display, str::FromStr};

use super::value::{
    BodyLimit, Causes, ConnectTimeout, RetryTime, RewriteTarget, StreamTimeout, Switch, Tries,
};
use ingress_model::{Policy, TlsRedirect};

/// Sets a field of a policy from a value. Gives what the owner should know of a value that counts
/// as another one, or why it cannot be read; then nothing is set.
pub(super) type Read = fn(&str, &mut Policy) -> Result<Option<String>, String>;

/// What a value that cannot be read does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadValue {
    /// The default applies, with a warning.
    Default,
    /// The last good version of the whole object stays in force, and a new object is not served: the
    /// default would send requests to a wrong place.
    KeepLastGood,
}

fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

macro_rules! set {
    ($($name:ident: $type:ident($value:ident) => |$policy:ident| $set:expr;)*) => {
        $(pub(super) fn $name(text: &str, $policy: &mut Policy) -> Result<Option<String>, String> {
            let $type($value) = parse(text)?;
            $set;
            Ok(None)
        })*
    };
}

set! {
    rewrite_target: RewriteTarget(target) => |policy| policy.route.rewrite_target = Some(target);
    use_regex: Switch(on) => |policy| policy.route.use_regex = on;
    ssl_redirect: Switch(on) => |policy| policy.route.tls_redirect = match on {
        true => TlsRedirect::WithTls,
        false => TlsRedirect::Never,
    };
    force_ssl_redirect: Switch(on) => |policy| if on { policy.route.tls_redirect = TlsRedirect::Always };
    body_size: BodyLimit(limit) => |policy| policy.route.body_limit = limit;
    connect_timeout: ConnectTimeout(time) => |policy| policy.upstream.connect_timeout = time;
    next_upstream: Causes(causes) => |policy| policy.upstream.retry.causes = causes;
    next_upstream_tries: Tries(tries) => |policy| policy.upstream.retry.tries = tries;
    next_upstream_timeout: RetryTime(time) => |policy| policy.upstream.retry.within = time;
}

pub(super) fn read_timeout(text: &str, policy: &mut Policy) -> Result<Option<String>, String> {
    let StreamTimeout { time, note } = parse(text)?;
    policy.upstream.read_timeout = time;
    Ok(note)
}

pub(super) fn send_timeout(text: &str, policy: &mut Policy) -> Result<Option<String>, String> {
    let StreamTimeout { time, note } = parse(text)?;
    policy.upstream.send_timeout = time;
    Ok(note)
}

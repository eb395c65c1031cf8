//! Sets one field of a policy from the value of an annotation.

use std::{fmt::Display, str::FromStr, time::Duration};

use super::value::{
    BodyLimit, Causes, LONGEST, LONGEST_CONNECT, RewriteTarget, Switch, Time, Tries, seconds,
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
    next_upstream: Causes(causes) => |policy| policy.upstream.retry.causes = causes;
    next_upstream_tries: Tries(tries) => |policy| policy.upstream.retry.tries = tries;
}

/// Reads a time and gives it to `set`.
fn time(text: &str, longest: u64, set: impl FnOnce(Duration)) -> Result<Option<String>, String> {
    let Time { time, note } = seconds(text, longest).map_err(|error| error.to_string())?;
    set(time);
    Ok(note)
}

pub(super) fn connect_timeout(text: &str, policy: &mut Policy) -> Result<Option<String>, String> {
    time(text, LONGEST_CONNECT, |time| {
        policy.upstream.connect_timeout = time
    })
}

pub(super) fn read_timeout(text: &str, policy: &mut Policy) -> Result<Option<String>, String> {
    time(text, LONGEST, |time| policy.upstream.read_timeout = time)
}

pub(super) fn send_timeout(text: &str, policy: &mut Policy) -> Result<Option<String>, String> {
    time(text, LONGEST, |time| policy.upstream.send_timeout = time)
}

/// 0 is without a limit.
pub(super) fn next_upstream_timeout(
    text: &str,
    policy: &mut Policy,
) -> Result<Option<String>, String> {
    let within = &mut policy.upstream.retry.within;
    if text == "0" {
        *within = None;
        return Ok(None);
    }
    time(text, LONGEST, |time| *within = Some(time))
}

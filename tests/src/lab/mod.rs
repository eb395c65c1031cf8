//! Networks made of namespaces, for tests that need packets. Needs root.
//!
//! `sys` → `namespace`.

mod namespace;
#[expect(dead_code, reason = "the router attaches the program")]
mod sys;

pub use namespace::Namespace;

/// Tells why this process cannot make a lab, if so.
///
/// # Errors
/// The reason, for a person.
pub fn available() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("network namespaces need root".to_owned());
    }
    Namespace::new("probe").map(drop).map_err(|error| format!("no network namespaces here: {error:#}"))
}

//! The candidates: Forebay, its peers, and the floor below them.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use clap::ValueEnum;

/// A program that stands between the load and the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Proxy {
    /// A loop of our own that only copies bytes: the floor
    CopyLoop,
    /// The base of the ratios
    Nginx,
    /// The one it is about
    Forebay,
    /// Where it is installed
    Haproxy,
    /// Where it is installed
    Envoy,
}

impl Proxy {
    /// All of them, in the order of the table.
    pub(super) const ALL: [Self; 5] = [
        Self::CopyLoop,
        Self::Nginx,
        Self::Forebay,
        Self::Haproxy,
        Self::Envoy,
    ];

    /// What is run.
    ///
    /// # Errors
    /// Forebay cannot be built.
    pub(super) fn program(self) -> Result<PathBuf> {
        Ok(match self {
            Self::CopyLoop => std::env::current_exe()?,
            Self::Nginx => "nginx".into(),
            Self::Forebay => ingress_lab::forebay::binary()?.to_owned(),
            Self::Haproxy => "haproxy".into(),
            Self::Envoy => std::env::var_os("FOREBAY_ENVOY")
                .unwrap_or_else(|| OsString::from("envoy"))
                .into(),
        })
    }

    /// Its version as it says it, or `None` where it is not installed.
    pub(super) fn version(self) -> Option<String> {
        let flag = match self {
            Self::CopyLoop => return Some("-".to_owned()),
            Self::Nginx | Self::Haproxy => "-v",
            Self::Forebay | Self::Envoy => "--version",
        };
        said_version(&self.program().ok()?, flag)
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}

fn said_version(program: &Path, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some(number(&String::from_utf8_lossy(&text)).unwrap_or_default())
}

/// The first word with a number and dots in it: `nginx/1.22.1`, `2.6.12-1`, `0.1.0`.
fn number(text: &str) -> Option<String> {
    text.split([' ', '/', '\n', '-', '+'])
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.'))
        .map(|word| word.chars().take(12).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (text, expected) in [
            ("nginx version: nginx/1.22.1\n", Some("1.22.1")),
            (
                "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\n",
                Some("2.6.12"),
            ),
            (
                "envoy  version: 0123abcd/1.40.0/Clean/RELEASE/BoringSSL\n",
                Some("1.40.0"),
            ),
            ("forebay 0.1.0\n", Some("0.1.0")),
            ("none\n", None),
        ] {
            assert_eq!(number(text).as_deref(), expected, "{text:?}");
        }
    }
}

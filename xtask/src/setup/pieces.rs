//! The pieces a purpose needs: how each is looked for, and the steps that bring it.

use anyhow::Result;

use super::{Purpose, cargo_fuzz, ebpf, go, h2spec, kubernetes, profdata, python, step::Step};
use crate::shell::{self, cargo};

/// One thing that building, testing or measuring needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A C compiler and linker, for the TLS library and for Rust itself.
    CCompiler,
    /// A C++ compiler, for the fuzzing library.
    CxxCompiler,
    /// The cargo command that builds and runs fuzz targets.
    CargoFuzz,
    /// A Rust compiler with its library's sources, for `bpfel-unknown-none`.
    EbpfCompiler,
    /// The linker of BPF objects.
    BpfLinker,
    /// What turns counts into a profile.
    Profdata,
    /// rustfmt and clippy for the compiler that builds userspace.
    Lints,
    /// clippy beside the compiler that builds the kernel object.
    EbpfClippy,
    /// A program that tests or benchmarks start.
    Program(&'static Program),
    /// kube-apiserver, kube-controller-manager, etcd and kubectl, built from
    /// `tests/tools/kubernetes`.
    Kubernetes,
    /// The conformance suite for HTTP/2, built from `tests/tools/h2spec`.
    H2spec,
    /// The Envoy proxy, one of the peers of `bench http`.
    Envoy,
}

/// A program from Debian's archive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    name: &'static str,
    package: &'static str,
    reason: &'static str,
}

static CURL: Program = Program {
    name: "curl",
    package: "curl",
    reason: "requests in tests and in the demo",
};
static OPENSSL: Program = Program {
    name: "openssl",
    package: "openssl",
    reason: "certificates and keys of tests",
};
static IP: Program = Program {
    name: "ip",
    package: "iproute2",
    reason: "network namespaces",
};
static ETHTOOL: Program = Program {
    name: "ethtool",
    package: "ethtool",
    reason: "checksum settings of virtual links",
};
static WRK: Program = Program {
    name: "wrk",
    package: "wrk",
    reason: "load by HTTP/1.1",
};
static H2LOAD: Program = Program {
    name: "h2load",
    package: "nghttp2-client",
    reason: "load by HTTP/2",
};
static NGINX: Program = Program {
    name: "nginx",
    package: "nginx",
    reason: "a peer and the upstream in benchmarks",
};
static HAPROXY: Program = Program {
    name: "haproxy",
    package: "haproxy",
    reason: "a peer in benchmarks",
};
static TASKSET: Program = Program {
    name: "taskset",
    package: "util-linux",
    reason: "a core for each process in benchmarks",
};
static SETPRIV: Program = Program {
    name: "setpriv",
    package: "util-linux",
    reason: "proxies that end with the benchmark",
};

/// Whether a piece is there.
pub(crate) enum State {
    /// Where it is, or which one it is.
    Found(String),
    /// What brings it.
    Missing(Vec<Step>),
}

impl Piece {
    /// What compiling needs.
    pub(crate) const BUILD: [Piece; 3] = [Piece::CCompiler, Piece::EbpfCompiler, Piece::BpfLinker];

    /// What the demo and the tests in namespaces start.
    pub(crate) const NAMESPACES: [Piece; 5] = [
        Piece::Program(&CURL),
        Piece::Program(&OPENSSL),
        Piece::Program(&IP),
        Piece::Program(&ETHTOOL),
        Piece::Program(&WRK),
    ];

    /// What fuzzing needs.
    pub(crate) const FUZZ: [Piece; 3] = [Piece::CCompiler, Piece::CxxCompiler, Piece::CargoFuzz];

    /// What the binary of the image needs besides.
    pub(crate) const RELEASE: [Piece; 6] = [
        Piece::Profdata,
        Piece::Program(&TASKSET),
        Piece::Program(&SETPRIV),
        Piece::Program(&WRK),
        Piece::Program(&H2LOAD),
        Piece::Program(&NGINX),
    ];

    /// What the benchmarks start.
    pub(crate) const BENCH: [Piece; 9] = [
        Piece::Profdata,
        Piece::Program(&CURL),
        Piece::Program(&TASKSET),
        Piece::Program(&SETPRIV),
        Piece::Program(&WRK),
        Piece::Program(&H2LOAD),
        Piece::Program(&NGINX),
        Piece::Program(&HAPROXY),
        Piece::Envoy,
    ];

    /// What `bench converge` starts: curl asks the API server whether it is ready.
    pub(crate) const CONVERGE: [Piece; 2] = [Piece::Kubernetes, Piece::Program(&CURL)];

    /// Everything a purpose needs, each piece once.
    pub(crate) fn of(purpose: Purpose) -> Vec<Piece> {
        let test = [Piece::Program(&H2LOAD), Piece::H2spec, Piece::Kubernetes];
        let parts: &[&[Piece]] = match purpose {
            Purpose::Build => &[&Self::BUILD],
            Purpose::Release => &[&Self::BUILD, &Self::RELEASE],
            Purpose::Test => &[&Self::BUILD, &Self::NAMESPACES, &test],
            Purpose::Bench => &[&Self::BUILD, &Self::BENCH, &Self::CONVERGE],
            Purpose::Ci => &[
                &Self::BUILD,
                &[Piece::Lints, Piece::EbpfClippy],
                &Self::FUZZ,
                &Self::NAMESPACES,
                &test,
            ],
            Purpose::All => &[
                &Self::BUILD,
                &[Piece::Lints, Piece::EbpfClippy],
                &Self::FUZZ,
                &Self::NAMESPACES,
                &test,
                &Self::BENCH,
            ],
        };
        let mut pieces: Vec<Piece> = Vec::new();
        for piece in parts.concat() {
            if !pieces.contains(&piece) {
                pieces.push(piece);
            }
        }
        pieces
    }

    /// The name in reports.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::CCompiler => "C compiler",
            Self::CxxCompiler => "C++ compiler",
            Self::CargoFuzz => "cargo-fuzz",
            Self::EbpfCompiler => "eBPF compiler",
            Self::BpfLinker => "bpf-linker",
            Self::Profdata => "llvm-profdata",
            Self::Lints => "rustfmt, clippy",
            Self::EbpfClippy => "eBPF clippy",
            Self::Program(program) => program.name,
            Self::Kubernetes => "Kubernetes binaries",
            Self::H2spec => "h2spec",
            Self::Envoy => "envoy",
        }
    }

    /// What it is needed for.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::CCompiler => "the TLS library's C parts, and linking",
            Self::CxxCompiler => "the fuzzing library",
            Self::CargoFuzz => "cargo xtask fuzz",
            Self::EbpfCompiler => "compiling the kernel programs",
            Self::BpfLinker => "linking the kernel programs",
            Self::Profdata => "the binary that is optimised by a profile",
            Self::Lints => "cargo xtask ci",
            Self::EbpfClippy => "lints of the kernel programs",
            Self::Program(program) => program.reason,
            Self::Kubernetes => "tests against a real API server",
            Self::H2spec => "the conformance of HTTP/2",
            Self::Envoy => "a peer in benchmarks (optional)",
        }
    }

    /// Looks for the piece.
    pub(crate) fn state(&self) -> Result<State> {
        let found = match self {
            Self::CCompiler => shell::find("cc").map(|path| path.display().to_string()),
            Self::CxxCompiler => shell::find("c++").map(|path| path.display().to_string()),
            Self::CargoFuzz => cargo_fuzz::find()?.map(|path| path.display().to_string()),
            Self::EbpfCompiler => ebpf::compilers().first().map(ToString::to_string),
            Self::BpfLinker => ebpf::linkers()?
                .first()
                .map(|path| path.display().to_string()),
            Self::Profdata => profdata::find().map(|path| path.display().to_string()),
            Self::Lints => lints(),
            Self::EbpfClippy => ebpf_clippy(),
            Self::Program(program) => {
                shell::find(program.name).map(|path| path.display().to_string())
            }
            Self::Kubernetes => kubernetes::find()?.map(|path| path.display().to_string()),
            Self::H2spec => h2spec::find()?.map(|path| path.display().to_string()),
            Self::Envoy => python::envoy()?.map(|path| path.display().to_string()),
        };
        Ok(match found {
            Some(what) => State::Found(what),
            None => State::Missing(self.steps()?),
        })
    }

    fn steps(&self) -> Result<Vec<Step>> {
        Ok(match self {
            Self::CCompiler => vec![Step::packages(&["gcc", "libc6-dev"])],
            Self::CxxCompiler => vec![Step::packages(&["g++"])],
            Self::CargoFuzz => vec![Step::CargoFuzz],
            Self::EbpfCompiler => vec![Step::packages(&ebpf::COMPILER_PACKAGES)],
            Self::BpfLinker => vec![Step::packages(&ebpf::LINKER_PACKAGES), Step::BpfLinker],
            Self::Profdata => vec![Step::packages(&[profdata::PACKAGE])],
            Self::Lints if cargo().get_program() == "/usr/bin/cargo" => {
                vec![Step::packages(&["rustfmt-web", "rust-web-clippy"])]
            }
            Self::Lints => vec![Step::RustupComponents],
            Self::EbpfClippy => vec![Step::packages(&["rust-web-clippy"])],
            Self::Program(program) => vec![Step::packages(&[program.package])],
            Self::Kubernetes => with_go(Step::Kubernetes)?,
            Self::H2spec => with_go(Step::H2spec)?,
            Self::Envoy => with_python(Step::Envoy),
        })
    }
}

fn with_go(step: Step) -> Result<Vec<Step>> {
    let mut steps = if go::find()?.is_some() {
        Vec::new()
    } else {
        with_python(Step::Go)
    };
    steps.push(step);
    Ok(steps)
}

fn with_python(step: Step) -> Vec<Step> {
    if python::can_make_environments() {
        vec![step]
    } else {
        vec![Step::packages(&["python3-venv"]), step]
    }
}

fn lints() -> Option<String> {
    let rustfmt = shell::output(cargo().args(["fmt", "--version"]))?;
    let clippy = shell::output(cargo().args(["clippy", "--version"]))?;
    Some(format!("{rustfmt}, {clippy}"))
}

/// Only Debian's compiler can have its clippy brought; for another the lints are left out with a
/// line that says so.
fn ebpf_clippy() -> Option<String> {
    let compilers = ebpf::compilers();
    let with = compilers.iter().find(|compiler| compiler.has_clippy());
    match with {
        Some(compiler) => Some(format!("of {compiler}")),
        None if compilers.is_empty() || compilers.iter().any(ebpf::Compiler::is_debian) => None,
        None => Some("skipped: the compiler has none".to_owned()),
    }
}

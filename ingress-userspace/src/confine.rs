//! What a proxy gives up before it reads the first byte of a client.
//!
//! Clients talk to parsers. Should one of them be taken over, it must find nothing to use: no
//! capability, no way to gain one, no program to start, no file but its own, no process to signal. What
//! a kernel lacks (Landlock before 5.13, or left out when it was built) is left out here, too, and the
//! status says so.

use std::{io, path::Path};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, NetPort, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::{
    process::DumpableBehavior,
    thread::{CapabilitySet, CapabilitySets},
};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is,
    SeccompCondition, SeccompFilter, SeccompRule,
};
use serde::Serialize;

/// The newest rights of Landlock that are asked for.
const LANDLOCK: ABI = ABI::V6;

/// The process may not give up what it must.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfineError {
    /// Capabilities, or the way to new ones.
    #[error("cannot give up the process's privileges")]
    Privileges(#[source] io::Error),
    /// The filter of system calls.
    #[error("cannot filter the process's system calls: {0}")]
    Seccomp(String),
}

/// What holds for this process, as the status shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Confinement {
    /// No capability, and no way to new ones: always.
    privileges: &'static str,
    /// Only system calls that a proxy needs: always.
    system_calls: &'static str,
    /// `own`, `own, as far as this kernel can`, or `any` and why.
    files: &'static str,
}

/// Confines the calling thread, and all that it starts from now on; there must be no other yet.
///
/// The files of the folder `state` may be read and written. The socket in the folder `socket` may be
/// removed, but no file can be put in its place: the agent may have a socket beside it. Of ports, only
/// `ports` may be bound.
///
/// # Errors
/// The kernel refuses: then nothing must be served.
pub(crate) fn confine(
    state: Option<&Path>,
    socket: &Path,
    ports: &[u16],
) -> Result<Confinement, ConfineError> {
    draw_seeds();
    drop_privileges().map_err(ConfineError::Privileges)?;
    let files = restrict_files(state, socket, ports).unwrap_or_else(|error| {
        // A container runtime may refuse the system calls that an old profile does not know.
        tracing::warn!(%error, "no Landlock: file modes alone protect what is not the proxy's");
        "any: Landlock is refused"
    });
    restrict_calls().map_err(|error| ConfineError::Seccomp(error.to_string()))?;
    Ok(Confinement {
        privileges: "none",
        system_calls: "filtered",
        files,
    })
}

/// Draws the seeds of all hash maps to come, once for the process. In a static binary, getrandom looks in
/// vain for the C library's function by its name, and opens /dev/urandom: from now on that fails, and
/// ahash panics.
fn draw_seeds() {
    let _ = ahash::RandomState::new();
}

fn drop_privileges() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    // Private keys must not reach a disk with the memory of a process that has crashed.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::clear_ambient_capability_set()?;
    for capability in CapabilitySet::all().iter() {
        // Whoever has no right to do so has little to lose: what it may regain is nothing, since
        // no program gives it more from now on.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    Ok(())
}

fn restrict_files(
    state: Option<&Path>,
    socket: &Path,
    ports: &[u16],
) -> Result<&'static str, landlock::RulesetError> {
    let all = AccessFs::from_all(LANDLOCK);
    let own = AccessFs::ReadFile
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::RemoveFile;
    let ports = ports.iter();
    let ports = ports.map(|port| Ok(NetPort::new(*port, AccessNet::BindTcp)));
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .add_rules(path_beneath_rules(state, own))?
        .add_rules(path_beneath_rules([socket], AccessFs::RemoveFile))?
        .add_rules(ports.collect::<Vec<Result<_, landlock::RulesetError>>>())?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => "own",
        RulesetStatus::PartiallyEnforced => "own, as far as this kernel can",
        RulesetStatus::NotEnforced => "any: this kernel has no Landlock",
    })
}

/// System calls that a proxy makes, whatever their arguments. Any other fails with ENOSYS, as in an
/// older kernel: libraries know how to go on from that.
const ALLOWED: &[i64] = &[
    // Connections and the descriptors of the link.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    // Memory, but for code: see the rules below.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_getrandom,
    // Threads, signals, the end.
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sched_getaffinity,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    // They cannot fail, say those who call them.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_geteuid,
    libc::SYS_getuid,
    libc::SYS_getegid,
    libc::SYS_getgid,
    libc::SYS_uname,
    libc::SYS_getrusage,
    libc::SYS_membarrier,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // The last good state and the admin socket; Landlock says which files.
    libc::SYS_openat,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
];

fn restrict_calls() -> Result<(), Box<dyn std::error::Error>> {
    let if_any = |conditions: Vec<Vec<SeccompCondition>>| {
        let rules = conditions.into_iter().map(SeccompRule::new);
        rules.collect::<Result<Vec<_>, _>>()
    };
    let mut rules: std::collections::BTreeMap<_, _> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    // No memory becomes code.
    let no_code = |argument| {
        let exec = Is::MaskedEq(libc::PROT_EXEC as u64);
        SeccompCondition::new(argument, Length::Dword, exec, 0)
    };
    rules.insert(libc::SYS_mmap, if_any(vec![vec![no_code(2)?]])?);
    rules.insert(libc::SYS_mprotect, if_any(vec![vec![no_code(2)?]])?);
    // Threads, no processes. `clone3` says so in memory, where a filter cannot look: it fails, and
    // libraries turn to `clone`.
    let thread = Is::MaskedEq(libc::CLONE_THREAD as u64);
    let thread = SeccompCondition::new(0, Length::Qword, thread, libc::CLONE_THREAD as u64)?;
    rules.insert(libc::SYS_clone, if_any(vec![vec![thread]])?);
    // TCP to clients and pods, Unix sockets to the agent and for answers. No other protocol: of those
    // that bind ports, Landlock looks at TCP alone, and Multipath TCP binds the same ports.
    let is =
        |argument, value: i32| SeccompCondition::new(argument, Length::Dword, Is::Eq, value as u64);
    let flags = (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) as u64;
    let stream = Is::MaskedEq(u64::from(u32::MAX) & !flags);
    let stream = SeccompCondition::new(1, Length::Dword, stream, libc::SOCK_STREAM as u64)?;
    let sockets = [
        (libc::AF_INET, 0),
        (libc::AF_INET, libc::IPPROTO_TCP),
        (libc::AF_INET6, 0),
        (libc::AF_INET6, libc::IPPROTO_TCP),
        (libc::AF_UNIX, 0),
    ];
    let sockets = sockets
        .map(|(domain, protocol)| Ok(vec![is(0, domain)?, stream.clone(), is(2, protocol)?]));
    let sockets = sockets.into_iter().collect::<Result<_, BackendError>>()?;
    rules.insert(libc::SYS_socket, if_any(sockets)?);
    rules.insert(
        libc::SYS_socketpair,
        if_any(vec![vec![is(0, libc::AF_UNIX)?]])?,
    );
    // Copies and flags of descriptors. `F_SETOWN` and `F_SETSIG` would send any signal to any process
    // of the same user; only since 6.12 Landlock forbids it.
    let commands = [
        libc::F_DUPFD,
        libc::F_DUPFD_CLOEXEC,
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
    ];
    let commands = commands.map(|command| Ok(vec![is(1, command)?]));
    let commands = commands.into_iter().collect::<Result<_, BackendError>>()?;
    rules.insert(libc::SYS_fcntl, if_any(commands)?);
    // What waits to be sent, and non-blocking mode; names of threads and of memory; an own end by
    // `abort`.
    let request = |request: u64| SeccompCondition::new(1, Length::Dword, Is::Eq, request);
    rules.insert(
        libc::SYS_ioctl,
        if_any(vec![
            vec![request(libc::FIONBIO)?],
            vec![request(libc::TIOCOUTQ)?],
            vec![request(libc::TCGETS)?],
        ])?,
    );
    rules.insert(
        libc::SYS_prctl,
        if_any(vec![
            vec![is(0, libc::PR_SET_NAME)?],
            vec![is(0, libc::PR_SET_VMA)?],
        ])?,
    );
    // A socket may outlive the process: the agent keeps those that listen for the next proxy, which
    // none must find with a filter that drops what comes. And the agent closes what it was sent, which
    // would take as long as `SO_LINGER` says.
    let options = [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
        (libc::SOL_SOCKET, libc::SO_REUSEADDR),
        (libc::SOL_SOCKET, libc::SO_REUSEPORT),
        (libc::IPPROTO_TCP, libc::TCP_NODELAY),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    ];
    let options = options.map(|(level, option)| Ok(vec![is(1, level)?, is(2, option)?]));
    let options = options.into_iter().collect::<Result<_, BackendError>>()?;
    rules.insert(libc::SYS_setsockopt, if_any(options)?);
    let own = u64::try_from(rustix::process::getpid().as_raw_pid())?;
    let own = SeccompCondition::new(0, Length::Dword, Is::Eq, own)?;
    rules.insert(libc::SYS_tgkill, if_any(vec![vec![own]])?);
    let none_set = SeccompCondition::new(2, Length::Qword, Is::Eq, 0)?;
    rules.insert(libc::SYS_prlimit64, if_any(vec![vec![none_set]])?);

    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::ENOSYS as u32),
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, UdpSocket},
        os::{
            linux::net::SocketAddrExt as _,
            unix::net::{SocketAddr, UnixListener, UnixStream},
        },
        path::PathBuf,
        process::{Command, Stdio},
    };

    use rustix::net::{AddressFamily, SocketType, ipproto, socket, sockopt};

    use super::*;

    /// In the environment of the process that tries: the folder that it may use.
    const FOLDER: &str = "FOREBAY_TEST_FOLDER";
    /// Likewise: whether it is confined first.
    const CONFINED: &str = "FOREBAY_TEST_CONFINED";
    /// Marks its answers in what the test harness prints.
    const MARK: &str = "ATTEMPT ";

    /// The folder beside that of the files.
    fn of_sockets(folder: &Path) -> PathBuf {
        folder.join("sockets")
    }

    /// What a process tries that has work to do.
    fn work(folder: &Path) -> Vec<(&'static str, bool)> {
        let tcp = || socket(AddressFamily::INET, SocketType::STREAM, None);
        let state = folder.join("state");
        let (new, own) = (state.join("new"), state.join("own"));
        let admin = of_sockets(folder).join("admin");
        vec![
            ("write its own file", std::fs::write(&new, "x").is_ok()),
            ("put it in place", std::fs::rename(&new, &own).is_ok()),
            ("read its own file", std::fs::read(&own).is_ok()),
            ("remove its own file", std::fs::remove_file(&own).is_ok()),
            ("remove its socket", std::fs::remove_file(&admin).is_ok()),
            (
                "start a thread",
                std::thread::Builder::new().spawn(|| ()).is_ok(),
            ),
            ("make a TCP socket", tcp().is_ok()),
            (
                "choose how a socket is",
                tcp().is_ok_and(|tcp| sockopt::set_socket_keepalive(&tcp, true).is_ok()),
            ),
        ]
    }

    /// What it tries once somebody has taken it over, as root.
    fn abuse(folder: &Path) -> Vec<(&'static str, bool)> {
        let raw = |family, protocol| socket(family, SocketType::RAW, protocol).is_ok();
        let stream = |protocol| socket(AddressFamily::INET, SocketType::STREAM, protocol).map(drop);
        let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let beside = folder.join("beside");
        let other = of_sockets(folder).join("agent");
        let name = folder.to_str().unwrap_or_default();
        let abstract_socket = || {
            let stranger = SocketAddr::from_abstract_name(name)?;
            UnixStream::connect_addr(&stranger)
        };
        let parent = rustix::process::getppid();
        vec![
            ("start a program", Command::new("/bin/true").spawn().is_ok()),
            (
                "make a raw socket",
                raw(AddressFamily::INET, Some(ipproto::ICMP)),
            ),
            ("make a netlink socket", raw(AddressFamily::NETLINK, None)),
            (
                "unmount a file system",
                rustix::mount::unmount("/nowhere", rustix::mount::UnmountFlags::empty())
                    != Err(rustix::io::Errno::NOSYS),
            ),
            (
                "read a file of others",
                std::fs::read("/etc/passwd").is_ok(),
            ),
            ("list the processes", std::fs::read_dir("/proc").is_ok()),
            (
                "write elsewhere",
                std::fs::write(&beside, "x")
                    .and_then(|()| std::fs::remove_file(&beside))
                    .is_ok(),
            ),
            (
                "answer at the socket of another process",
                UnixListener::bind(&other).is_ok(),
            ),
            (
                "make a socket among its files",
                UnixListener::bind(folder.join("state/socket")).is_ok(),
            ),
            ("bind a port", TcpListener::bind("127.0.0.1:0").is_ok()),
            ("bind a UDP port", UdpSocket::bind("127.0.0.1:0").is_ok()),
            // It binds ports of TCP, and Landlock does not look.
            (
                "make a socket of Multipath TCP",
                stream(Some(ipproto::MPTCP)) != Err(rustix::io::Errno::NOSYS),
            ),
            (
                "have a descriptor do more than flags say",
                rustix::pipe::fcntl_setpipe_size(&pipe.0, 4096).is_ok(),
            ),
            (
                "make the close of a socket wait",
                socket(AddressFamily::INET, SocketType::STREAM, None).is_ok_and(|tcp| {
                    let hour = std::time::Duration::from_secs(3600);
                    sockopt::set_socket_linger(&tcp, Some(hour)).is_ok()
                }),
            ),
            (
                "change how much a socket takes in",
                socket(AddressFamily::INET, SocketType::STREAM, None)
                    .is_ok_and(|tcp| sockopt::set_socket_recv_buffer_size(&tcp, 4096).is_ok()),
            ),
            (
                "signal another process",
                parent.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok()),
            ),
            ("reach an abstract socket", abstract_socket().is_ok()),
        ]
    }

    #[test]
    fn a_confined_process_can_work_and_nothing_else() {
        if let Some(folder) = std::env::var_os(FOLDER) {
            return tell(Path::new(&folder));
        }
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: only root can try what a proxy must not do");
            return;
        }
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let name = folder.path().to_str().unwrap();
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let _stranger = UnixListener::bind_addr(&address).unwrap();
        let free = asked(folder.path(), false);
        for attempt in &free {
            assert!(attempt.1, "not confined, it cannot {}", attempt.0);
        }
        let confined = asked(folder.path(), true);
        assert_eq!(confined.len(), free.len());
        let works = work(folder.path()).len();
        for (number, (attempt, worked)) in confined.iter().enumerate() {
            assert_eq!(*worked, number < works, "confined, it tries to {attempt}");
        }
    }

    #[test]
    fn a_crash_of_a_process_without_rights_leaves_no_key_behind() {
        if std::env::var_os(CONFINED).is_some() {
            drop_privileges().unwrap();
            println!("{MARK}{:?}", rustix::process::dumpable_behavior().unwrap());
            return;
        }
        let test = "confine::tests::a_crash_of_a_process_without_rights_leaves_no_key_behind";
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(CONFINED, "yes")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&format!("{MARK}NotDumpable")), "{text}");
    }

    /// The answers of a process of its own, with one thread that is confined.
    fn asked(folder: &Path, confined: bool) -> Vec<(String, bool)> {
        for name in ["state", "sockets"] {
            let folder = folder.join(name);
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir(&folder).unwrap();
        }
        std::fs::write(of_sockets(folder).join("admin"), "").unwrap();
        let test = "confine::tests::a_confined_process_can_work_and_nothing_else";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", test, "--nocapture"])
            .env(FOLDER, folder)
            .stderr(Stdio::inherit());
        if confined {
            command.env(CONFINED, "yes");
        }
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let answers = text.lines().filter_map(|line| {
            let (_, answer) = line.split_once(MARK)?;
            let (worked, attempt) = answer.split_once(' ')?;
            Some((attempt.to_owned(), worked == "true"))
        });
        let answers: Vec<_> = answers.collect();
        assert!(!answers.is_empty(), "{text}");
        answers
    }

    fn tell(folder: &Path) {
        if std::env::var_os(CONFINED).is_some() {
            let confinement =
                confine(Some(&folder.join("state")), &of_sockets(folder), &[]).unwrap();
            assert_eq!(confinement.files, "own", "this kernel has no Landlock");
        }
        for (attempt, worked) in work(folder).into_iter().chain(abuse(folder)) {
            println!("{MARK}{worked} {attempt}");
        }
    }
}

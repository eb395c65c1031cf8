//! The unsafe calls of userspace: what aya 0.14 does not offer of `bpf(2)`, and packet sockets.

#![expect(
    unsafe_code,
    reason = "bpf(2) and sendto(2) take pointers; this is the one file that may pass them"
)]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use aya::maps::MapData;
use ingress_ebpf::abi::Abi;

const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

/// A map's key or value, as aya wants it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plain<T: Abi>(pub(super) T);

// SAFETY: an `Abi` type is `repr(C)`, has no padding and is valid for all bit patterns; the wrapper
// is transparent.
unsafe impl<T: Abi> aya::Pod for Plain<T> {}

/// Where a link's program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// XDP of the interface of this index.
    Interface(u32),
    /// sk_lookup of the network namespace of this inode.
    Namespace(u64),
    /// Nowhere: the interface or the namespace is gone, or the link was detached.
    Gone,
    /// A kind of link that Forebay does not make.
    Foreign,
}

/// `BPF_LINK_TYPE_NETNS` and `BPF_LINK_TYPE_XDP` of linux/bpf.h.
const LINK_NETNS: u32 = 5;
const LINK_XDP: u32 = 6;

/// `struct bpf_attr` of `BPF_OBJ_GET`.
#[repr(C)]
struct ObjectGet {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `struct bpf_attr` of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct ObjectInfo {
    fd: u32,
    length: u32,
    info: u64,
}

/// `struct bpf_attr` of `BPF_MAP_UPDATE_BATCH`.
#[repr(C)]
struct MapUpdateBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// `struct bpf_attr` of `BPF_LINK_UPDATE`.
#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// `struct bpf_attr` of `BPF_LINK_DETACH`.
#[repr(C)]
struct LinkDetach {
    link: u32,
}

/// The start of `struct bpf_link_info`.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    /// Index of the interface, or inode of the network namespace.
    target: u32,
    rest: [u32; 27],
}

/// Opens a pinned object.
///
/// # Errors
///
/// What `bpf(2)` says to `BPF_OBJ_GET`; [`io::ErrorKind::InvalidInput`] for a path with a zero
/// byte.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjectGet {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    let fd = bpf(BPF_OBJ_GET, &mut attributes)?;
    // SAFETY: the call succeeded, so `fd` is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Tells what a link is attached to.
///
/// # Errors
///
/// What `bpf(2)` says to `BPF_OBJ_GET_INFO_BY_FD`.
pub(super) fn link_hook(link: BorrowedFd<'_>) -> io::Result<Hook> {
    let mut info = LinkInfo::default();
    let mut attributes = ObjectInfo {
        fd: link.as_raw_fd() as u32,
        length: size_of::<LinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(match (info.kind, info.target) {
        (LINK_XDP | LINK_NETNS, 0) => Hook::Gone,
        (LINK_XDP, index) => Hook::Interface(index),
        (LINK_NETNS, inode) => Hook::Namespace(u64::from(inode)),
        _ => Hook::Foreign,
    })
}

/// Replaces the program of a link; connections in between meet the old one or the new one.
///
/// # Errors
///
/// What `bpf(2)` says to `BPF_LINK_UPDATE`.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = LinkUpdate {
        link: link.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        flags: 0,
        old_program: 0,
    };
    bpf(BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// Detaches a link now; closing and unpinning it does so some time later.
///
/// # Errors
///
/// What `bpf(2)` says to `BPF_LINK_DETACH`.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = LinkDetach {
        link: link.as_raw_fd() as u32,
    };
    bpf(BPF_LINK_DETACH, &mut attributes).map(drop)
}

/// Stores values in an array from the index `first` on, by one call: one for each bucket of a table
/// would keep the thread for tens of milliseconds.
///
/// # Errors
///
/// What `bpf(2)` says to `BPF_MAP_UPDATE_BATCH`; some may be stored. [`io::ErrorKind::InvalidInput`]
/// where the values are not as long as the map's, or there are too many.
///
/// # Minimum kernel version
///
/// Linux 5.6.
pub(super) fn store<T: Abi>(array: &MapData, first: u32, values: &[T]) -> io::Result<()> {
    let value_size = array.info().map_err(io::Error::other)?.value_size();
    let count = u32::try_from(values.len()).ok();
    let end = count.and_then(|count| first.checked_add(count));
    let (Some(count), Some(end)) = (count, end) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    if value_size as usize != size_of::<T>() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let keys: Vec<u32> = (first..end).collect();
    let mut attributes = MapUpdateBatch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count,
        map: array.fd().as_fd().as_raw_fd() as u32,
        element_flags: 0,
        flags: 0,
    };
    bpf(BPF_MAP_UPDATE_BATCH, &mut attributes).map(drop)
}

/// Opens a socket that sends frames as they are, and receives none.
///
/// # Errors
///
/// What `socket(2)` says: EPERM without CAP_NET_RAW.
pub(super) fn packet_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes numbers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so `fd` is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a frame out of the interface of an index.
///
/// # Errors
///
/// What `sendto(2)` says.
pub(super) fn send_frame(socket: &OwnedFd, interface: u32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: a struct of integers, for which zero is a value.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = interface.cast_signed();
    // SAFETY: the frame and the address are as long as said, and outlive the call, which only reads them.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: each caller passes the attributes of its command, whole and zeroed where unused;
    // pointers in them stay valid until the call returns, and the kernel writes no more than the
    // given lengths.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as RawFd)
    }
}

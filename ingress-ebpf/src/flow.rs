//! The four-tuple that names a connection.

/// The four-tuple that names a TCP connection, as in the packet of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow<A> {
    /// Client address.
    pub source: A,
    /// VIP.
    pub destination: A,
    /// Client port in the lower half, the VIP's in the upper, both in network byte order: the first
    /// four bytes of a client's TCP header.
    pub ports: u32,
}

impl<A> Flow<A> {
    /// The VIP's port, network byte order.
    #[inline(always)]
    pub const fn service_port(&self) -> u16 {
        (self.ports >> 16) as u16
    }
}

/// The ports of a flow (network byte order) as a word.
#[inline(always)]
pub const fn ports(client: u16, service: u16) -> u32 {
    (service as u32) << 16 | client as u32
}

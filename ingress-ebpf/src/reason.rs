//! Why a frame is treated as it is: the counters, their numbers and their names.

/// Declares [`Reason`] with its number, name and action, so that they cannot drift apart.
macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $number:literal, $action:literal, $label:literal;)+) => {
        /// Why a frame was treated as it was: the index of its counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Reason { $($(#[$doc])+ $variant = $number),+ }

        impl Reason {
            /// Every reason, in the order of its counters.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Index into `COUNTERS`.
            #[inline(always)]
            pub const fn index(self) -> u32 {
                self as u32
            }

            /// Label of the metric: `pass`, `drop`, `forward`, `answer` or `assign`.
            pub const fn action(self) -> &'static str {
                match self { $(Self::$variant => $action),+ }
            }

            /// Label of the metric: why.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }
        }
    };
}

reasons! {
    /// Neither IPv4 nor IPv6: ARP that is not for this node to answer, three VLAN tags.
    NotIp = 0, "pass", "not_ip";
    /// Not TCP, no encapsulated packet, and no ICMP error about a VIP's.
    NotTcp = 1, "pass", "not_tcp";
    /// TCP for an address and port that is no VIP.
    NotVip = 2, "pass", "not_vip";
    /// The frame ends inside a header, or its lengths contradict each other. The kernel has the
    /// last word.
    Malformed = 3, "pass", "malformed";
    /// For a VIP, but another machine's frame: a switch flooded it.
    OtherMac = 4, "pass", "other_mac";
    /// This node owns the connection.
    Own = 5, "pass", "own";
    /// A peer sent it and this node serves it.
    Decapsulated = 6, "pass", "decapsulated";
    /// The maps are not filled, or a bucket or node is missing: served here.
    NoTable = 7, "pass", "no_table";
    /// The owner's MAC address is not known: served here.
    NoNeighbour = 8, "pass", "no_neighbour";
    /// The kernel refused room for the outer headers: served here.
    NoRoom = 9, "pass", "no_room";
    /// Sent to the owner inside UDP.
    ForwardedUdp = 10, "forward", "udp";
    /// Sent to the owner's MAC address as it was.
    ForwardedL2 = 11, "forward", "l2";
    /// A fragment for a VIP: fragments cannot be steered consistently.
    Fragment = 12, "drop", "fragment";
    /// IPv4 options or IPv6 extension headers on a packet for a VIP.
    IpOptions = 13, "drop", "ip_options";
    /// A TCP header for a VIP that contradicts itself.
    BadTcp = 14, "drop", "bad_tcp";
    /// Too long to be encapsulated on the way to its owner.
    TooBig = 15, "drop", "too_big";
    /// Encapsulated, but from no peer.
    NotPeer = 16, "drop", "not_peer";
    /// From a peer, but the header or the inner packet is not understood.
    BadEncapsulation = 17, "drop", "bad_encapsulation";
    /// From a peer, but the inner destination is no VIP.
    InnerNotVip = 18, "drop", "inner_not_vip";
    /// `assign` gave the connection to a worker.
    Assigned = 19, "assign", "assigned";
    /// A new connection while no worker listens: `steer` drops its SYN, so that the client tries
    /// again while a process restarts. From within the host `assign` refuses it, which answers with
    /// a reset.
    NoListener = 20, "drop", "no_listener";
    /// `assign` dropped a connection to a port that the VIP does not serve, or a datagram to a VIP.
    ClosedPort = 21, "drop", "closed_port";
    /// This node owned the connection's bucket, or is one of those that may hold it, and does not
    /// have it: sent to the next one.
    SecondChance = 22, "forward", "second_chance";
    /// The same, but more of these packets came at once than connections can have: a flood.
    NoChance = 23, "drop", "second_chance_limit";
    /// An ARP request for a VIP that this node announces.
    AnsweredArp = 24, "answer", "arp";
    /// A neighbour solicitation for one.
    AnsweredNdp = 25, "answer", "ndp";
    /// Either, for a VIP that another node announces. This one's kernel would answer ARP.
    NotAnnouncer = 26, "drop", "not_announcer";
    /// An ARP request for a VIP whose sender has no MAC address, or a group's: kernels would answer all.
    BadSender = 27, "drop", "arp_bad_sender";
}

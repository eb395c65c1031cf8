//! Says unasked where virtual IPs are, and has the network bring the questions of those who ask.
//!
//! `steer` answers questions. Whoever has asked before keeps an answer for minutes: when another node
//! announces a virtual IP, gratuitous ARP and unsolicited advertisements tell all of them.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::OwnedFd,
    time::Duration,
};

use ingress_ebpf::{
    announce::{Answer, ETHERTYPE_ARP, gratuitous, unsolicited},
    headers::ETHERTYPE_IPV6,
};
use tokio::time::Instant;

use super::{
    maps::{address, words},
    sys,
};

/// How long after each time it is said once more: a frame may be lost, and a port of a switch that has just
/// come up may not pass any on yet. RFC 5227 and RFC 4861 section 7.2.6 ask for few and for pauses.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

/// Where it is said: index and MAC address of an interface.
pub(super) type Place = (u32, [u8; 6]);

/// What is to be said, and the sockets for it.
#[derive(Debug)]
pub(super) struct Telling {
    due: Vec<Due>,
    packets: Option<OwnedFd>,
    /// Hold the memberships of groups: for each socket the kernel has memory for some hundred or thousand
    /// (`net.core.optmem_max`).
    groups: Vec<UdpSocket>,
    joined: BTreeSet<(u32, Ipv6Addr)>,
    /// Why nothing can be said.
    trouble: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    vip: IpAddr,
    at: Instant,
    /// How often it was said.
    said: usize,
}

impl Telling {
    /// Opens the sockets, where something `is_announced` at all.
    pub(super) fn new(is_announced: bool) -> Self {
        let packets = is_announced.then(sys::packet_socket);
        let trouble = match &packets {
            Some(Err(error)) => Some(format!(
                "neighbours are not told where virtual IPs are, which takes CAP_NET_RAW: {error}"
            )),
            _ => None,
        };
        if let Some(reason) = &trouble {
            tracing::error!(reason, "cannot announce virtual IPs as asked");
        }
        Self {
            due: Vec::new(),
            packets: packets.and_then(Result::ok),
            groups: Vec::new(),
            joined: BTreeSet::new(),
            trouble,
        }
    }

    /// Why nothing can be said.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    /// Has these virtual IPs told of from now on.
    pub(super) fn begin(&mut self, vips: impl IntoIterator<Item = IpAddr>, now: Instant) {
        for vip in vips {
            self.due.retain(|due| due.vip != vip);
            self.due.push(Due {
                vip,
                at: now,
                said: 0,
            });
        }
    }

    /// Says no more of any but these.
    pub(super) fn keep(&mut self, vips: &BTreeSet<IpAddr>) {
        self.due.retain(|due| vips.contains(&due.vip));
    }

    /// What is to be said by now, once.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<IpAddr> {
        let mut taken = Vec::new();
        self.due.retain_mut(|due| {
            if due.at > now {
                return true;
            }
            taken.push(due.vip);
            let pause = PAUSES.get(due.said);
            due.said += 1;
            due.at = now + pause.copied().unwrap_or_default();
            pause.is_some()
        });
        taken
    }

    /// Says on these interfaces that a virtual IP is here.
    pub(super) fn say(&self, vip: IpAddr, places: &[Place]) {
        let Some(packets) = &self.packets else { return };
        for (interface, mac) in places {
            for frame in frames(vip, *mac) {
                if let Err(error) = sys::send_frame(packets, *interface, &frame) {
                    // It is said again, and when the interface is up once more.
                    tracing::debug!(%vip, interface, %error, "cannot tell neighbours of a virtual IP");
                }
            }
        }
    }

    /// Has the network bring the solicitations for an IPv6 address to these interfaces: they go to a group,
    /// and a card or a switch keeps groups away that nobody is in.
    pub(super) fn hear(&mut self, vip: IpAddr, places: &[Place]) {
        let IpAddr::V6(vip) = vip else { return };
        let group = solicited(vip);
        for (interface, _) in places {
            if self.joined.contains(&(*interface, group)) {
                continue;
            }
            if let Err(error) = self.join(group, *interface) {
                tracing::warn!(
                    %vip, interface, %error,
                    "cannot join the group in which a virtual IP is asked for: a card or a switch may \
                     keep the questions away"
                );
                continue;
            }
            self.joined.insert((*interface, group));
        }
    }

    fn join(&mut self, group: Ipv6Addr, interface: u32) -> io::Result<()> {
        if let Some(last) = self.groups.last() {
            let joined = last.join_multicast_v6(&group, interface);
            let is_full = |error: &io::Error| {
                matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS))
            };
            match joined {
                // Of an interface that was there before under the same index.
                Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => return Ok(()),
                Err(error) if is_full(&error) => {}
                joined => return joined,
            }
        }
        let next = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))?;
        next.join_multicast_v6(&group, interface)?;
        self.groups.push(next);
        Ok(())
    }
}

/// The group in which an address is asked for (RFC 4291 section 2.7.1).
fn solicited(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | a & 0xff, b)
}

/// The frames that say that a virtual IP is at `mac`.
fn frames(vip: IpAddr, mac: [u8; 6]) -> Vec<Vec<u8>> {
    match vip {
        IpAddr::V4(vip) => gratuitous(address(vip), mac)
            .map(|answer| frame(&answer, ETHERTYPE_ARP))
            .into(),
        IpAddr::V6(vip) => vec![frame(&unsolicited(words(vip), mac), ETHERTYPE_IPV6)],
    }
}

fn frame<const WORDS: usize>(answer: &Answer<WORDS>, ethertype: u16) -> Vec<u8> {
    let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let (macs, packet): (Vec<u8>, Vec<u8>) = (bytes(&answer.macs), bytes(&answer.packet));
    [&macs[..], &ethertype.to_be_bytes(), &packet].concat()
}

/// Whether this node may ask for its neighbours as if it had a virtual IP: these would take it for the one
/// that announces it. `net.ipv4.conf.*.arp_announce` is 2 where it does not.
pub(super) fn asks_as_any(interface: &str) -> bool {
    let of = |name: &str| {
        let path = format!("/proc/sys/net/ipv4/conf/{name}/arp_announce");
        let text = fs::read_to_string(path).ok()?;
        text.trim().parse::<u8>().ok()
    };
    // The kernel goes by the greater one.
    let level = of("all").max(of(interface));
    level.is_some_and(|level| level < 2)
}

/// An address and its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    /// Index of the interface that has the address.
    pub(super) interface: u32,
    pub(super) address: IpAddr,
    /// Bits of the prefix.
    pub(super) prefix: u8,
}

impl Network {
    /// Whether an address is in it.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let prefix = u32::from(self.prefix);
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differs = Ipv4Addr::to_bits(own) ^ Ipv4Addr::to_bits(other);
                differs
                    .checked_shr(32_u32.saturating_sub(prefix))
                    .unwrap_or(0)
                    == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differs = Ipv6Addr::to_bits(own) ^ Ipv6Addr::to_bits(other);
                differs
                    .checked_shr(128_u32.saturating_sub(prefix))
                    .unwrap_or(0)
                    == 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 10));

    #[test]
    fn a_virtual_ip_is_told_of_three_times_with_growing_pauses() {
        let mut telling = Telling::new(false);
        let start = Instant::now();
        let seconds = |count: u64| start + Duration::from_secs(count);
        telling.begin([VIP], start);
        let told: Vec<_> = (0..20)
            .filter(|second| telling.take_due(seconds(*second)) == [VIP])
            .collect();
        assert_eq!(told, [0, 1, 3]);
        // Again from the start, where the link comes up meanwhile.
        telling.begin([VIP], seconds(20));
        assert_eq!(telling.take_due(seconds(20)), [VIP]);
        telling.begin([VIP], seconds(21));
        let told: Vec<_> = (21..40)
            .filter(|second| telling.take_due(seconds(*second)) == [VIP])
            .collect();
        assert_eq!(told, [21, 22, 24]);
    }

    #[test]
    fn what_another_node_announces_is_told_of_no_more() {
        let mut telling = Telling::new(false);
        let start = Instant::now();
        telling.begin([VIP], start);
        telling.keep(&BTreeSet::new());
        assert!(telling.take_due(start).is_empty());
    }

    #[test]
    fn a_network_contains_what_has_its_prefix() {
        let network = |address: &str, prefix| Network {
            interface: 1,
            address: address.parse().unwrap(),
            prefix,
        };
        for (network, address, is_in) in [
            (network("198.51.100.1", 24), "198.51.100.255", true),
            (network("198.51.100.1", 24), "198.51.101.1", false),
            (network("198.51.100.1", 32), "198.51.100.1", true),
            (network("198.51.100.1", 32), "198.51.100.2", false),
            (network("198.51.100.1", 0), "203.0.113.1", true),
            (network("2001:db8::1", 64), "2001:db8::ffff", true),
            (network("2001:db8::1", 64), "2001:db8:0:1::1", false),
            (network("2001:db8::1", 0), "fd00::1", true),
            (network("2001:db8::1", 64), "198.51.100.1", false),
        ] {
            let contains = network.contains(address.parse().unwrap());
            assert_eq!(contains, is_in, "{address} in {network:?}");
        }
    }

    #[test]
    fn solicitations_for_an_address_go_to_the_group_of_its_last_bytes() {
        let group = solicited("2001:db8::12:3456:789a".parse().unwrap());
        assert_eq!(group, "ff02::1:ff56:789a".parse::<Ipv6Addr>().unwrap());
    }
}

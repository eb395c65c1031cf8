//! IPv6 beside IPv4: a virtual address of its own, and a way to it over the same machines.

use std::net::Ipv6Addr;

use anyhow::Result;

use super::{Lab, Namespace, NextHop, ip};

/// The virtual IPv6 address that the router sends to the nodes.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 3, 0, 0, 0, 0x10);
/// The client's IPv6 address.
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 2);
/// The client's IPv6 address where it is on the nodes' segment.
const FLAT_CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 2);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);

impl Lab {
    /// Gives the client, the router and the nodes IPv6 addresses, and the router a route to
    /// [`VIP6`].
    ///
    /// # Errors
    /// The kernel has no IPv6.
    pub fn enable_ipv6(&self, next_hop: NextHop) -> Result<()> {
        let machines = [&self.client, &self.router];
        let nodes = self.nodes.iter().map(|node| &node.namespace);
        for machine in machines.into_iter().chain(nodes) {
            machine.sysctl("net/ipv6/conf/all/disable_ipv6", "0")?;
        }
        self.router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        // As for IPv4, by ports: else all flows of one client go the same way.
        self.router
            .sysctl("net/ipv6/fib_multipath_hash_policy", "1")?;
        address(&self.router, "br0", GATEWAY6)?;
        if next_hop == NextHop::Flat {
            address(&self.client, "eth0", FLAT_CLIENT6)?;
        } else {
            address(&self.router, "client", ROUTER6)?;
            address(&self.client, "eth0", CLIENT6)?;
            default_route(&self.client, ROUTER6)?;
        }
        let mut hops = Vec::new();
        for (index, node) in (11..).zip(&self.nodes) {
            let own = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, index);
            address(&node.namespace, "eth0", own)?;
            default_route(&node.namespace, GATEWAY6)?;
            hops.push(own);
        }
        match next_hop {
            NextHop::Single => hops.truncate(1),
            NextHop::Ecmp => {}
            NextHop::Flat => {
                let route = ["-6", "route", "add", &VIP6.to_string(), "dev", "eth0"];
                return ip(&self.client, &route).map(drop);
            }
        }
        let (vip, hops) = (format!("{VIP6}/128"), hops.iter().map(Ipv6Addr::to_string));
        let hops: Vec<_> = hops.collect();
        let mut route = vec!["-6", "route", "add", &vip];
        for hop in &hops {
            route.extend(["nexthop", "via", hop]);
        }
        ip(&self.router, &route).map(drop)
    }
}

fn address(machine: &Namespace, interface: &str, address: Ipv6Addr) -> Result<()> {
    // Duplicate detection would take a second for each.
    let address = format!("{address}/64");
    ip(
        machine,
        &["-6", "address", "add", &address, "dev", interface, "nodad"],
    )
    .map(drop)
}

fn default_route(machine: &Namespace, gateway: Ipv6Addr) -> Result<()> {
    let gateway = gateway.to_string();
    ip(machine, &["-6", "route", "add", "default", "via", &gateway]).map(drop)
}

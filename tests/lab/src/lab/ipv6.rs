//! IPv6 beside IPv4: a virtual address of its own, and a way to it over the same machines.

use std::{net::Ipv6Addr, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{Lab, Namespace, NextHop};

/// The virtual IPv6 address that the router sends to the nodes.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 3, 0, 0, 0, 0x10);
/// The client's IPv6 address.
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 2);
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
        address(&self.router, "client", ROUTER6)?;
        address(&self.router, "br0", GATEWAY6)?;
        address(&self.client, "eth0", CLIENT6)?;
        default_route(&self.client, ROUTER6)?;
        let mut hops = Vec::new();
        for (index, node) in (11..).zip(&self.nodes) {
            let own = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, index);
            address(&node.namespace, "eth0", own)?;
            default_route(&node.namespace, GATEWAY6)?;
            hops.push(own);
        }
        if next_hop == NextHop::Single {
            hops.truncate(1);
        }
        let mut route = vec!["route".to_owned(), "add".to_owned(), format!("{VIP6}/128")];
        for hop in hops {
            route.extend(["nexthop", "via"].map(str::to_owned));
            route.push(hop.to_string());
        }
        ip(&self.router, &route)
    }
}

fn address(machine: &Namespace, interface: &str, address: Ipv6Addr) -> Result<()> {
    // Duplicate detection would take a second for each.
    let address = format!("{address}/64");
    let arguments = ["address", "add", &address, "dev", interface, "nodad"];
    ip(machine, &arguments.map(str::to_owned))
}

fn default_route(machine: &Namespace, gateway: Ipv6Addr) -> Result<()> {
    let gateway = gateway.to_string();
    let arguments = ["route", "add", "default", "via", &gateway];
    ip(machine, &arguments.map(str::to_owned))
}

fn ip(machine: &Namespace, arguments: &[String]) -> Result<()> {
    let mut command = Command::new("ip");
    command.arg("-6").args(arguments);
    let shown = format!("{command:?} in {}", machine.name());
    let output = machine.run(move || command.output()).context("run ip")?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{shown}: {error}");
    Ok(())
}

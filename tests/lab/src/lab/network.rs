//! What `ip` would do in a namespace: veth pairs, bridges, addresses, routes.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, OwnedFd},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder, RouteNextHopBuilder,
};

use super::{Namespace, sys};

impl Namespace {
    /// Runs `work` with a netlink connection to this network.
    fn netlink<T, F>(&self, work: impl FnOnce(Handle) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>>,
    {
        self.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()?;
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection()?;
                tokio::spawn(connection);
                work(handle).await
            })
        })
    }

    /// Brings `interface` up.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn up(&self, interface: &str) -> Result<()> {
        let name = interface.to_owned();
        self.netlink(move |netlink| async move {
            Ok(netlink
                .link()
                .set(LinkUnspec::new_with_name(&name).up().build())
                .execute()
                .await?)
        })
        .with_context(|| format!("bring up {interface} in {}", self.name()))
    }

    /// Joins this network's new interface `here` with `other`'s new interface `there`; both are up.
    ///
    /// # Errors
    /// A name is taken in either network; `there` must not exist here either.
    pub fn veth(&self, here: &str, other: &Self, there: &str) -> Result<()> {
        let (local, peer, peer_network) = (
            here.to_owned(),
            there.to_owned(),
            File::open(other.net_path())?,
        );
        self.netlink(move |netlink| async move {
            netlink
                .link()
                .add(LinkVeth::new(&local, &peer).build())
                .execute()
                .await?;
            let away = LinkUnspec::new_with_name(&peer).setns_by_fd(peer_network.as_raw_fd());
            netlink.link().set(away.build()).execute().await?;
            Ok(netlink
                .link()
                .set(LinkUnspec::new_with_name(&local).up().build())
                .execute()
                .await?)
        })
        .with_context(|| {
            format!(
                "join {here} in {} with {there} in {}",
                self.name(),
                other.name()
            )
        })?;
        other.up(there)
    }

    /// Makes the bridge `name`, up, with `ports`.
    ///
    /// # Errors
    /// The name is taken or a port does not exist.
    pub fn bridge(&self, name: &str, ports: &[&str]) -> Result<()> {
        let bridge = name.to_owned();
        let ports: Vec<_> = ports.iter().map(|&port| port.to_owned()).collect();
        self.netlink(move |netlink| async move {
            netlink
                .link()
                .add(LinkBridge::new(&bridge).up().build())
                .execute()
                .await?;
            let controller = index(&netlink, &bridge).await?;
            for port in ports {
                let joined = LinkUnspec::new_with_name(&port).controller(controller);
                netlink.link().set(joined.build()).execute().await?;
            }
            Ok(())
        })
        .with_context(|| format!("make the bridge {name} in {}", self.name()))
    }

    /// Gives `interface` an address.
    ///
    /// # Errors
    /// There is no such interface or it has the address.
    pub fn address(&self, interface: &str, address: Ipv4Addr, prefix: u8) -> Result<()> {
        let name = interface.to_owned();
        self.netlink(move |netlink| async move {
            let index = index(&netlink, &name).await?;
            Ok(netlink
                .address()
                .add(index, IpAddr::V4(address), prefix)
                .execute()
                .await?)
        })
        .with_context(|| format!("add {address}/{prefix} to {interface} in {}", self.name()))
    }

    /// Routes `destination` by one gateway, or by several with the flow's hash; replaces what was
    /// there.
    ///
    /// # Errors
    /// A gateway is not on a network of this machine.
    pub fn route(&self, destination: Ipv4Addr, prefix: u8, gateways: &[Ipv4Addr]) -> Result<()> {
        let hops = gateways.to_vec();
        self.netlink(move |netlink| async move {
            let route =
                RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(destination, prefix);
            let route = match hops[..] {
                [gateway] => route.gateway(gateway),
                _ => {
                    let hop = |&gateway: &Ipv4Addr| {
                        RouteNextHopBuilder::new_ipv4().via(IpAddr::V4(gateway))
                    };
                    let hops = hops
                        .iter()
                        .map(|gateway| Ok(hop(gateway)?.build()))
                        .collect::<Result<_>>()?;
                    route.multipath(hops)
                }
            };
            Ok(netlink
                .route()
                .add(route.build())
                .replace()
                .execute()
                .await?)
        })
        .with_context(|| {
            format!(
                "route {destination}/{prefix} by {gateways:?} in {}",
                self.name()
            )
        })
    }

    /// Lets `interface`, a veth end, take frames that native XDP on its peer sends back; for as
    /// long as the descriptor is open.
    ///
    /// # Errors
    /// There is no such interface, or BPF is refused.
    pub fn accept_xdp_frames(&self, interface: &str) -> Result<OwnedFd> {
        let name = interface.to_owned();
        self.netlink(
            move |netlink| async move { Ok(sys::attach_pass(index(&netlink, &name).await?)?) },
        )
        .with_context(|| format!("attach XDP to {interface} in {}", self.name()))
    }
}

/// What `ip` prints, run with these arguments on a machine.
///
/// # Errors
/// It is not installed, or fails.
pub fn ip(machine: &Namespace, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(arguments);
    let shown = format!("{command:?} in {}", machine.name());
    let output = machine.run(move || command.output()).context("run ip")?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{shown}: {error}");
    Ok(String::from_utf8(output.stdout)?)
}

async fn index(netlink: &Handle, name: &str) -> Result<u32> {
    let mut found = netlink.link().get().match_name(name.to_owned()).execute();
    let link = found
        .try_next()
        .await?
        .with_context(|| format!("no interface {name}"))?;
    Ok(link.header.index)
}

//! What the kernel knows of interfaces and routes, and the routes that make VIPs local.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::TryStreamExt;
use netlink_packet_route::{
    address::{AddressAttribute, AddressMessage},
    link::{InfoData, InfoVlan, LinkAttribute, LinkInfo, LinkMessage, LinkXdp, XdpAttached},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use rtnetlink::{Handle, RouteMessageBuilder};
use tokio::{task::JoinHandle, time::timeout};

use super::{
    announce::Network,
    error::{KernelError, netlink_code},
    mode::XdpMode,
};

/// The routing table of local addresses, `RT_TABLE_LOCAL`.
const LOCAL_TABLE: u32 = 255;

/// Who made a route or asked for a neighbour: a number of ours, which `/etc/iproute2/rt_protos` gives
/// to nobody. It tells ours from those of the kernel and of others for the same address.
pub(super) const OWN: RouteProtocol = RouteProtocol::Other(70);

/// How long the kernel may take for an answer. An answer that is lost, for want of memory or since it
/// cannot be read, would be waited for without end, by whoever keeps others from changing the pins.
const PATIENCE: Duration = Duration::from_secs(5);

/// A netlink socket, and another one where it has failed.
#[derive(Debug)]
pub(super) struct Netlink(Mutex<Socket>);

/// A netlink socket and the task that reads it; both end when this is dropped.
#[derive(Debug)]
struct Socket {
    handle: Handle,
    reader: JoinHandle<()>,
}

impl Socket {
    fn open() -> std::io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self {
            handle,
            reader: tokio::spawn(connection),
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) mac: [u8; 6],
    pub(super) mtu: u32,
    /// Where an XDP program runs, if one is attached.
    pub(super) xdp: Option<XdpMode>,
    /// The interface that this is a VLAN of, and the VLAN's id.
    pub(super) vlan_of: Option<(u32, u16)>,
    /// How often its link has come up.
    pub(super) ups: u32,
}

/// The way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// Interface the packets leave by.
    pub(super) interface: u32,
    /// Whose MAC address they carry: the destination's own, or a gateway's.
    pub(super) next_hop: Ipv4Addr,
}

impl Netlink {
    /// Opens a socket in this thread's network namespace.
    ///
    /// # Errors
    ///
    /// [`KernelError::Netlink`].
    pub(super) fn open() -> Result<Self, KernelError> {
        let socket = Socket::open().map_err(|error| KernelError::Netlink {
            action: "open a socket",
            source: error.into(),
        })?;
        Ok(Self(Mutex::new(socket)))
    }

    /// Where requests are made. Its reader ends at a fault of the socket: then there is a new one.
    pub(super) fn handle(&self) -> Handle {
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if socket.reader.is_finished() {
            match Socket::open() {
                Ok(new) => {
                    tracing::warn!("the netlink socket has failed: opened another one");
                    *socket = new;
                }
                // Requests to the old one fail.
                Err(error) => tracing::warn!(%error, "cannot open another netlink socket"),
            }
        }
        socket.handle.clone()
    }

    /// An answer, unless it takes too long: then the next request is made to a new socket.
    ///
    /// # Errors
    ///
    /// That of the request, [`rtnetlink::Error::RequestFailed`].
    pub(super) async fn answer<T>(
        &self,
        request: impl Future<Output = Result<T, rtnetlink::Error>>,
    ) -> Result<T, rtnetlink::Error> {
        let answer = timeout(PATIENCE, request).await;
        answer.unwrap_or_else(|_| {
            let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            socket.reader.abort();
            Err(rtnetlink::Error::RequestFailed)
        })
    }

    /// Finds an interface by its name.
    ///
    /// # Errors
    ///
    /// [`KernelError::NoInterface`], [`KernelError::Netlink`].
    pub(super) async fn interface(&self, name: &str) -> Result<Interface, KernelError> {
        let mut links = self.handle().link().get().match_name(name).execute();
        match self.answer(links.try_next()).await {
            Ok(Some(link)) => Ok(Interface::from(&link)),
            Err(error) if !matches!(netlink_code(&error), None | Some(libc::ENODEV)) => {
                Err(KernelError::netlink("read the interfaces", error))
            }
            Ok(None) | Err(_) => Err(KernelError::NoInterface(name.to_owned())),
        }
    }

    /// The addresses of this network's interfaces, and whose they are.
    ///
    /// # Errors
    ///
    /// [`KernelError::Netlink`].
    pub(super) async fn addresses(&self) -> Result<HashMap<IpAddr, String>, KernelError> {
        let addresses = self.handle().address().get().execute();
        let addresses: Vec<AddressMessage> = self
            .answer(addresses.try_collect())
            .await
            .map_err(|error| KernelError::netlink("read the addresses", error))?;
        let interfaces = self.interfaces().await?;
        let name = |index: u32| {
            interfaces
                .get(&index)
                .map(|interface| interface.name.clone())
        };
        let owned = addresses.iter().filter_map(|message| {
            let name = name(message.header.index).unwrap_or_default();
            Some((own(message)?, name))
        });
        Ok(owned.collect())
    }

    /// The networks that this one's interfaces are in.
    ///
    /// # Errors
    ///
    /// [`KernelError::Netlink`].
    pub(super) async fn networks(&self) -> Result<Vec<Network>, KernelError> {
        let addresses = self.handle().address().get().execute();
        let addresses: Vec<AddressMessage> = self
            .answer(addresses.try_collect())
            .await
            .map_err(|error| KernelError::netlink("read the addresses", error))?;
        let networks = addresses.iter().filter_map(|message| {
            Some(Network {
                interface: message.header.index,
                address: own(message)?,
                prefix: message.header.prefix_len,
            })
        });
        Ok(networks.collect())
    }

    /// Makes an address local without giving it to an interface (AnyIP): no duplicate
    /// detection, no neighbour discovery of IPv6. Of IPv4 the kernel answers ARP for it where `arp_ignore` is
    /// zero. One that is local already stays as it is.
    ///
    /// # Errors
    ///
    /// [`KernelError::Privilege`], [`KernelError::Netlink`].
    pub(super) async fn add_local(&self, vip: IpAddr) -> Result<(), KernelError> {
        let loopback = self.interface("lo").await?.index;
        let add = self.handle().route().add(local_route(vip, loopback));
        match self.answer(add.execute()).await {
            Err(error) if netlink_code(&error) != Some(libc::EEXIST) => {
                Err(KernelError::netlink("make a VIP local", error))
            }
            _ => Ok(()),
        }
    }

    /// The addresses that [`Self::add_local`] made local.
    ///
    /// # Errors
    ///
    /// [`KernelError::Netlink`].
    pub(super) async fn own_local(&self) -> Result<Vec<IpAddr>, KernelError> {
        let mut own = Vec::new();
        for all in [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ] {
            let mut routes = self.handle().route().get(all).execute();
            loop {
                match self.answer(routes.try_next()).await {
                    Ok(Some(route)) => own.extend(own_address(&route)),
                    Ok(None) => break,
                    // A kernel without IPv6 has no routes of it.
                    Err(error)
                        if matches!(
                            netlink_code(&error),
                            Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)
                        ) =>
                    {
                        break;
                    }
                    Err(error) => return Err(KernelError::netlink("read the routes", error)),
                }
            }
        }
        // Some kernels answer a question about one family with the routes of all.
        own.sort_unstable();
        own.dedup();
        Ok(own)
    }

    /// Takes an address back that [`Self::add_local`] made local. One that is not is fine, and so is
    /// one that others made so: it stays.
    ///
    /// # Errors
    ///
    /// [`KernelError::Privilege`], [`KernelError::Netlink`].
    pub(super) async fn remove_local(&self, vip: IpAddr) -> Result<(), KernelError> {
        let loopback = self.interface("lo").await?.index;
        let remove = self.handle().route().del(local_route(vip, loopback));
        match self.answer(remove.execute()).await {
            Err(error) if netlink_code(&error) != Some(libc::ESRCH) => {
                Err(KernelError::netlink("take back a VIP", error))
            }
            _ => Ok(()),
        }
    }

    /// Asks for the route to an address; `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`KernelError::Netlink`].
    pub(super) async fn path_to(&self, address: Ipv4Addr) -> Result<Option<Path>, KernelError> {
        let question = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .build();
        let mut routes = self.handle().route().get(question).execute();
        match self.answer(routes.try_next()).await {
            Ok(route) => Ok(route.and_then(|route| path(&route, address))),
            Err(error)
                if matches!(
                    netlink_code(&error),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH)
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(KernelError::netlink("look up a route", error)),
        }
    }

    /// Every interface, by index.
    ///
    /// # Errors
    ///
    /// [`KernelError::Netlink`].
    pub(super) async fn interfaces(&self) -> Result<HashMap<u32, Interface>, KernelError> {
        let links = self.handle().link().get().execute();
        let links: Vec<LinkMessage> = self
            .answer(links.try_collect())
            .await
            .map_err(|error| KernelError::netlink("read the interfaces", error))?;
        let interfaces = links.iter().map(Interface::from);
        Ok(interfaces
            .map(|interface| (interface.index, interface))
            .collect())
    }
}

impl From<&LinkMessage> for Interface {
    fn from(link: &LinkMessage) -> Self {
        let mut interface = Self {
            name: String::new(),
            index: link.header.index,
            mac: [0; 6],
            mtu: 1500,
            xdp: None,
            vlan_of: None,
            ups: 0,
        };
        let (mut parent, mut vlan) = (None, None);
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
                LinkAttribute::Address(mac) => {
                    interface.mac = mac.as_slice().try_into().unwrap_or_default()
                }
                LinkAttribute::Xdp(xdp) => interface.xdp = xdp.iter().find_map(mode),
                LinkAttribute::Link(index) => parent = Some(*index),
                LinkAttribute::CarrierUpCount(count) => interface.ups = *count,
                LinkAttribute::LinkInfo(info) => vlan = info.iter().find_map(vlan_id),
                _ => {}
            }
        }
        interface.vlan_of = parent.zip(vlan);
        interface
    }
}

/// An interface's own address, which on a point-to-point link is not `Address`; IPv6 says nothing else
/// elsewhere.
fn own(message: &AddressMessage) -> Option<IpAddr> {
    let attributes = &message.attributes;
    let local = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address @ IpAddr::V6(_)) => Some(*address),
            _ => None,
        })
    })
}

fn mode(xdp: &LinkXdp) -> Option<XdpMode> {
    match xdp {
        LinkXdp::Attached(XdpAttached::Driver) => Some(XdpMode::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(XdpMode::Generic),
        _ => None,
    }
}

fn vlan_id(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(attributes)) = info else {
        return None;
    };
    attributes.iter().find_map(|attribute| match attribute {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })
}

fn local_route(vip: IpAddr, loopback: u32) -> RouteMessage {
    match vip {
        IpAddr::V4(vip) => to_loopback(
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(vip, 32),
            loopback,
        ),
        IpAddr::V6(vip) => to_loopback(
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(vip, 128),
            loopback,
        ),
    }
}

fn to_loopback<A>(route: RouteMessageBuilder<A>, loopback: u32) -> RouteMessage
where
    RouteMessageBuilder<A>: Sized,
{
    route
        .output_interface(loopback)
        .table_id(LOCAL_TABLE)
        .kind(RouteType::Local)
        .scope(RouteScope::Host)
        .protocol(OWN)
        .build()
}

/// The address of a route as [`local_route`] makes it.
fn own_address(route: &RouteMessage) -> Option<IpAddr> {
    let header = &route.header;
    if header.protocol != OWN || header.kind != RouteType::Local {
        return None;
    }
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some((*address).into()),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some((*address).into()),
            _ => None,
        })
}

fn path(route: &RouteMessage, destination: Ipv4Addr) -> Option<Path> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let interface = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })?;
    let gateway = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => Some(*gateway),
            _ => None,
        });
    Some(Path {
        interface,
        next_hop: gateway.unwrap_or(destination),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_has_failed_is_replaced() {
        let netlink = Netlink::open().unwrap();
        assert_eq!(netlink.interface("lo").await.unwrap().name, "lo");
        // As its reader ends at an error of the socket.
        let end = |netlink: &Netlink| netlink.0.lock().unwrap().reader.abort();
        end(&netlink);
        tokio::task::yield_now().await;
        assert_eq!(netlink.interface("lo").await.unwrap().name, "lo");
        assert!(!netlink.interfaces().await.unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_not_waited_for() {
        let netlink = Netlink::open().unwrap();
        let never = std::future::pending::<Result<(), rtnetlink::Error>>();
        let answer = netlink.answer(never).await;
        assert!(matches!(answer, Err(rtnetlink::Error::RequestFailed)));
        tokio::task::yield_now().await;
        assert!(netlink.0.lock().unwrap().reader.is_finished());
    }
}

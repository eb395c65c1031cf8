//! What the kernel knows of interfaces and routes, and the routes that make VIPs local.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use futures_util::TryStreamExt;
use netlink_packet_route::{
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use rtnetlink::{Handle, RouteMessageBuilder};
use tokio::task::JoinHandle;

use super::{
    error::{KernelError, netlink_code},
    mode::XdpMode,
};

/// The routing table of local addresses, `RT_TABLE_LOCAL`.
const LOCAL_TABLE: u32 = 255;

/// Who made a route: a number of ours, which `/etc/iproute2/rt_protos` gives to nobody. It tells our
/// routes from those of the kernel and of others for the same address.
const OWN_ROUTES: RouteProtocol = RouteProtocol::Other(70);

/// A netlink socket and the task that reads it; both end when this is dropped.
#[derive(Debug)]
pub(super) struct Netlink {
    pub(super) handle: Handle,
    reader: JoinHandle<()>,
}

impl Drop for Netlink {
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
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|error| KernelError::Netlink {
                action: "open a socket",
                source: error.into(),
            })?;
        Ok(Self {
            handle,
            reader: tokio::spawn(connection),
        })
    }

    /// Finds an interface by its name.
    ///
    /// # Errors
    ///
    /// [`KernelError::NoInterface`], [`KernelError::Netlink`].
    pub(super) async fn interface(&self, name: &str) -> Result<Interface, KernelError> {
        let mut links = self.handle.link().get().match_name(name).execute();
        match links.try_next().await {
            Ok(Some(link)) => Ok(Interface::from(&link)),
            Err(error) if !matches!(netlink_code(&error), None | Some(libc::ENODEV)) => {
                Err(KernelError::netlink("read the interfaces", error))
            }
            Ok(None) | Err(_) => Err(KernelError::NoInterface(name.to_owned())),
        }
    }

    /// The IPv4 addresses of this network's interfaces, and whose they are.
    ///
    /// # Errors
    ///
    /// [`KernelError::Netlink`].
    pub(super) async fn addresses(&self) -> Result<HashMap<Ipv4Addr, String>, KernelError> {
        let addresses: Vec<AddressMessage> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| KernelError::netlink("read the addresses", error))?;
        Ok(addresses.iter().filter_map(own_and_label).collect())
    }

    /// Makes an address local without giving it to an interface (AnyIP): no ARP, no duplicate
    /// detection. One that is local already stays as it is.
    ///
    /// # Errors
    ///
    /// [`KernelError::Privilege`], [`KernelError::Netlink`].
    pub(super) async fn add_local(&self, vip: Ipv4Addr) -> Result<(), KernelError> {
        let loopback = self.interface("lo").await?.index;
        let added = self
            .handle
            .route()
            .add(local_route(vip, loopback))
            .execute()
            .await;
        match added {
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
    pub(super) async fn own_local(&self) -> Result<Vec<Ipv4Addr>, KernelError> {
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut routes = self.handle.route().get(all).execute();
        let mut own = Vec::new();
        loop {
            match routes.try_next().await {
                Ok(Some(route)) => own.extend(own_address(&route)),
                Ok(None) => return Ok(own),
                Err(error) => return Err(KernelError::netlink("read the routes", error)),
            }
        }
    }

    /// Takes an address back that [`Self::add_local`] made local. One that is not is fine, and so is
    /// one that others made so: it stays.
    ///
    /// # Errors
    ///
    /// [`KernelError::Privilege`], [`KernelError::Netlink`].
    pub(super) async fn remove_local(&self, vip: Ipv4Addr) -> Result<(), KernelError> {
        let loopback = self.interface("lo").await?.index;
        match self
            .handle
            .route()
            .del(local_route(vip, loopback))
            .execute()
            .await
        {
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
        match self.handle.route().get(question).execute().try_next().await {
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

    /// The MTU of every interface, by index.
    ///
    /// # Errors
    ///
    /// [`KernelError::Netlink`].
    pub(super) async fn mtus(&self) -> Result<HashMap<u32, u32>, KernelError> {
        let links: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| KernelError::netlink("read the interfaces", error))?;
        Ok(links
            .iter()
            .map(Interface::from)
            .map(|interface| (interface.index, interface.mtu))
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
        };
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
                LinkAttribute::Address(mac) => {
                    interface.mac = mac.as_slice().try_into().unwrap_or_default()
                }
                LinkAttribute::Xdp(xdp) => interface.xdp = xdp.iter().find_map(mode),
                _ => {}
            }
        }
        interface
    }
}

/// An interface's own address, which on a point-to-point link is not `Address`, and its name.
fn own_and_label(message: &AddressMessage) -> Option<(Ipv4Addr, String)> {
    let attributes = &message.attributes;
    let own = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })?;
    let label = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Label(label) => Some(label.clone()),
        _ => None,
    });
    Some((own, label.unwrap_or_default()))
}

fn mode(xdp: &LinkXdp) -> Option<XdpMode> {
    match xdp {
        LinkXdp::Attached(XdpAttached::Driver) => Some(XdpMode::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(XdpMode::Generic),
        _ => None,
    }
}

fn local_route(vip: Ipv4Addr, loopback: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(vip, 32)
        .output_interface(loopback)
        .table_id(LOCAL_TABLE)
        .kind(RouteType::Local)
        .scope(RouteScope::Host)
        .protocol(OWN_ROUTES)
        .build()
}

/// The address of a route as [`local_route`] makes it.
fn own_address(route: &RouteMessage) -> Option<Ipv4Addr> {
    let header = &route.header;
    if header.protocol != OWN_ROUTES || header.kind != RouteType::Local {
        return None;
    }
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
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

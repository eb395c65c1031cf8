//! What agent and proxy say to each other, apart from updates.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

use super::super::Transport;

/// The most bytes of one message: thousands of sockets, and no more. An update has a limit of its
/// own.
pub const MESSAGE_LIMIT: usize = 64 * 1024;

/// One listening socket; its descriptor travels beside the message, in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// What it speaks.
    pub transport: Transport,
    /// The address it is bound to.
    #[serde(serialize_with = "with_scope", deserialize_with = "of_scope")]
    pub address: SocketAddr,
    /// The kernel hands it the connections of the virtual IPs: nobody connects to its address.
    pub is_steered: bool,
}

/// With the interface of a link-local address, which serde leaves out.
fn with_scope<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
    let scope = match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(address) => address.scope_id(),
    };
    (address.ip(), address.port(), scope).serialize(serializer)
}

fn of_scope<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let (ip, port, scope) = <(IpAddr, u16, u32)>::deserialize(deserializer)?;
    let mut address = SocketAddr::new(ip, port);
    if let SocketAddr::V6(address) = &mut address {
        address.set_scope_id(scope);
    }
    Ok(address)
}

/// What the proxy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromProxy {
    /// First, and once.
    Hello {
        /// Its [`VERSION`](super::VERSION).
        version: u16,
        /// How many workers it has.
        workers: u16,
        /// The sockets that it serves already, from an agent before this one.
        sockets: Vec<Place>,
    },
    /// An update does not follow the one before it: the whole state is needed.
    Resync,
    /// Its workers accept from now on.
    Serving,
    /// It was told to end, and goes on serving for a while.
    Leaving,
    /// It is about to let its clients go: does somebody else serve them by the same sockets?
    Ending,
    /// Its workers do not accept any more.
    Closed,
}

/// What the agent says, apart from updates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromAgent {
    /// The answer to `Hello`.
    Welcome {
        /// The sockets to serve: new ones; none if the proxy has what it needs.
        sockets: Vec<Place>,
        /// What the virtual IPs are, and which addresses are listened on: for people.
        listeners: Vec<(Transport, SocketAddr)>,
        /// `xdp-native`, `xdp-generic` or `sockets`: how connections reach the workers.
        mode: String,
        /// Why this is not the mode that was asked for.
        degraded: Option<String>,
    },
    /// It will not talk with this proxy.
    Refused {
        /// Why, in one line.
        reason: String,
    },
    /// Nothing has changed for a while, and the agent is well.
    Alive,
    /// The answer to `Serving`: connections come from now on.
    Opened,
    /// The answer to `Ending`.
    Ended {
        /// A successor serves all that this proxy serves, by the same sockets.
        is_replaced: bool,
    },
}

/// A message as bytes.
///
/// # Errors
/// None that a value of these types leads to; postcard's signature has one.
pub fn write(message: &impl Serialize) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_stdvec(message)
}

/// The message that `bytes` are, all of them.
///
/// # Errors
/// They are none, or more than one.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, postcard::Error> {
    let (message, rest) = postcard::take_from_bytes(bytes)?;
    if !rest.is_empty() {
        return Err(postcard::Error::SerdeDeCustom);
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(port: u16) -> Place {
        Place {
            transport: Transport::Tls,
            address: ([0, 0, 0, 0], port).into(),
            is_steered: false,
        }
    }

    #[test]
    fn a_message_comes_out_as_it_went_in() {
        let hello = FromProxy::Hello {
            version: 1,
            workers: 2,
            sockets: vec![place(443), place(8443)],
        };
        for message in [hello, FromProxy::Resync, FromProxy::Closed] {
            let bytes = write(&message).unwrap();
            assert_eq!(read::<FromProxy>(&bytes).unwrap(), message);
        }
        let welcome = FromAgent::Welcome {
            sockets: vec![place(443)],
            listeners: vec![(Transport::Plain, ([198, 51, 100, 10], 80).into())],
            mode: "sockets".into(),
            degraded: Some("no CAP_BPF".into()),
        };
        for message in [welcome, FromAgent::Ended { is_replaced: true }] {
            let bytes = write(&message).unwrap();
            assert_eq!(read::<FromAgent>(&bytes).unwrap(), message);
        }
    }

    #[test]
    fn a_link_local_address_keeps_its_interface() {
        for address in ["[fe80::1%3]:80", "[fe80::1]:80", "127.0.0.1:80"] {
            let place = Place {
                address: address.parse().unwrap(),
                ..place(80)
            };
            let bytes = write(&place).unwrap();
            assert_eq!(read::<Place>(&bytes).unwrap(), place, "{address}");
        }
    }

    #[test]
    fn bytes_that_are_cut_or_too_many_are_no_message() {
        let bytes = write(&FromProxy::Hello {
            version: 1,
            workers: 2,
            sockets: vec![place(443)],
        })
        .unwrap();
        for end in 0..bytes.len() {
            assert!(read::<FromProxy>(&bytes[..end]).is_err(), "{end} bytes");
        }
        assert!(read::<FromProxy>(&[&bytes[..], &[0]].concat()).is_err());
        assert!(read::<FromProxy>(&[99]).is_err());
    }

    #[test]
    fn the_sockets_of_the_most_workers_fit_into_a_message() {
        let worst = Place {
            transport: Transport::Tls,
            address: "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535"
                .parse()
                .unwrap(),
            is_steered: true,
        };
        let bytes = write(&FromProxy::Hello {
            version: u16::MAX,
            workers: 256,
            sockets: vec![worst; 2048],
        })
        .unwrap();
        assert!(bytes.len() <= MESSAGE_LIMIT, "{} bytes", bytes.len());
    }
}

//! Operator choices: where XDP runs, how packets reach other nodes, and who says where virtual IPs are.

/// Gives each variant a name, for flags, logs and metrics, and reads it back.
macro_rules! named {
    ($type:ident { $($variant:ident = $name:literal),* }) => {
        impl $type {
            /// Every name, in the order of the variants.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// The name of the variant.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::str::FromStr for $type {
            type Err = UnknownName;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                match name {
                    $($name => Ok(Self::$variant),)*
                    _ => Err(UnknownName {
                        name: name.to_owned(),
                        known: Self::NAMES,
                    }),
                }
            }
        }
    };
}

/// Where the XDP program runs. If the requested mode is unavailable, installing fails; there is no
/// silent fallback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    #[default]
    Native,
    /// In the network stack, on any interface; slower.
    Generic,
}

named!(XdpMode { Native = "native", Generic = "generic" });

/// How a packet travels to the node that owns it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forward {
    /// Inside UDP: through any network, 36 bytes longer.
    #[default]
    Udp,
    /// To the owner's MAC address where it is on the same segment, inside UDP elsewhere.
    L2,
}

named!(Forward { Udp = "udp", L2 = "l2" });

/// How the network learns where virtual IPs are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Announce {
    /// A router is told by somebody else.
    #[default]
    None,
    /// One node for each answers ARP and neighbour solicitations on its segment.
    L2,
}

named!(Announce { None = "none", L2 = "l2" });

/// An unknown name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not one of {}", known.join(", "))]
pub struct UnknownName {
    name: String,
    known: &'static [&'static str],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_as_it_is_written() {
        for name in XdpMode::NAMES {
            assert_eq!(name.parse::<XdpMode>().unwrap().to_string(), *name);
        }
        for name in Announce::NAMES {
            assert_eq!(name.parse::<Announce>().unwrap().to_string(), *name);
        }
        for name in Forward::NAMES {
            assert_eq!(name.parse::<Forward>().unwrap().to_string(), *name);
        }
        assert_eq!(
            "skb".parse::<XdpMode>().unwrap_err().to_string(),
            "\"skb\" is not one of native, generic"
        );
    }
}

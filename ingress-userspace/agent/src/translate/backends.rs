//! Service ports that routes name → endpoints that may be sent requests.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort as Port, ServiceSpec},
        discovery::v1::EndpointPort,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::super::{
    index::{Index, external_name},
    kept::Item,
    settings::Settings,
    slice::{Conditions, EndpointSlice},
};
use super::room::ENDPOINTS;
use ingress_model::{BackendKey, Endpoint, ObjectName, Problem, ServicePort, Subject};

/// What became of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    /// Sorted by address, without duplicates. The ready ones; if there are none, those that are
    /// terminating but still serving (KEP-1669).
    pub(super) endpoints: Arc<[Endpoint]>,
    /// Why there can be none, told to whoever names the backend.
    pub(super) missing: Option<String>,
    /// The name to be looked up, of an ExternalName Service.
    pub(super) external: Option<Box<str>>,
    /// What is wrong with its slices.
    pub(super) problems: Vec<Problem>,
    /// What it [comes to](size).
    pub(super) size: usize,
    /// There is no room for its endpoints.
    pub(super) lacks_room: bool,
}

/// What each backend of that Service comes to, at most: what is gone through to find its endpoints.
pub(super) fn size(index: &Index, service: &ObjectName) -> usize {
    let Some(item) = index.objects.services.find(service) else {
        return 0;
    };
    let ports = item
        .object
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.as_ref());
    let addresses = match external_name(&item.object) {
        Some(name) => index.addresses(name).map_or(0, |known| known.found.len()),
        None => {
            let slices = index.slices_of(service);
            let slices = slices.filter_map(|name| index.objects.slices.find(name));
            let endpoints = slices.flat_map(|slice| &slice.object.endpoints);
            endpoints.map(|endpoint| endpoint.addresses.len()).sum()
        }
    };
    addresses + ports.map_or(0, Vec::len)
}

/// A backend for whose endpoints there is no room. Its name is looked up all the same: what it comes
/// to is known from that alone.
pub(super) fn refuse(index: &Index, key: &BackendKey, size: usize) -> Resolved {
    let service = index.objects.services.find(&key.service);
    let external = service.and_then(|item| external_name(&item.object));
    let namespace = &key.service.namespace;
    Resolved {
        endpoints: Arc::default(),
        missing: Some(format!(
            "Service {}: the backends of namespace {namespace} have more than {ENDPOINTS} endpoints together; requests \
             get 503",
            key.service
        )),
        external: external.filter(|name| !name.is_empty()).map(Box::from),
        problems: Vec::new(),
        size,
        lacks_room: true,
    }
}

/// Finds the endpoints of one backend; without any, requests get 503.
pub(super) fn resolve(index: &Index, settings: &Settings, key: &BackendKey) -> Resolved {
    let mut problems = Vec::new();
    let mut external = None;
    let (endpoints, missing) = match target(index, key) {
        Ok(Target::External { name, port }) => {
            let found = external_endpoints(index, settings, key, &name, port);
            external = Some(name);
            (of_one_family(index, key, found.0), found.1)
        }
        Ok(target) => {
            let slices: Slices<'_> = index
                .slices_of(&key.service)
                .filter_map(|name| Some((name, index.objects.slices.find(name)?)))
                .collect();
            let endpoints = endpoints(&slices, &target, settings, &mut problems);
            (of_one_family(index, key, endpoints), None)
        }
        Err(message) => (Vec::new(), Some(format!("{message}; requests get 503"))),
    };
    Resolved {
        endpoints: endpoints.into(),
        missing,
        external,
        problems,
        size: size(index, &key.service),
        lacks_room: false,
    }
}

/// The addresses of an external name. None are taken by which whoever may write a Service would reach
/// what only this machine reaches.
fn external_endpoints(
    index: &Index,
    settings: &Settings,
    key: &BackendKey,
    name: &str,
    port: u16,
) -> (Vec<Endpoint>, Option<String>) {
    let Some(addresses) = index.addresses(name) else {
        return (Vec::new(), None);
    };
    let checked = addresses.found.iter().map(|ip| {
        let address = address(*ip, port, settings);
        address.map(|address| Endpoint { address, pod: None })
    });
    let (fit, unfit): (Vec<_>, Vec<_>) = checked.partition(Result::is_ok);
    let endpoints: BTreeSet<_> = fit.into_iter().flatten().collect();
    let missing = match (endpoints.is_empty(), unfit.first(), &addresses.failure) {
        (true, Some(Err(reason)), _) => Some(format!("what it stands for {reason}")),
        (true, _, Some(reason)) => Some(reason.clone()),
        (true, _, None) => Some("it has no address".to_owned()),
        (false, ..) => None,
    };
    let told = |reason| {
        format!(
            "Service {} is an ExternalName, {name:?}: {reason}; requests get 503",
            key.service
        )
    };
    (endpoints.into_iter().collect(), missing.map(told))
}

/// Of a Service with both families, the endpoints of its first one: each pod has an address in
/// both, and a node that lacks one of them must not waste its tries on it.
fn of_one_family(index: &Index, key: &BackendKey, mut endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    let service = index.objects.services.find(&key.service);
    let spec = service.and_then(|item| item.object.spec.as_ref());
    let families = spec.and_then(|spec| spec.ip_families.as_deref());
    let first = families.and_then(<[_]>::first);
    let wants_v6 = first.is_some_and(|family| family == "IPv6");
    let wanted = |endpoint: &Endpoint| endpoint.address.is_ipv6() == wants_v6;
    if endpoints.iter().any(wanted) {
        endpoints.retain(wanted);
    }
    endpoints
}

type Slices<'a> = Vec<(&'a ObjectName, &'a Item<EndpointSlice>)>;

/// Which port of a slice is meant.
enum Target {
    /// A port of the Service.
    Port {
        /// Its name; empty where the Service's only port has none.
        name: String,
        /// Its target port, if that is a number.
        number: Option<u16>,
    },
    /// A headless Service without ports: the number of the Ingress itself, as in ingress-nginx.
    Number(u16),
    /// A name outside the cluster.
    External {
        /// Without the dot at its end.
        name: Box<str>,
        /// The target port, where that is a number; else the port itself, which may be that of the
        /// Ingress where the Service has none.
        port: u16,
    },
}

fn target(index: &Index, key: &BackendKey) -> Result<Target, String> {
    let Some(item) = index.objects.services.find(&key.service) else {
        return Err(format!("Service {} does not exist", key.service));
    };
    let none = ServiceSpec::default();
    let spec = item.object.spec.as_ref().unwrap_or(&none);
    let external = external_name(&item.object);
    if external == Some("") {
        let message = format!("Service {} is an ExternalName without a name", key.service);
        return Err(message);
    }
    let ports = spec.ports.as_deref().unwrap_or_default();
    if let (ServicePort::Number(number), true) = (&key.port, ports.is_empty()) {
        match external {
            Some(name) => {
                let (name, port) = (name.into(), *number);
                return Ok(Target::External { name, port });
            }
            None if headless(&item.object) => return Ok(Target::Number(*number)),
            None => {}
        }
    }
    let tcp = |port: &&Port| {
        port.protocol
            .as_deref()
            .is_none_or(|protocol| protocol == "TCP")
    };
    let declared = |port: &&Port| match &key.port {
        ServicePort::Number(number) => port.port == i32::from(*number),
        ServicePort::Name(name) => port.name.as_deref() == Some(name),
    };
    // Ingress-nginx also takes the target port of a Service for its port, and charts rely on it.
    let aimed = |port: &&Port| match (&port.target_port, &key.port) {
        (Some(IntOrString::Int(target)), ServicePort::Number(number)) => {
            *target == i32::from(*number)
        }
        (Some(IntOrString::String(target)), ServicePort::Name(name)) => *target == **name,
        _ => false,
    };
    let found = ports
        .iter()
        .filter(tcp)
        .find(declared)
        .or_else(|| ports.iter().filter(tcp).find(aimed));
    match found {
        Some(port) => {
            let number = match &port.target_port {
                Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
                _ => None,
            };
            Ok(match external {
                Some(name) => Target::External {
                    name: name.into(),
                    port: number
                        .filter(|number| *number > 0)
                        .or_else(|| u16::try_from(port.port).ok())
                        .unwrap_or_default(),
                },
                None => Target::Port {
                    name: port.name.clone().unwrap_or_default(),
                    number,
                },
            })
        }
        None => Err(format!(
            "Service {} has no TCP port {}",
            key.service, key.port
        )),
    }
}

fn headless(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.as_deref())
        == Some("None")
}

/// Ready endpoints; when there are none, those that are terminating but still serving (KEP-1669).
fn endpoints(
    slices: &[(&ObjectName, &Item<EndpointSlice>)],
    target: &Target,
    settings: &Settings,
    problems: &mut Vec<Problem>,
) -> Vec<Endpoint> {
    let (mut ready, mut last_resort) = (BTreeSet::new(), BTreeSet::new());
    for (name, item) in slices {
        let subject = Subject::object(&item.reference(name)).read_from(item.file.as_deref());
        if !matches!(&*item.object.address_type, "IPv4" | "IPv6") {
            let message = format!(
                "{:?} is neither IPv4 nor IPv6; the slice is ignored",
                item.object.address_type
            );
            problems.push(subject.warning("addressType", message));
            continue;
        }
        let Some(port) = port(&item.object, target) else {
            continue;
        };
        for (number, endpoint) in item.object.endpoints.iter().enumerate() {
            let set = match Condition::of(endpoint.conditions) {
                Condition::Ready => &mut ready,
                Condition::LastResort => &mut last_resort,
                Condition::Unfit => continue,
            };
            for text in &endpoint.addresses {
                let ip = text.parse().map_err(|_| "is not an IP address");
                match ip.and_then(|ip| address(ip, port, settings)) {
                    Ok(address) => {
                        set.insert(Endpoint {
                            address,
                            pod: endpoint.pod.as_deref().map(Into::into),
                        });
                    }
                    Err(message) => {
                        let field = format!("endpoints[{number}].addresses");
                        problems
                            .push(subject.warning(field, format!("{text:?} {message}; ignored")));
                    }
                }
            }
        }
    }
    let chosen = if ready.is_empty() { last_resort } else { ready };
    // Reversed, so that of two slices with one address the one that names a pod is kept.
    let mut endpoints: Vec<_> = chosen.into_iter().rev().collect();
    endpoints.dedup_by_key(|endpoint| endpoint.address);
    endpoints.reverse();
    endpoints
}

/// The port of a slice, found as ingress-nginx finds it: by its name; any, where the Service's port
/// has none; else the number that the Service aims at, for slices that somebody else writes.
fn port(slice: &EndpointSlice, target: &Target) -> Option<u16> {
    let (name, number) = match target {
        Target::Number(number) | Target::External { port: number, .. } => return Some(*number),
        Target::Port { name, number } => (name, number),
    };
    let fits = |port: &&EndpointPort| {
        port.protocol
            .as_deref()
            .is_none_or(|protocol| protocol == "TCP")
    };
    let ports = || slice.ports.iter().filter(fits);
    let named = |port: &&EndpointPort| port.name.as_deref().unwrap_or_default() == name;
    let found = ports()
        .find(named)
        .or_else(|| ports().next().filter(|_| name.is_empty()));
    match found {
        Some(port) => port
            .port
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0),
        None => *number,
    }
}

/// Whether an endpoint may be sent requests.
enum Condition {
    Ready,
    LastResort,
    Unfit,
}

impl Condition {
    /// As kube-proxy reads them: `ready` and `serving` unset mean yes, `terminating` unset means no.
    fn of(conditions: Conditions) -> Self {
        let is_serving = conditions.serving.unwrap_or(true);
        let is_terminating = conditions.terminating.unwrap_or(false);
        // Also while it is terminating: `publishNotReadyAddresses` asks for that.
        if conditions.ready.unwrap_or(true) {
            Self::Ready
        } else if is_serving && is_terminating {
            Self::LastResort
        } else {
            Self::Unfit
        }
    }
}

/// An address that requests may be sent to. Whoever may write EndpointSlices must not reach what
/// only this machine reaches.
fn address(ip: IpAddr, port: u16, settings: &Settings) -> Result<SocketAddr, &'static str> {
    let ip = unicast(ip, settings.allow_loopback_endpoints)?;
    // Requests would go round; which of a node's addresses are its own is left to the count of rounds.
    let is_here = |own: &SocketAddr| {
        let any = own.ip().is_unspecified() && ip.is_loopback();
        own.port() == port && (own.ip() == ip || any)
    };
    if settings.listeners.iter().any(is_here) {
        return Err("is where Forebay itself listens");
    }
    Ok(SocketAddr::new(ip, port))
}

fn unicast(ip: IpAddr, loopback: bool) -> Result<IpAddr, &'static str> {
    let ip = ip.to_canonical();
    let (local, link_local) = match ip {
        IpAddr::V4(v4) => (v4.is_loopback(), v4.is_link_local()),
        IpAddr::V6(v6) => (v6.is_loopback(), v6.is_unicast_link_local()),
    };
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    match () {
        () if ip.is_unspecified() || ip.is_multicast() || broadcast => {
            Err("is not a unicast address")
        }
        () if local && !loopback => Err("is a loopback address"),
        () if link_local && !loopback => Err("is a link-local address"),
        () => Ok(ip),
    }
}

//! Service ports that routes name → endpoints that may be sent requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort as Port, ServiceSpec},
        discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::super::{index::Index, kept::Item, settings::Settings};
use ingress_model::{Backend, BackendKey, Endpoint, ObjectName, Problem, ServicePort, Subject};

/// The label by which an EndpointSlice belongs to a Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Backends that routes name, each with the object and field that named it first.
pub(super) type Named = BTreeMap<BackendKey, (Subject, String)>;

/// Finds the endpoints of every backend; one that has none answers 503.
pub(super) fn resolve(
    index: &Index,
    settings: &Settings,
    named: Named,
    problems: &mut Vec<Problem>,
) -> BTreeMap<BackendKey, Backend> {
    let slices = by_service(index);
    let mut resolve = |key: &BackendKey, route: &Subject, field: &str| {
        let target = match target(index, key) {
            Ok(target) => target,
            Err(message) => {
                problems.push(route.warning(field, format!("{message}; requests get 503")));
                return Vec::new();
            }
        };
        let slices = slices
            .get(&key.service)
            .map(Vec::as_slice)
            .unwrap_or_default();
        endpoints(slices, &target, settings.allow_loopback_endpoints, problems)
    };
    let backend = |(key, (route, field)): (BackendKey, (Subject, String))| {
        let endpoints = resolve(&key, &route, &field);
        (key.clone(), Backend { key, endpoints })
    };
    named.into_iter().map(backend).collect()
}

type Slices<'a> = Vec<(&'a ObjectName, &'a Item<EndpointSlice>)>;

fn by_service(index: &Index) -> BTreeMap<ObjectName, Slices<'_>> {
    let mut slices: BTreeMap<_, Slices<'_>> = BTreeMap::new();
    for (name, item) in index.objects.slices.iter() {
        let labels = item.object.metadata.labels.as_ref();
        if let Some(service) = labels.and_then(|labels| labels.get(SERVICE_LABEL)) {
            let service = ObjectName::new(name.namespace.clone(), service.clone());
            slices.entry(service).or_default().push((name, item));
        }
    }
    slices
}

/// Which port of a slice is meant.
enum Target {
    /// The port with the Service port's name; empty where the Service's only port has none.
    Named(String),
    /// A headless Service without ports: the number of the Ingress itself, as in ingress-nginx.
    Number(u16),
}

fn target(index: &Index, key: &BackendKey) -> Result<Target, String> {
    let Some(item) = index.objects.services.find(&key.service) else {
        return Err(format!("Service {} does not exist", key.service));
    };
    let none = ServiceSpec::default();
    let spec = item.object.spec.as_ref().unwrap_or(&none);
    if spec.type_.as_deref() == Some("ExternalName") {
        return Err(format!(
            "Service {} is an ExternalName, which is not supported",
            key.service
        ));
    }
    let ports = spec.ports.as_deref().unwrap_or_default();
    if let (ServicePort::Number(number), true) =
        (&key.port, ports.is_empty() && headless(&item.object))
    {
        return Ok(Target::Number(*number));
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
        Some(port) => Ok(Target::Named(port.name.clone().unwrap_or_default())),
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
    loopback: bool,
    problems: &mut Vec<Problem>,
) -> Vec<Endpoint> {
    let (mut ready, mut last_resort) = (BTreeSet::new(), BTreeSet::new());
    for (name, item) in slices {
        let subject = Subject::object("EndpointSlice", name).read_from(item.file.as_deref());
        if !matches!(item.object.address_type.as_str(), "IPv4" | "IPv6") {
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
        for (number, endpoint) in item.object.endpoints.iter().flatten().enumerate() {
            let set = match Condition::of(endpoint) {
                Condition::Ready => &mut ready,
                Condition::LastResort => &mut last_resort,
                Condition::Unfit => continue,
            };
            for text in &endpoint.addresses {
                match address(text, loopback) {
                    Ok(ip) => {
                        let pod = endpoint
                            .target_ref
                            .as_ref()
                            .and_then(|target| target.name.as_deref());
                        set.insert(Endpoint {
                            address: SocketAddr::new(ip, port),
                            pod: pod.map(Into::into),
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

fn port(slice: &EndpointSlice, target: &Target) -> Option<u16> {
    let name = match target {
        Target::Number(number) => return Some(*number),
        Target::Named(name) => name,
    };
    let mut ports = slice.ports.iter().flatten();
    let found = ports.find(|port| {
        port.name.as_deref().unwrap_or_default() == name
            && port
                .protocol
                .as_deref()
                .is_none_or(|protocol| protocol == "TCP")
    });
    found
        .and_then(|port| port.port)
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0)
}

/// Whether an endpoint may be sent requests.
enum Condition {
    Ready,
    LastResort,
    Unfit,
}

impl Condition {
    /// `ready` unset means yes, `serving` unset means as `ready`, `terminating` unset means no.
    fn of(endpoint: &SliceEndpoint) -> Self {
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions
            .and_then(|conditions| conditions.ready)
            .unwrap_or(true);
        let serving = conditions
            .and_then(|conditions| conditions.serving)
            .unwrap_or(ready);
        let terminating = conditions
            .and_then(|conditions| conditions.terminating)
            .unwrap_or(false);
        match (ready || serving, terminating) {
            // Ready while terminating is what `publishNotReadyAddresses` asks for.
            (true, false) => Self::Ready,
            (true, true) if ready => Self::Ready,
            (true, true) => Self::LastResort,
            (false, _) => Self::Unfit,
        }
    }
}

/// An address that requests may be sent to. Whoever may write EndpointSlices must not reach what
/// only this machine reaches.
fn address(text: &str, loopback: bool) -> Result<IpAddr, &'static str> {
    let ip = text.parse::<IpAddr>().map_err(|_| "is not an IP address")?;
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

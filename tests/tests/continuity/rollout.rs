//! Endpoints and routes change.

use std::fmt::Write as _;

use ingress_lab::eventually;

use crate::{clients::Clients, pod::Pod, site::Site};

/// Pods replaced one after the other.
const REPLACED: usize = 6;
/// Answers between two steps.
const PAUSE: u64 = 200;

/// What an EndpointSlice says of a pod
/// (https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#conditions).
#[derive(Clone, Copy, PartialEq)]
enum Condition {
    Ready,
    Terminating,
}

#[test]
fn a_rollout_of_pods_that_close_connections_without_a_word_loses_no_request() {
    let site = Site::new(&[]);
    let mut pods: Vec<(String, Pod, Condition)> = Vec::new();
    for name in ["p0", "p1", "p2"] {
        pods.push((name.to_owned(), Pod::start(), Condition::Ready));
    }
    publish(&site, &pods);
    let forebay = site.serve();
    let clients = Clients::start(forebay.http_addr(), forebay.https_addr(), &site.ca());
    for number in 3..3 + REPLACED {
        pods.push((format!("p{number}"), Pod::start(), Condition::Ready));
        publish(&site, &pods);
        serves_on(&pods);
        // The pod hears SIGTERM together with its EndpointSlice: either may be first.
        let (name, leaving, _) = pods.remove(0);
        let leaving = if number % 2 == 0 {
            let address = leaving.address;
            drop(leaving);
            (name, address)
        } else {
            let address = leaving.address;
            pods.insert(0, (name.clone(), leaving, Condition::Terminating));
            publish(&site, &pods);
            serves_on(&pods[1..]);
            pods.remove(0);
            (name, address)
        };
        publish_with(&site, &pods, Some(leaving));
        serves_on(&pods);
        publish(&site, &pods);
    }
    clients.expect_no_loss();
}

#[test]
fn edits_of_other_routes_and_of_policies_lose_no_request() {
    let site = Site::new(&[]);
    let pods = vec![
        ("p0".to_owned(), Pod::start(), Condition::Ready),
        ("p1".to_owned(), Pod::start(), Condition::Ready),
    ];
    publish(&site, &pods);
    let forebay = site.serve();
    let clients = Clients::start(forebay.http_addr(), forebay.https_addr(), &site.ca());
    for edit in 0..20 {
        let host = format!("edit-{edit}.example.com");
        site.write("edit.yaml", &ingress(&host, edit));
        eventually("the edit is in force", || {
            let routes = forebay.routes().unwrap().to_string();
            routes.contains(&host)
        });
    }
    clients.expect_no_loss();
}

/// Waits until each pod that is ready has served a while.
fn serves_on(pods: &[(String, Pod, Condition)]) {
    for (name, pod, _) in pods
        .iter()
        .filter(|(.., condition)| *condition == Condition::Ready)
    {
        let goal = pod.served() + PAUSE;
        eventually(&format!("{name} serves on"), || pod.served() >= goal);
    }
}

fn publish(site: &Site, pods: &[(String, Pod, Condition)]) {
    publish_with(site, pods, None);
}

/// Writes the EndpointSlices of `pods`, and of one that terminates and is gone already.
fn publish_with(
    site: &Site,
    pods: &[(String, Pod, Condition)],
    gone: Option<(String, std::net::SocketAddr)>,
) {
    let mut text = String::new();
    let gone = gone
        .iter()
        .map(|(name, address)| (name, *address, Condition::Terminating));
    let all = pods
        .iter()
        .map(|(name, pod, condition)| (name, pod.address, *condition))
        .chain(gone);
    for (name, address, condition) in all {
        let conditions = match condition {
            Condition::Ready => "{ready: true, serving: true, terminating: false}",
            Condition::Terminating => "{ready: false, serving: true, terminating: true}",
        };
        write!(
            text,
            "---\n\
             apiVersion: discovery.k8s.io/v1\n\
             kind: EndpointSlice\n\
             metadata: {{name: {name}, namespace: default, labels: {{kubernetes.io/service-name: s1}}}}\n\
             addressType: IPv4\n\
             ports: [{{name: http, protocol: TCP, port: {}}}]\n\
             endpoints: [{{addresses: [{}], conditions: {conditions}}}]\n",
            address.port(),
            address.ip()
        )
        .unwrap();
    }
    site.write("slices.yaml", &text);
}

/// An Ingress for a host that nobody asks for, with policies that differ from edit to edit.
fn ingress(host: &str, edit: u32) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\n\
         kind: Ingress\n\
         metadata:\n  \
           name: edit\n  \
           namespace: default\n  \
           annotations: {{nginx.ingress.kubernetes.io/proxy-read-timeout: '{}'}}\n\
         spec:\n  \
           ingressClassName: forebay\n  \
           rules:\n  \
           - host: {host}\n    \
             http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: s1, port: {{number: 80}}}}}}}}]}}\n",
        60 + edit
    )
}

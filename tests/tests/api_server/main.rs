//! Forebay and a real API server; Forebay under its own ServiceAccount and the ClusterRole of
//! `deploy/`.
//!
//! Times are counted from the moment kubectl has returned to the first request that sees the
//! change.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod conformance;
mod killed;
mod load;
mod nodes;
mod site;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use ingress_lab::{
    api_server::{self, ApiServer},
    eventually,
    forebay::{Forebay, Launch},
    skipped,
};
use load::Load;
use site::Site;

/// What the issue demands of every change.
const DEMANDED: Duration = Duration::from_secs(1);

/// Waits until `holds` and asserts that it took no longer than the issue demands.
#[track_caller]
fn within_a_second(what: &str, holds: impl FnMut() -> bool) {
    let since = Instant::now();
    eventually(what, holds);
    let took = since.elapsed();
    println!("{what}: {} ms", took.as_millis());
    assert!(took < DEMANDED, "{what}: took {took:?}");
}

/// The shared control plane, or `None` after having said why there is none.
fn api() -> Option<Arc<ApiServer>> {
    match api_server::available() {
        Ok(()) => Some(ApiServer::shared().unwrap()),
        Err(reason) => {
            skipped(&reason);
            None
        }
    }
}

#[test]
fn ingress_that_is_created_changed_and_deleted_is_followed_within_a_second() {
    let Some(api) = api() else { return };
    let site = Site::new("ingress", api);
    assert_eq!(site.pod("one.ingress.test"), "404");
    site.ingress("web", "one.ingress.test", "");
    within_a_second("Ingress created", || site.pod("one.ingress.test") == "a");
    site.ingress("web", "two.ingress.test", "");
    within_a_second("Ingress changed", || site.pod("two.ingress.test") == "a");
    assert_eq!(site.pod("one.ingress.test"), "404");
    site.api.delete(site.name, "ingress/web").unwrap();
    within_a_second("Ingress deleted", || site.pod("two.ingress.test") == "404");
}

#[test]
fn endpoints_that_come_drain_and_go_are_followed_within_a_second() {
    let Some(api) = api() else { return };
    let site = Site::new("endpoints", api);
    site.ingress("web", "endpoints.test", "");
    within_a_second("Ingress created", || site.pod("endpoints.test") == "a");
    let pods = || {
        (0..4)
            .map(|_| site.pod("endpoints.test"))
            .collect::<BTreeSet<_>>()
    };
    let (only_a, only_b, both) = (
        BTreeSet::from(["a".to_owned()]),
        BTreeSet::from(["b".to_owned()]),
        BTreeSet::from(["a".into(), "b".into()]),
    );
    let draining = "ready: false, serving: true, terminating: true";
    site.endpoints(&[("a", "ready: true"), ("b", "ready: true")]);
    within_a_second("second endpoint", || pods() == both);
    site.endpoints(&[("a", draining), ("b", "ready: true")]);
    within_a_second("first endpoint terminating", || pods() == only_b);
    site.endpoints(&[("a", draining)]);
    within_a_second("only a terminating endpoint", || pods() == only_a);
    site.api.delete(site.name, "endpointslice/s-a").unwrap();
    within_a_second("no endpoints", || site.pod("endpoints.test") == "503");
}

#[test]
fn certificate_of_a_changed_secret_is_served_within_a_second() {
    let Some(api) = api() else { return };
    let site = Site::new("certificate", api);
    let host = "certificate.test";
    site.ingress(
        "web",
        host,
        &format!("tls: [{{hosts: [{host}], secretName: tls}}],"),
    );
    within_a_second("redirect without a Secret", || site.get(host).status == 308);
    let first = site.certificate(host, "first.pem");
    within_a_second("Secret created", || site.verifies(host, &first));
    let second = site.certificate(host, "second.pem");
    within_a_second("Secret changed", || site.verifies(host, &second));
    assert!(
        !site.verifies(host, &first),
        "the first certificate is still served"
    );
    site.api.delete(site.name, "secret/tls").unwrap();
    within_a_second("Secret deleted", || !site.verifies(host, &second));
    assert_eq!(
        site.get(host).status,
        308,
        "a missing Secret does not turn the redirect off"
    );
}

/// How many lines the status has for Secrets that are followed by name.
fn lines_by_name(forebay: &Forebay) -> usize {
    let status = forebay.status().unwrap();
    let kinds = status["source"]["state"]["kinds"].as_array().cloned();
    let by_name = |kind: &serde_json::Value| kind["kind"] == "Secret by name";
    kinds.unwrap().iter().filter(|kind| by_name(kind)).count()
}

#[test]
fn a_secret_of_any_type_is_served_within_a_second_whatever_it_was_before() {
    let Some(api) = api() else { return };
    let site = Site::new("anytype", api);
    let host = "anytype.test";
    let tls = format!("tls: [{{hosts: [{host}], secretName: tls}}],");
    site.ingress("web", host, &tls);
    within_a_second("redirect without a Secret", || site.get(host).status == 308);
    eventually("the missing Secret is followed", || {
        lines_by_name(&site.forebay) == 1
    });
    let mut last = site.certificate_of_type(host, "first.pem", "Opaque");
    within_a_second("Opaque Secret created", || site.verifies(host, &last));
    last = site.certificate_of_type(host, "second.pem", "Opaque");
    within_a_second("Opaque Secret changed", || site.verifies(host, &last));
    for (number, r#type) in [
        "kubernetes.io/tls",
        "Opaque",
        "example.com/own",
        "kubernetes.io/tls",
    ]
    .into_iter()
    .enumerate()
    {
        site.api.delete(site.name, "secret/tls").unwrap();
        within_a_second("Secret deleted", || !site.verifies(host, &last));
        last = site.certificate_of_type(host, &format!("{number}.pem"), r#type);
        within_a_second(&format!("Secret made again as {type}"), || {
            site.verifies(host, &last)
        });
    }
    eventually("the watch of its type has it", || {
        lines_by_name(&site.forebay) == 0
    });
    // At once: nobody sees that it was away.
    site.api.delete(site.name, "secret/tls").unwrap();
    last = site.certificate_of_type(host, "last.pem", "Opaque");
    within_a_second("Secret made again at once", || site.verifies(host, &last));
    let fresh = Site::new("anytype-again", Arc::clone(&site.api));
    assert!(
        fresh.verifies(host, &last),
        "a new Forebay is ready without a certificate that is there"
    );
    site.api.delete(site.name, "ingress/web").unwrap();
    eventually("it is followed no longer", || {
        lines_by_name(&site.forebay) == 0
    });
    assert_eq!(state(&site.forebay), "in-sync");
}

#[test]
fn whoever_names_a_thousand_missing_secrets_harms_nobody_else() {
    if let Err(reason) = api_server::available() {
        return skipped(&reason);
    }
    // Its own: the other tests' Forebays would follow them, too.
    let site = Site::new("modest", Arc::new(ApiServer::start().unwrap()));
    let entries: Vec<_> = (0..1_000)
        .map(|number| format!("{{hosts: [n{number}.greedy.test], secretName: s{number:04}}}"))
        .collect();
    site.api
        .apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: greedy}}\n---\n\
             {{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{namespace: greedy, name: web}}, spec: \
             {{ingressClassName: nginx, tls: [{}], rules: [{{host: n999.greedy.test, http: {{paths: [{{path: /, pathType: \
             Prefix, backend: {{service: {{name: s, port: {{number: 80}}}}}}}}]}}}}]}}}}\n",
            entries.join(", ")
        ))
        .unwrap();
    eventually("it is told that there is no room", || {
        let problems = site.forebay.status().unwrap()["problems"].to_string();
        problems.contains("Secret greedy/s0999: is not of type kubernetes.io/tls, and Forebay already follows 256")
    });
    eventually("they are shown as one", || {
        lines_by_name(&site.forebay) == 1 && state(&site.forebay) == "in-sync"
    });
    let host = "modest.test";
    let tls = format!("tls: [{{hosts: [{host}], secretName: tls}}],");
    site.ingress("web", host, &tls);
    within_a_second("redirect without a Secret", || site.get(host).status == 308);
    let made = site.certificate_of_type(host, "modest.pem", "Opaque");
    within_a_second("Secret of another namespace", || site.verifies(host, &made));
    let since = Instant::now();
    let fresh = Site::new("modest-again", Arc::clone(&site.api));
    println!(
        "a new Forebay is ready after {} ms",
        since.elapsed().as_millis()
    );
    assert!(fresh.verifies(host, &made));
}

#[test]
fn the_cluster_role_gives_what_is_used_and_nothing_else() {
    let Some(api) = api() else { return };
    api.forebay_kubeconfig().unwrap();
    let account = "--as=system:serviceaccount:forebay-system:forebay";
    let list = api
        .kubectl(&["auth", "can-i", "--list", account, "--no-headers"], "")
        .unwrap();
    // Every account may ask about itself and read the version; those lines name other groups or
    // paths.
    let ours: BTreeSet<_> = list
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.contains("selfsubject") && !line.starts_with('['))
        .collect();
    let expected = [
        "endpointslices.discovery.k8s.io [] [] [list watch]",
        "ingressclasses.networking.k8s.io [] [] [list watch]",
        "ingresses.networking.k8s.io [] [] [list watch]",
        "secrets [] [] [list watch]",
        "services [] [] [list watch]",
    ];
    assert_eq!(ours, expected.map(str::to_owned).into());
}

#[test]
fn a_killed_and_restarted_api_server_costs_no_request_and_no_change() {
    if let Err(reason) = api_server::available() {
        return skipped(&reason);
    }
    // Its own: the others would miss it.
    let site = Site::new("outage", Arc::new(ApiServer::start().unwrap()));
    for name in ["stays", "goes"] {
        site.ingress(name, &format!("{name}.outage.test"), "");
    }
    within_a_second("Ingresses created", || site.pod("goes.outage.test") == "a");
    eventually("the source is in sync", || {
        state(&site.forebay) == "in-sync"
    });

    let load = Load::start(&site, "stays.outage.test");
    site.api.kill_server();
    eventually("Forebay has noticed", || state(&site.forebay) == "degraded");
    // Behind Forebay's back: a change, and nothing left of the revisions that its watches know.
    site.api.restart_server_hidden().unwrap();
    site.api.delete(site.name, "ingress/goes").unwrap();
    site.ingress("comes", "comes.outage.test", "");
    site.api.compact().unwrap();
    site.api.kill_server();
    assert_eq!(
        site.pod("goes.outage.test"),
        "a",
        "the last table stays in force"
    );
    site.api.restart_server().unwrap();
    let since = Instant::now();
    eventually("what happened meanwhile is seen", || {
        site.pod("comes.outage.test") == "a" && site.pod("goes.outage.test") == "404"
    });
    println!(
        "caught up {} ms after the API server was back",
        since.elapsed().as_millis()
    );
    site.ingress("later", "later.outage.test", "");
    eventually("new changes are seen", || {
        site.pod("later.outage.test") == "a"
    });
    eventually("the source is in sync again", || {
        state(&site.forebay) == "in-sync"
    });
    let (requests, failures) = load.stop();
    println!(
        "{requests} requests during the outage, {} failed",
        failures.len()
    );
    assert_eq!(failures, [] as [String; 0]);
    assert!(requests > 100, "only {requests} requests");
}

/// What can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Agent,
    Server,
    Etcd,
}

#[test]
fn agent_api_server_and_etcd_are_killed_in_every_order_and_no_request_is_lost() {
    use Victim::{Agent, Etcd, Server};
    if let Err(reason) = api_server::available() {
        return skipped(&reason);
    }
    let mut site = Site::of_two_processes("orders", Arc::new(ApiServer::start().unwrap()));
    site.ingress("stays", "stays.orders.test", "");
    eventually("Ingress is served", || site.pod("stays.orders.test") == "a");
    let load = Load::start(&site, "stays.orders.test");
    let orders = [
        [Agent, Server, Etcd],
        [Server, Etcd, Agent],
        [Etcd, Agent, Server],
        [Etcd, Server, Agent],
        [Server, Agent, Etcd],
        [Agent, Etcd, Server],
    ];
    for (turn, order) in orders.into_iter().enumerate() {
        for victim in order {
            match victim {
                Agent => site.agent.as_mut().unwrap().kill(),
                Server => site.api.kill_server(),
                Etcd => site.api.kill_etcd(),
            }
            assert_eq!(site.pod("stays.orders.test"), "a", "{order:?}, {victim:?}");
        }
        // The agent comes back before the cluster does, or after.
        let agent = site.agent.as_mut().unwrap();
        if turn % 2 == 0 {
            agent.restart_unready().unwrap();
        }
        site.api.restart_etcd().unwrap();
        site.api.restart_server().unwrap();
        if turn % 2 == 1 {
            agent.restart_unready().unwrap();
        }
        let host = format!("turn{turn}.orders.test");
        site.ingress(&format!("turn{turn}"), &host, "");
        eventually("a change is seen", || site.pod(&host) == "a");
    }
    let (requests, failures) = load.stop();
    println!("{requests} requests, {} failed", failures.len());
    assert_eq!(failures, [] as [String; 0]);
    assert!(requests > 1_000, "only {requests} requests");
}

#[test]
fn a_frozen_api_server_is_noticed_within_a_minute_and_costs_no_request() {
    if let Err(reason) = api_server::available() {
        return skipped(&reason);
    }
    let site = Site::new("frozen", Arc::new(ApiServer::start().unwrap()));
    site.ingress("stays", "stays.frozen.test", "");
    eventually("Ingress is served", || site.pod("stays.frozen.test") == "a");
    eventually("the source is in sync", || {
        state(&site.forebay) == "in-sync"
    });
    let load = Load::start(&site, "stays.frozen.test");
    site.api.freeze_server().unwrap();
    let since = Instant::now();
    while state(&site.forebay) != "degraded" {
        assert!(
            since.elapsed() < Duration::from_secs(60),
            "not seen within a minute"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("degraded {} ms after it froze", since.elapsed().as_millis());
    // As long as the first release needed to take silence for recovery.
    let until = Instant::now() + Duration::from_secs(9);
    while Instant::now() < until {
        assert_eq!(state(&site.forebay), "degraded");
        std::thread::sleep(Duration::from_millis(50));
    }
    site.api.thaw_server().unwrap();
    let since = Instant::now();
    eventually("the source is in sync again", || {
        state(&site.forebay) == "in-sync"
    });
    println!(
        "in sync {} ms after it went on",
        since.elapsed().as_millis()
    );
    site.ingress("later", "later.frozen.test", "");
    eventually("new changes are seen", || {
        site.pod("later.frozen.test") == "a"
    });
    let (requests, failures) = load.stop();
    assert_eq!(failures, [] as [String; 0]);
    assert!(requests > 100, "only {requests} requests");
}

#[test]
fn more_objects_than_a_page_survive_a_server_that_knows_no_streamed_lists() {
    if let Err(reason) = api_server::available() {
        return skipped(&reason);
    }
    let site = Site::new("many", Arc::new(ApiServer::start().unwrap()));
    site.ingresses(600);
    let served = || {
        let of = |number: u32| site.pod(&format!("n{number}.many.test"));
        [0, 299, 599].map(of).iter().all(|pod| pod == "a")
    };
    eventually("all are served", served);
    let load = Load::start(&site, "n599.many.test");
    site.api.kill_server();
    eventually("Forebay has noticed", || state(&site.forebay) == "degraded");
    site.api.restart_server_without_streaming_lists().unwrap();
    let since = Instant::now();
    eventually("the source is in sync again", || {
        state(&site.forebay) == "in-sync"
    });
    println!(
        "in sync {} ms after the API server was back",
        since.elapsed().as_millis()
    );
    // A new Forebay has nothing but the list.
    let fresh = Site::new("many-again", Arc::clone(&site.api));
    eventually("a new Forebay is in sync", || {
        state(&fresh.forebay) == "in-sync"
    });
    let routes = |forebay: &Forebay| forebay.status().unwrap()["routes"].clone();
    assert_eq!(routes(&fresh.forebay), routes(&site.forebay));
    assert!(served());
    let (_, failures) = load.stop();
    assert_eq!(failures, [] as [String; 0]);
}

#[test]
fn a_kind_that_may_not_be_watched_is_named_and_followed_once_it_is_granted() {
    let Some(api) = api() else { return };
    let rules = |more: &str| {
        format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: narrow}}\nrules:\n\
             - {{apiGroups: [networking.k8s.io], resources: [ingresses, ingressclasses], verbs: [list, watch]}}\n\
             - {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}}\n\
             - {{apiGroups: [''], resources: [services{more}], verbs: [list, watch]}}\n"
        )
    };
    api.apply(&format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: narrow, namespace: default}}\n---\n{}---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: narrow}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: narrow}}\n\
         subjects: [{{kind: ServiceAccount, name: narrow, namespace: default}}]\n",
        rules("")
    ))
    .unwrap();
    let kubeconfig = api.kubeconfig_of("default", "narrow").unwrap();
    let mut site = Site::unready("narrow", api, &kubeconfig);
    // Its own address is all that it listens on before it is ready.
    site.forebay.wait_for("listening").unwrap();
    let source = || site.forebay.status().unwrap()["source"]["state"].clone();
    let advice = "may not watch secrets: grant list and watch on secrets in the ClusterRole";
    eventually("the missing right is named", || {
        let source = source();
        let kinds = source["kinds"].as_array().cloned().unwrap_or_default();
        let are = |condition: &str| {
            let kinds = kinds.iter().filter(|kind| kind["condition"] == condition);
            kinds.map(|kind| kind["kind"].clone()).collect::<Vec<_>>()
        };
        source["state"] == "degraded"
            && source["reason"].to_string().contains(advice)
            && are("fine").len() == 4
            && are("failing") == ["Secret"]
    });
    site.api.apply(&rules(", secrets")).unwrap();
    let since = Instant::now();
    eventually("the source is in sync", || {
        state(&site.forebay) == "in-sync"
    });
    println!(
        "in sync {} ms after it was granted: {}",
        since.elapsed().as_millis(),
        source()
    );
    site.forebay.wait_for_ready().unwrap();
    site.ingress("web", "narrow.test", "");
    eventually("changes are seen", || site.pod("narrow.test") == "a");
}

fn state(forebay: &Forebay) -> String {
    let status = forebay.status().unwrap();
    let state = &status["source"]["state"];
    // A name, or an object with one, as the status has it.
    state
        .as_str()
        .or_else(|| state["state"].as_str())
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn credentials_of_a_pod_are_found_without_a_flag() {
    let Some(api) = api() else { return };
    let [host, port] = api.pod_credentials().unwrap();
    let forebay = Launch::new(&["--http", "127.0.0.1:0", "--https", "127.0.0.1:0"])
        .env(host.0, host.1)
        .env(port.0, port.1)
        .env("HOME", "/nonexistent")
        .within(api.namespace())
        .start()
        .unwrap();
    eventually("the source is in sync", || state(&forebay) == "in-sync");
    assert_eq!(forebay.status().unwrap()["source"]["kind"], "cluster");
}

#[test]
fn the_controllers_config_map_is_read_and_followed_under_the_rights_of_deploy() {
    let Some(api) = api() else { return };
    // The one that the Role of `deploy/` names.
    let map = |data: &str| {
        format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: forebay, namespace: forebay-system}}, data: {{{data}}}}}"
        )
    };
    let mut site = Site::with_flags("globals", api, &["--configmap", "forebay-system/forebay"]);
    site.forebay.wait_for_ready().unwrap();
    site.ingress("web", "globals.test", "");
    within_a_second("Ingress created", || site.pod("globals.test") == "a");
    site.api
        .apply(&map("whitelist-source-range: 192.0.2.0/24"))
        .unwrap();
    within_a_second("all rules are denied", || site.pod("globals.test") == "503");
    site.api.apply(&map("unknown: x")).unwrap();
    within_a_second("rules are served again", || site.pod("globals.test") == "a");
    let problems = site.forebay.status().unwrap()["problems"].to_string();
    assert!(
        problems.contains("no such key of ingress-nginx"),
        "{problems}"
    );
    site.api
        .delete("forebay-system", "configmap/forebay")
        .unwrap();
    eventually("the problem is gone", || {
        let problems = site.forebay.status().unwrap()["problems"].to_string();
        !problems.contains("no such key")
    });
}

#[test]
fn deploy_base_is_taken_by_a_real_api_server() {
    let Some(api) = api() else { return };
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/base");
    let applied = api
        .kubectl(
            &["apply", "--server-side", "--force-conflicts", "-k", base],
            "",
        )
        .unwrap();
    for object in [
        "clusterrole.rbac.authorization.k8s.io/forebay",
        "daemonset.apps/forebay",
        "ingressclass",
    ] {
        assert!(applied.contains(object), "{object} is not in: {applied}");
    }
}

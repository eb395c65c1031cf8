//! Golden tables: manifests in, routes, backends, certificates and problems out.

use proptest::prelude::*;

use super::{super::watch::index_of, *};
use ingress_model::{HostPattern, PathKind, Route, RouteAction, TlsRedirect};

fn settings() -> Settings {
    Settings {
        classes: vec!["forebay".into(), "nginx".into()],
        watch_without_class: true,
        allow_loopback_endpoints: false,
    }
}

fn translate(text: &str) -> Snapshot {
    snapshot(&index_of(text), &settings())
}

/// `ingress host path kind → backend`, `(default)` where it is the default backend.
fn line(route: &Route) -> String {
    let origin = if route.origin == ingress_model::Origin::DefaultBackend {
        " (default)"
    } else {
        ""
    };
    let path = &route.path;
    format!(
        "{} {} {} {:?} {}{origin}",
        route.ingress.name,
        route.host,
        path.as_str(),
        path.kind(),
        route.backend
    )
}

fn lines(snapshot: &Snapshot) -> Vec<String> {
    snapshot.routes.iter().map(line).collect()
}

fn problems(snapshot: &Snapshot) -> Vec<String> {
    snapshot
        .problems
        .iter()
        .map(|problem| format!("{:?} {problem}", problem.severity))
        .collect()
}

fn endpoints(snapshot: &Snapshot) -> Vec<String> {
    let list = |backend: &ingress_model::Backend| {
        let pod = |pod: &Option<Box<str>>| {
            pod.as_deref()
                .map(|pod| format!("={pod}"))
                .unwrap_or_default()
        };
        let all: Vec<_> = backend
            .endpoints
            .iter()
            .map(|endpoint| format!("{}{}", endpoint.address, pod(&endpoint.pod)))
            .collect();
        format!("{} [{}]", backend.key, all.join(" "))
    };
    snapshot.backends.values().map(list).collect()
}

/// An Ingress `name` with `spec` as flow YAML, and a Service `s` with port 80.
fn ingress(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n"
    )
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{name: http, port: 80, targetPort: 8080}]}\n---\n";

const TO_S: &str = "backend: {service: {name: s, port: {number: 80}}}";

#[test]
fn fan_out_of_the_first_legacy_file() {
    let snapshot = translate(
        r#"
apiVersion: extensions/v1beta1
kind: Ingress
metadata:
  name: fanout
  annotations:
    nginx.ingress.kubernetes.io/rewrite-target: /
spec:
  rules:
  - host: foo.bar.com
    http:
      paths:
      - path: /foos1
        backend: {serviceName: s1, servicePort: 80}
      - path: /bars2
        backend: {serviceName: s2, servicePort: 80}
  - host: bar.foo.com
    http:
      paths:
      - backend: {serviceName: s2, servicePort: 80}
"#,
    );
    assert_eq!(
        lines(&snapshot),
        [
            "fanout foo.bar.com /foos1 Prefix default/s1:80",
            "fanout foo.bar.com /bars2 Prefix default/s2:80",
            "fanout bar.foo.com / Prefix default/s2:80",
        ]
    );
    assert!(
        snapshot
            .routes
            .iter()
            .all(|route| route.policy.route.rewrite_target.as_deref() == Some("/"))
    );
    assert_eq!(
        endpoints(&snapshot),
        ["default/s1:80 []", "default/s2:80 []"]
    );
    assert_eq!(
        problems(&snapshot),
        [
            "Warning test.yaml:2: Ingress default/fanout: spec.rules[0].http.paths[0].backend.service: \
             Service default/s1 does not exist; requests get 503",
            "Warning test.yaml:2: Ingress default/fanout: spec.rules[0].http.paths[1].backend.service: \
             Service default/s2 does not exist; requests get 503",
        ]
    );
}

#[test]
fn path_types_become_kinds() {
    for (path_type, path, annotation, kind) in [
        ("Exact", "/a", "", PathKind::Exact),
        ("Prefix", "/a", "", PathKind::Prefix),
        ("ImplementationSpecific", "/a", "", PathKind::Prefix),
        (
            "ImplementationSpecific",
            "/a(/|$)(.*)",
            "",
            PathKind::Prefix,
        ),
        (
            "ImplementationSpecific",
            "/a(/|$)(.*)",
            "rewrite-target: /$2",
            PathKind::Regex,
        ),
        (
            "ImplementationSpecific",
            "/a[0-9]",
            "use-regex: 'true'",
            PathKind::Regex,
        ),
        (
            "ImplementationSpecific",
            "/a.b",
            "use-regex: 'true'",
            PathKind::Prefix,
        ),
        ("Exact", "/a", "use-regex: 'true'", PathKind::Exact),
    ] {
        let annotations = match annotation {
            "" => "{}".to_owned(),
            annotation => format!("{{nginx.ingress.kubernetes.io/{annotation}}}"),
        };
        let text = ingress(
            "web",
            &format!("{{rules: [{{http: {{paths: [{{pathType: {path_type}, path: '{path}', {TO_S}}}]}}}}]}}"),
        )
        .replace("{name: web}", &format!("{{name: web, annotations: {annotations}}}"));
        let snapshot = translate(&format!("{text}{SERVICE}"));
        assert_eq!(
            problems(&snapshot),
            [] as [&str; 0],
            "{path_type} {path} {annotation}"
        );
        assert_eq!(
            snapshot.routes[0].path.kind(),
            kind,
            "{path_type} {path} {annotation}"
        );
        assert_eq!(snapshot.routes[0].host, HostPattern::Any);
    }
}

#[test]
fn default_backend_serves_its_own_hosts_and_those_nobody_names() {
    let spec = format!(
        "{{defaultBackend: {{service: {{name: s, port: {{name: http}}}}}}, tls: [{{hosts: [a.test]}}], \
          rules: [{{host: a.test, http: {{paths: [{{path: /x, pathType: Exact, {TO_S}}}]}}}}, {{host: b.test}}]}}"
    );
    let text = ingress("web", &spec).replace(
        "{name: web}",
        "{name: web, annotations: {nginx.ingress.kubernetes.io/rewrite-target: /y, nginx.ingress.kubernetes.io/force-ssl-redirect: 'true'}}",
    );
    let snapshot = translate(&format!("{text}{SERVICE}"));
    assert_eq!(
        lines(&snapshot),
        [
            "web a.test /x Exact default/s:80",
            "web a.test / Prefix default/s:http (default)",
            "web b.test / Prefix default/s:http (default)",
            "web * / Prefix default/s:http (default)",
        ]
    );
    let policy = |at: usize| &snapshot.routes[at].policy.route;
    assert_eq!(policy(0).rewrite_target.as_deref(), Some("/y"));
    assert_eq!(
        policy(1).rewrite_target,
        None,
        "a catch-all does not rewrite"
    );
    assert_eq!(policy(1).tls_redirect, TlsRedirect::Always);
    assert!(
        policy(3).tls_redirect == TlsRedirect::Never,
        "hosts that nobody names are not redirected"
    );
}

#[test]
fn one_bad_rule_harms_no_other() {
    let good = format!("{{path: /good, pathType: Prefix, {TO_S}}}");
    for (bad, problem) in [
        (
            format!("{{host: 'a b', http: {{paths: [{good}]}}}}"),
            "spec.rules[0].host: label \"a b\" is not a DNS label; the rule is not served",
        ),
        (
            format!("{{http: {{paths: [{{path: x, pathType: Prefix, {TO_S}}}]}}}}"),
            "spec.rules[0].http.paths[0].path: path \"x\" does not start with /; the path is not served",
        ),
        (
            format!("{{http: {{paths: [{{path: /x, pathType: Regex, {TO_S}}}]}}}}"),
            "spec.rules[0].http.paths[0].pathType: \"Regex\" is not one of Exact, Prefix, ImplementationSpecific; \
             the path is not served",
        ),
        (
            "{http: {paths: [{path: /x, pathType: Prefix, backend: {resource: {kind: B, name: b}}}]}}".into(),
            "spec.rules[0].http.paths[0].backend.resource: resource backends are not supported; not served",
        ),
        (
            "{http: {paths: [{path: /x, pathType: Prefix, backend: {serviceName: s, servicePort: 80}}]}}".into(),
            "spec.rules[0].http.paths[0].backend: names no service (networking.k8s.io/v1 needs service.name and \
             service.port); not served",
        ),
        (
            "{http: {paths: [{path: /x, pathType: Prefix, backend: {service: {name: s, port: {number: 70000}}}}]}}"
                .into(),
            "spec.rules[0].http.paths[0].backend.service.port.number: is not between 1 and 65535; not served",
        ),
    ] {
        let spec = format!("{{rules: [{bad}, {{host: good.test, http: {{paths: [{good}]}}}}]}}");
        let snapshot = translate(&format!("{}{SERVICE}", ingress("web", &spec)));
        assert_eq!(lines(&snapshot), ["web good.test /good Prefix default/s:80"], "{bad}");
        assert_eq!(problems(&snapshot), [format!("Error test.yaml:1: Ingress default/web: {problem}")]);
    }
}

/// `ingress host: reason` of each route that is denied.
fn denied(snapshot: &Snapshot) -> Vec<String> {
    let denied = |route: &Route| match &route.action {
        RouteAction::Forward => None,
        RouteAction::Deny(reason) => Some(format!("{} {}: {reason}", route.ingress, route.host)),
    };
    snapshot.routes.iter().filter_map(denied).collect()
}

#[test]
fn an_ingress_that_restricts_access_is_denied_and_says_why() {
    let text = ingress(
        "web",
        &format!(
            "{{defaultBackend: {{service: {{name: s, port: {{number: 80}}}}}}, \
              rules: [{{host: a.test, http: {{paths: [{{pathType: Prefix, {TO_S}}}]}}}}]}}"
        ),
    )
    .replace(
        "{name: web}",
        "{name: web, annotations: {nginx.ingress.kubernetes.io/auth-url: 'https://auth.test'}}",
    );
    let other = ingress(
        "other",
        &format!(
            "{{rules: [{{host: a.test, http: {{paths: [{{path: /x, pathType: Prefix, {TO_S}}}]}}}}]}}"
        ),
    );
    let snapshot = translate(&format!("{text}{other}{SERVICE}"));
    let why = "nginx.ingress.kubernetes.io/auth-url: external authentication is not supported";
    assert_eq!(
        denied(&snapshot),
        [
            format!("default/web a.test: {why}"),
            format!("default/web a.test: {why}"),
            format!("default/web *: {why}"),
        ]
    );
    assert_eq!(snapshot.routes.len(), 4);
    assert_eq!(
        problems(&snapshot),
        [
            "Error test.yaml:1: Ingress default/web: metadata.annotations[nginx.ingress.kubernetes.io/auth-url]: \
             external authentication is not supported; requests get 503"
        ]
    );
}

#[test]
fn a_rule_that_cannot_be_written_stays_closed_where_its_ingress_is_denied() {
    let resource = "backend: {resource: {kind: B, name: b}}";
    let long = format!("/x/{}", "y".repeat(5000));
    for (rule, closed) in [
        (
            format!("{{path: /x/y, pathType: Exact, {resource}}}"),
            "/x/y Exact default/b:0",
        ),
        (
            "{path: /x, pathType: Prefix, backend: {}}".into(),
            "/x Prefix default/:0",
        ),
        (
            "{path: /x, pathType: Prefix, backend: {service: {name: s, port: {number: 0}}}}".into(),
            "/x Prefix default/s:0",
        ),
        (
            format!("{{path: /x/y, pathType: Regex, {TO_S}}}"),
            "/x/y Prefix default/s:80",
        ),
        (
            format!("{{path: '/x/y(z', pathType: Regex, {TO_S}}}"),
            "/x/ Prefix default/s:80",
        ),
        (
            format!("{{path: '/x/y z/w', pathType: Prefix, {TO_S}}}"),
            "/x/ Prefix default/s:80",
        ),
        (
            format!("{{path: '/x/y?z', pathType: Exact, {TO_S}}}"),
            "/x/ Prefix default/s:80",
        ),
        (
            format!("{{path: '{long}', pathType: Exact, {TO_S}}}"),
            "/x/ Prefix default/s:80",
        ),
        (
            format!("{{path: x, pathType: Prefix, {TO_S}}}"),
            "/ Prefix default/s:80",
        ),
        (
            format!("{{path: x y, pathType: Prefix, {TO_S}}}"),
            "/ Prefix default/s:80",
        ),
    ] {
        let spec = format!("{{rules: [{{host: a.test, http: {{paths: [{rule}]}}}}]}}");
        let plain = ingress("web", &spec);
        let restricted = plain.replace(
            "{name: web}",
            "{name: web, annotations: {nginx.ingress.kubernetes.io/auth-type: basic}}",
        );
        let open = translate(&format!("{plain}{SERVICE}"));
        assert_eq!(lines(&open), [] as [&str; 0], "{rule}");
        let snapshot = translate(&format!("{restricted}{SERVICE}"));
        assert_eq!(lines(&snapshot), [format!("web a.test {closed}")], "{rule}");
        assert_eq!(denied(&snapshot).len(), 1, "{rule}");
        assert_eq!(
            snapshot.problems.len(),
            1 + open.problems.len(),
            "{:?}",
            problems(&snapshot)
        );
        assert!(
            snapshot.backends.contains_key(&snapshot.routes[0].backend),
            "{rule}"
        );
    }
}

#[test]
fn a_canary_takes_no_request_past_the_access_control_of_its_main_ingress() {
    let spec =
        format!("{{rules: [{{host: a.test, http: {{paths: [{{pathType: Prefix, {TO_S}}}]}}}}]}}");
    let annotated = |name: &str, annotations: &str| {
        let metadata = format!("{{name: {name}, annotations: {{{annotations}}}}}");
        ingress(name, &spec).replace(&format!("{{name: {name}}}"), &metadata)
    };
    let auth = "nginx.ingress.kubernetes.io/auth-url: 'https://auth.test'";
    for (canary, annotations, served) in [
        ("'true'", "", false),
        ("'True'", auth, false),
        ("'false'", "", true),
        // What is no boolean is the default, as in ingress-nginx.
        ("'yes'", "", true),
    ] {
        // Of one second; the greater name is older.
        let canary_text = annotated(
            "web-canary",
            &format!(
                "nginx.ingress.kubernetes.io/canary: {canary}, nginx.ingress.kubernetes.io/canary-weight: '10', {annotations}"
            ),
        );
        let main = annotated("web", auth);
        let snapshot = translate(&format!("{main}{canary_text}{SERVICE}"));
        let names: Vec<_> = snapshot
            .routes
            .iter()
            .map(|route| &*route.ingress.name)
            .collect();
        let expected: &[&str] = if served {
            &["web-canary", "web"]
        } else {
            &["web"]
        };
        assert_eq!(names, expected, "{canary} {annotations}");
        let said = problems(&snapshot).iter().any(|problem| {
            problem.contains("Error")
                && problem.contains("Ingress default/web-canary: metadata.annotations[nginx.ingress.kubernetes.io/canary]")
        });
        assert_eq!(said, !served, "{canary}: {:?}", problems(&snapshot));
    }
}

#[test]
fn client_certificates_deny_the_whole_host_but_not_an_older_ingress_of_another_namespace() {
    let dated = |namespace: &str, name: &str, year: u32, annotation: &str| {
        ingress(
            name,
            &format!("{{rules: [{{host: a.test, http: {{paths: [{{path: /{name}, pathType: Prefix, {TO_S}}}]}}}}]}}"),
        )
        .replace(
            &format!("{{name: {name}}}"),
            &format!(
                "{{name: {name}, namespace: {namespace}, creationTimestamp: '{year}-01-01T00:00:00Z', annotations: {{{annotation}}}}}"
            ),
        )
    };
    let asks = "nginx.ingress.kubernetes.io/auth-tls-secret: shop/ca";
    let text = [
        dated("shop", "asks", 2024, asks),
        dated("shop", "sister", 2020, ""),
        dated("blog", "older", 2023, ""),
        dated("blog", "younger", 2025, ""),
    ];
    let snapshot = translate(&text.concat());
    let mut denied: Vec<_> = denied(&snapshot)
        .iter()
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    denied.sort();
    assert_eq!(denied, ["blog/younger", "shop/asks", "shop/sister"]);
    let problems = problems(&snapshot).join("\n");
    for said in [
        "Ingress shop/sister: spec.rules: Ingress shop/asks denies the whole host a.test; requests get 503",
        "Ingress shop/asks: metadata.annotations: host a.test is served without it by Ingress blog/older",
    ] {
        assert!(problems.contains(said), "{said}: {problems}");
    }
}

#[test]
fn class_decides_whose_an_ingress_is() {
    let classes = "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: edge}\nspec: {controller: forebay.dev/ingress}\n---\n\
                   apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: old}\nspec: {controller: k8s.io/ingress-nginx}\n---\n\
                   apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: other}\nspec: {controller: example.com/other}\n---\n\
                   apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: forebay}\nspec: {controller: example.com/other}\n---\n";
    for (field, annotation, without, serves) in [
        ("", "", true, true),
        ("", "", false, false),
        ("edge", "", false, true),
        ("old", "", false, true),
        ("other", "", true, false),
        ("nginx", "", false, true),
        ("absent", "", true, false),
        // A class by our name that another controller has is the other's.
        ("forebay", "", true, false),
        ("", "nginx", false, true),
        ("", "other", true, false),
        // The annotation names a class by name only, never by its controller.
        ("", "edge", true, false),
        // The field goes first.
        ("other", "nginx", true, false),
        ("edge", "other", false, true),
    ] {
        let field_text = if field.is_empty() {
            String::new()
        } else {
            format!("ingressClassName: {field}, ")
        };
        let spec =
            format!("{{{field_text}rules: [{{http: {{paths: [{{pathType: Prefix, {TO_S}}}]}}}}]}}");
        let mut text = ingress("web", &spec);
        if !annotation.is_empty() {
            let metadata = format!(
                "{{name: web, annotations: {{kubernetes.io/ingress.class: {annotation}}}}}"
            );
            text = text.replace("{name: web}", &metadata);
        }
        let settings = Settings {
            watch_without_class: without,
            ..settings()
        };
        let snapshot = snapshot(&index_of(&format!("{text}{classes}{SERVICE}")), &settings);
        let case = format!("field {field:?}, annotation {annotation:?}, without class {without}");
        assert_eq!(!snapshot.routes.is_empty(), serves, "{case}");
        assert_eq!(snapshot.skipped.is_empty(), serves, "{case}");
    }
}

fn slice(name: &str, family: &str, endpoints: &str, ports: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: {{kubernetes.io/service-name: s}}}}\n\
         addressType: {family}\nendpoints: {endpoints}\nports: {ports}\n---\n"
    )
}

const HTTP: &str = "[{name: http, port: 8080}]";

fn rule() -> String {
    ingress(
        "web",
        &format!("{{rules: [{{http: {{paths: [{{pathType: Prefix, {TO_S}}}]}}}}]}}"),
    )
}

#[test]
fn endpoints_are_the_ready_ones_or_else_those_still_serving() {
    let ready = "{addresses: [192.0.2.1], conditions: {ready: true}}";
    let unset = "{addresses: [192.0.2.2]}";
    let unready = "{addresses: [192.0.2.3], conditions: {ready: false}}";
    let draining =
        "{addresses: [192.0.2.4], conditions: {ready: false, serving: true, terminating: true}}";
    let dead =
        "{addresses: [192.0.2.5], conditions: {ready: false, serving: false, terminating: true}}";
    let unready_wanted =
        "{addresses: [192.0.2.6], conditions: {ready: true, serving: false, terminating: true}}";
    for (list, expected) in [
        (
            vec![ready, unset, unready, draining, dead],
            "192.0.2.1:8080 192.0.2.2:8080",
        ),
        (vec![unready, draining, dead], "192.0.2.4:8080"),
        (vec![unready, dead], ""),
        (vec![unready_wanted, draining], "192.0.2.6:8080"),
        (vec![], ""),
    ] {
        let text = format!(
            "{}{SERVICE}{}",
            rule(),
            slice("a", "IPv4", &format!("[{}]", list.join(", ")), HTTP)
        );
        let snapshot = translate(&text);
        assert_eq!(
            endpoints(&snapshot),
            [format!("default/s:80 [{expected}]")],
            "{list:?}"
        );
        assert_eq!(problems(&snapshot), [] as [&str; 0]);
    }
}

#[test]
fn slices_of_both_families_are_merged_sorted_and_free_of_duplicates() {
    let text = format!(
        "{}{SERVICE}{}{}{}",
        rule(),
        slice(
            "a",
            "IPv4",
            "[{addresses: [192.0.2.9]}, {addresses: [192.0.2.1], targetRef: {kind: Pod, name: p1}}]",
            HTTP
        ),
        slice("b", "IPv6", "[{addresses: ['2001:db8::1']}]", HTTP),
        slice("c", "IPv4", "[{addresses: [192.0.2.1]}]", HTTP),
    );
    assert_eq!(
        endpoints(&translate(&text)),
        ["default/s:80 [192.0.2.1:8080=p1 192.0.2.9:8080 [2001:db8::1]:8080]"]
    );
}

#[test]
fn ports_are_found_as_the_service_declares_them() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [\
                   {name: http, port: 80, targetPort: 8080}, {name: admin, port: 81, targetPort: adm}, \
                   {name: dns, port: 53, protocol: UDP}]}\n---\n";
    let ports = "[{name: http, port: 8080}, {name: admin, port: 9090}, {name: dns, port: 53, protocol: UDP}]";
    let slices = slice("a", "IPv4", "[{addresses: [192.0.2.1]}]", ports);
    for (port, expected) in [
        ("number: 80", Some("192.0.2.1:8080")),
        ("name: http", Some("192.0.2.1:8080")),
        ("number: 81", Some("192.0.2.1:9090")),
        // Ingress-nginx takes a target port too.
        ("number: 8080", Some("192.0.2.1:8080")),
        ("name: adm", Some("192.0.2.1:9090")),
        ("number: 53", None),
        ("number: 82", None),
        ("name: absent", None),
    ] {
        let spec = format!("{{defaultBackend: {{service: {{name: s, port: {{{port}}}}}}}}}");
        let snapshot = translate(&format!("{}{service}{slices}", ingress("web", &spec)));
        let backend = snapshot.backends.values().next().unwrap();
        let found = backend
            .endpoints
            .first()
            .map(|endpoint| endpoint.address.to_string());
        assert_eq!(found.as_deref(), expected, "{port}");
        assert_eq!(snapshot.problems.is_empty(), expected.is_some(), "{port}");
    }
}

#[test]
fn a_service_without_a_port_name_and_a_headless_one_without_ports_have_endpoints() {
    for (service, port, ports, expected) in [
        (
            "{ports: [{port: 80}]}",
            80,
            "[{port: 8080}]",
            "192.0.2.1:8080",
        ),
        (
            "{ports: [{port: 80}]}",
            80,
            "[{name: '', port: 8080}]",
            "192.0.2.1:8080",
        ),
        ("{clusterIP: None}", 7000, "[]", "192.0.2.1:7000"),
    ] {
        let spec =
            format!("{{defaultBackend: {{service: {{name: s, port: {{number: {port}}}}}}}}}");
        let service =
            format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {service}\n---\n");
        let slices = slice("a", "IPv4", "[{addresses: [192.0.2.1]}]", ports);
        let snapshot = translate(&format!("{}{service}{slices}", ingress("web", &spec)));
        assert_eq!(
            endpoints(&snapshot),
            [format!("default/s:{port} [{expected}]")]
        );
    }
}

#[test]
fn addresses_that_only_this_machine_reaches_are_refused_unless_allowed() {
    let list = "[{addresses: [127.0.0.1]}, {addresses: [169.254.169.254]}, {addresses: [0.0.0.0]}, \
                 {addresses: [nonsense]}, {addresses: [192.0.2.1]}]";
    let v6 = "[{addresses: ['::1']}, {addresses: ['::ffff:127.0.0.2']}, {addresses: ['fe80::1']}, {addresses: ['ff02::1']}]";
    let text = format!(
        "{}{SERVICE}{}{}",
        rule(),
        slice("a", "IPv4", list, HTTP),
        slice("b", "IPv6", v6, HTTP)
    );
    let strict = translate(&text);
    assert_eq!(endpoints(&strict), ["default/s:80 [192.0.2.1:8080]"]);
    assert_eq!(strict.problems.len(), 8, "{:?}", problems(&strict));
    let loose = snapshot(
        &index_of(&text),
        &Settings {
            allow_loopback_endpoints: true,
            ..settings()
        },
    );
    assert_eq!(
        endpoints(&loose),
        [
            "default/s:80 [127.0.0.1:8080 127.0.0.2:8080 169.254.169.254:8080 192.0.2.1:8080 [::1]:8080 [fe80::1]:8080]"
        ]
    );
    assert_eq!(loose.problems.len(), 3, "{:?}", problems(&loose));
}

#[test]
fn external_names_are_refused() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {type: ExternalName, externalName: a.test, ports: [{port: 80}]}\n";
    let snapshot = translate(&format!("{}{service}", rule()));
    assert_eq!(snapshot.backends.len(), 1);
    assert_eq!(
        problems(&snapshot),
        [
            "Warning test.yaml:1: Ingress default/web: spec.rules[0].http.paths[0].backend.service: Service default/s is \
          an ExternalName, which is not supported; requests get 503"
        ]
    );
}

fn secret(name: &str, namespace: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         stringData: {{tls.crt: chain of {name}, tls.key: key}}\n---\n"
    )
}

fn dated(name: &str, year: u32, tls: &str) -> String {
    ingress(
        name,
        &format!("{{tls: {tls}, rules: [{{host: rule.test, http: {{paths: [{{pathType: Prefix, {TO_S}}}]}}}}]}}"),
    )
    .replace(&format!("{{name: {name}}}"), &format!("{{name: {name}, creationTimestamp: '{year}-01-01T00:00:00Z'}}"))
}

/// `secret: hosts` of each certificate.
fn certificates(snapshot: &Snapshot) -> Vec<String> {
    let hosts = |hosts: &[HostPattern]| {
        hosts
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    snapshot
        .certificates
        .iter()
        .map(|found| format!("{}: {}", found.secret, hosts(&found.hosts)))
        .collect()
}

fn tls_hosts(snapshot: &Snapshot) -> String {
    snapshot
        .tls_hosts
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn the_oldest_ingress_wins_a_host_and_secrets_are_listed_once() {
    let text = format!(
        "{}{}{}{}{}{SERVICE}",
        dated(
            "young",
            2026,
            "[{hosts: [a.test, c.test], secretName: one}]"
        ),
        dated("old", 2020, "[{hosts: [b.test], secretName: one}]"),
        dated(
            "middle",
            2023,
            "[{hosts: [A.test, '*.test'], secretName: two}]"
        ),
        secret("one", "default"),
        secret("two", "default"),
    );
    let snapshot = translate(&text);
    assert_eq!(
        certificates(&snapshot),
        ["default/one: b.test c.test", "default/two: a.test *.test"]
    );
    assert_eq!(tls_hosts(&snapshot), "a.test b.test c.test *.test");
    let debug = format!("{:?}", snapshot.certificates);
    assert!(debug.contains("[redacted]"), "{debug}");
}

#[test]
fn secrets_that_cannot_be_used_are_named_and_their_hosts_still_have_tls() {
    for (name, secret, why) in [
        (
            "absent",
            String::new(),
            "Secret default/absent of type kubernetes.io/tls does not exist",
        ),
        // Never another namespace's.
        (
            "foreign",
            secret("foreign", "elsewhere"),
            "Secret default/foreign of type kubernetes.io/tls does not exist",
        ),
        (
            "opaque",
            secret("opaque", "default").replace("kubernetes.io/tls", "Opaque"),
            "Secret default/opaque is of type Opaque, not kubernetes.io/tls",
        ),
        (
            "empty",
            secret("empty", "default").replace("tls.key: key", "tls.key: ''"),
            "Secret default/empty has no tls.key",
        ),
    ] {
        let text = format!(
            "{}{secret}{SERVICE}",
            dated(
                "web",
                2026,
                &format!("[{{hosts: [a.test], secretName: {name}}}]")
            )
        );
        let snapshot = translate(&text);
        assert_eq!(certificates(&snapshot), [] as [&str; 0], "{name}");
        assert_eq!(tls_hosts(&snapshot), "a.test");
        let expected = format!(
            "Warning test.yaml:1: Ingress default/web: spec.tls[0].secretName: {why}; the default certificate is used"
        );
        assert_eq!(problems(&snapshot), [expected]);
    }
}

#[test]
fn an_unusable_secret_does_not_keep_a_host_from_a_younger_ingress() {
    let text = format!(
        "{}{}{}{SERVICE}",
        dated("old", 2020, "[{hosts: [a.test], secretName: absent}]"),
        dated("young", 2026, "[{hosts: [a.test], secretName: one}]"),
        secret("one", "default"),
    );
    assert_eq!(certificates(&translate(&text)), ["default/one: a.test"]);
}

#[test]
fn tls_without_hosts_is_for_the_hosts_of_the_rules() {
    let text = format!(
        "{}{}{SERVICE}",
        dated("web", 2026, "[{secretName: one}]"),
        secret("one", "default")
    );
    let snapshot = translate(&text);
    assert_eq!(certificates(&snapshot), ["default/one: rule.test"]);
    assert_eq!(tls_hosts(&snapshot), "rule.test");
    let named = translate(&format!(
        "{}{SERVICE}",
        dated("web", 2026, "[{hosts: [a.test]}]")
    ));
    assert_eq!(
        tls_hosts(&named),
        "a.test",
        "a rule's host that no entry names is not covered"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever one Ingress says in any field, what the others ask for stays the same, and nothing
    /// panics.
    #[test]
    fn one_bad_ingress_harms_no_other(
        host in ".{0,20}", path in ".{0,20}", path_type in ".{0,8}", service in ".{0,8}", port in any::<i32>(),
        key in "(nginx\\.ingress\\.kubernetes\\.io|forebay\\.dev)/(rewrite-target|use-regex|proxy-body-size|.{0,8})",
        value in ".{0,20}", secret in ".{0,8}",
    ) {
        let good = format!(
            "{}{SERVICE}{}{}",
            dated("good", 2026, "[{hosts: [good.test], secretName: one}]"),
            slice("a", "IPv4", "[{addresses: [192.0.2.1]}]", HTTP),
            super::tests::secret("one", "default"),
        );
        let bad = serde_json::json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "bad", "creationTimestamp": "2027-01-01T00:00:00Z", "annotations": {key: value}},
            "spec": {
                "tls": [{"hosts": [host], "secretName": secret}],
                "rules": [{"host": host, "http": {"paths": [
                    {"path": path, "pathType": path_type, "backend": {"service": {"name": service, "port": {"number": port}}}},
                ]}}],
            },
        });
        let alone = translate(&good);
        let both = translate(&format!("{good}{bad}\n"));
        let others = |snapshot: &Snapshot| -> Vec<Route> {
            snapshot.routes.iter().filter(|route| route.ingress.name == "good").cloned().collect()
        };
        prop_assert_eq!(others(&alone), others(&both));
        for (key, backend) in &alone.backends {
            prop_assert_eq!(Some(backend), both.backends.get(key));
        }
        prop_assert_eq!(&alone.certificates[0].chain_pem, &both.certificates[0].chain_pem);
        prop_assert!(both.certificates[0].hosts.contains(&"good.test".parse().unwrap()));
        for route in &both.routes {
            prop_assert!(both.backends.contains_key(&route.backend));
        }
    }
}

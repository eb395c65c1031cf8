//! Golden tables: manifests in, rules, endpoints, certificates and problems out.

use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Secret},
        networking::v1::{Ingress, IngressClass},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use proptest::prelude::*;

use super::{
    super::{
        index::{Addresses, Event},
        kept::{Change, Unread},
        kind::Kind,
        outline::Outline,
        shelf,
        watch::index_of,
    },
    *,
};
use ingress_model::{Action, PathKind, Rule, TlsRedirect, wire};

fn settings() -> Settings {
    Settings {
        classes: vec!["forebay".into(), "nginx".into()],
        controllers: vec!["forebay.dev/ingress".into(), "k8s.io/ingress-nginx".into()],
        annotations_prefix: "nginx.ingress.kubernetes.io".to_owned(),
        configmap: None,
        default_certificate: None,
        watch_without_class: true,
        allow_loopback_endpoints: false,
        listeners: Vec::new(),
    }
}

/// What manifests come to.
struct View {
    state: State,
    update: Update,
    problems: Vec<Problem>,
}

/// What is known after `text` was read, and that all of it is new.
fn read(text: &str) -> (Index, BTreeSet<Key>) {
    let mut index = Index::default();
    let keys = index.apply(Event::Whole(Box::new(index_of(text))));
    (index, keys)
}

fn translate(text: &str) -> View {
    translate_with(text, settings())
}

fn translate_with(text: &str, settings: Settings) -> View {
    let (index, keys) = read(text);
    let mut state = State::new(settings);
    let update = state.apply(&index, keys);
    let whole = state.whole();
    assert_eq!(sorted(&update), sorted(&whole));
    let problems = state.book().lock().unwrap().all();
    View {
        state,
        update,
        problems,
    }
}

/// The same in the order of its keys.
fn sorted(update: &Update) -> Update {
    let mut update = update.clone();
    update.endpoints.sort();
    update.certificates.sort_by(|(a, _), (b, _)| a.cmp(b));
    update.hosts.sort_by(|(a, _), (b, _)| a.cmp(b));
    update
}

impl View {
    fn hosts(&self) -> impl Iterator<Item = (&HostPattern, &HostRules)> {
        let hosts = self.update.hosts.iter();
        hosts.map(|(host, rules)| (host, &**rules.as_ref().unwrap()))
    }

    /// Every rule, and whether it is a default backend.
    fn rules(&self) -> Vec<(&HostPattern, &Rule, bool)> {
        let mut all = Vec::new();
        for (host, of) in self.hosts() {
            all.extend(of.rules.iter().map(|rule| (host, rule, false)));
            all.extend(of.fallbacks.iter().map(|rule| (host, rule, true)));
        }
        all
    }
}

/// `ingress host path kind backend`, `(default)` where it is a default backend.
fn line((host, rule, is_default): (&HostPattern, &Rule, bool)) -> String {
    let to = match &rule.action {
        Action::Forward(split) => split.targets()[0].upstream.backend.to_string(),
        Action::Deny(_) => "denied".to_owned(),
        other => format!("{other:?}"),
    };
    format!(
        "{} {host} {} {:?} {to}{}",
        rule.source.name.name,
        rule.path.as_str(),
        rule.path.kind(),
        if is_default { " (default)" } else { "" }
    )
}

fn lines(view: &View) -> Vec<String> {
    let mut lines: Vec<_> = view.rules().into_iter().map(line).collect();
    lines.sort();
    lines
}

fn problems(view: &View) -> Vec<String> {
    let line = |problem: &Problem| format!("{:?} {problem}", problem.severity);
    view.problems.iter().map(line).collect()
}

fn endpoints(view: &View) -> Vec<String> {
    let list = |(key, endpoints): (&BackendKey, &Arc<[ingress_model::Endpoint]>)| {
        let pod = |pod: &Option<Box<str>>| {
            let pod = pod.as_deref();
            pod.map(|pod| format!("={pod}")).unwrap_or_default()
        };
        let all: Vec<_> = endpoints
            .iter()
            .map(|endpoint| format!("{}{}", endpoint.address, pod(&endpoint.pod)))
            .collect();
        format!("{key} [{}]", all.join(" "))
    };
    let endpoints = view.update.endpoints.iter();
    let mut all: Vec<_> = endpoints
        .map(|(key, endpoints)| list((key, endpoints.as_ref().unwrap())))
        .collect();
    all.sort();
    all
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
    let view = translate(
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
        lines(&view),
        [
            "fanout bar.foo.com / Prefix default/s2:80",
            "fanout foo.bar.com /bars2 Prefix default/s2:80",
            "fanout foo.bar.com /foos1 Prefix default/s1:80",
        ]
    );
    for (_, rule, _) in view.rules() {
        assert_eq!(rule.policy.rewrite_target.as_deref(), Some("/"));
    }
    assert_eq!(endpoints(&view), ["default/s1:80 []", "default/s2:80 []"]);
    assert_eq!(
        problems(&view),
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
        let view = translate(&format!("{text}{SERVICE}"));
        assert_eq!(
            problems(&view),
            [] as [&str; 0],
            "{path_type} {path} {annotation}"
        );
        assert_eq!(
            view.rules()[0].1.path.kind(),
            kind,
            "{path_type} {path} {annotation}"
        );
        assert_eq!(view.rules()[0].0, &HostPattern::Any);
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
    let view = translate(&format!("{text}{SERVICE}"));
    assert_eq!(
        lines(&view),
        [
            "web * / Prefix default/s:http (default)",
            "web a.test / Prefix default/s:http (default)",
            "web a.test /x Exact default/s:80",
            "web b.test / Prefix default/s:http (default)",
        ]
    );
    for (host, is_default, target, redirect) in [
        ("a.test", false, Some("/y"), TlsRedirect::Always),
        // A catch-all does not rewrite.
        ("a.test", true, None, TlsRedirect::Always),
        // Hosts that nobody names are not redirected.
        ("", true, None, TlsRedirect::Never),
    ] {
        let host: HostPattern = host.parse().unwrap();
        let rules = view.rules();
        let mut rules = rules.iter();
        let found = rules.find(|(of, _, default)| **of == host && *default == is_default);
        let policy = &found.unwrap().1.policy;
        let said = (policy.rewrite_target.as_deref(), policy.tls_redirect);
        assert_eq!(said, (target, redirect), "{host} {is_default}");
    }
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
        let view = translate(&format!("{}{SERVICE}", ingress("web", &spec)));
        assert_eq!(lines(&view), ["web good.test /good Prefix default/s:80"], "{bad}");
        assert_eq!(problems(&view), [format!("Error test.yaml:1: Ingress default/web: {problem}")]);
    }
}

/// `ingress host: reason` of each rule that is denied.
fn denied(view: &View) -> Vec<String> {
    let denied = |(host, rule, _): (&HostPattern, &Rule, bool)| match &rule.action {
        Action::Deny(reason) => Some(format!("{} {host}: {reason}", rule.source.name)),
        _ => None,
    };
    let mut denied: Vec<_> = view.rules().into_iter().filter_map(denied).collect();
    denied.sort();
    denied
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
    let view = translate(&format!("{text}{other}{SERVICE}"));
    let why = "nginx.ingress.kubernetes.io/auth-url: external authentication is not supported";
    assert_eq!(
        denied(&view),
        [
            format!("default/web *: {why}"),
            format!("default/web a.test: {why}"),
            format!("default/web a.test: {why}"),
        ]
    );
    assert_eq!(view.rules().len(), 4);
    assert_eq!(
        problems(&view),
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
            "/x/y Exact denied",
        ),
        (
            "{path: /x, pathType: Prefix, backend: {}}".into(),
            "/x Prefix denied",
        ),
        (
            "{path: /x, pathType: Prefix, backend: {service: {name: s, port: {number: 0}}}}".into(),
            "/x Prefix denied",
        ),
        (
            format!("{{path: /x/y, pathType: Regex, {TO_S}}}"),
            "/x/y Prefix denied",
        ),
        (
            format!("{{path: '/x/y(z', pathType: Regex, {TO_S}}}"),
            "/x/ Prefix denied",
        ),
        (
            format!("{{path: '/x/y z/w', pathType: Prefix, {TO_S}}}"),
            "/x/ Prefix denied",
        ),
        (
            format!("{{path: '/x/y?z', pathType: Exact, {TO_S}}}"),
            "/x/ Prefix denied",
        ),
        (
            format!("{{path: '{long}', pathType: Exact, {TO_S}}}"),
            "/x/ Prefix denied",
        ),
        (
            format!("{{path: x, pathType: Prefix, {TO_S}}}"),
            "/ Prefix denied",
        ),
        (
            format!("{{path: x y, pathType: Prefix, {TO_S}}}"),
            "/ Prefix denied",
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
        let view = translate(&format!("{restricted}{SERVICE}"));
        assert_eq!(lines(&view), [format!("web a.test {closed}")], "{rule}");
        assert_eq!(denied(&view).len(), 1, "{rule}");
        assert_eq!(
            view.problems.len(),
            1 + open.problems.len(),
            "{:?}",
            problems(&view)
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
        let view = translate(&format!("{main}{canary_text}{SERVICE}"));
        let rules = view.rules();
        let names: Vec<_> = rules
            .iter()
            .map(|(_, rule, _)| &*rule.source.name.name)
            .collect();
        // Of two that claim one path the older has it.
        let expected: &[&str] = if served { &["web-canary"] } else { &["web"] };
        assert_eq!(names, expected, "{canary} {annotations}");
        let said = problems(&view).iter().any(|problem| {
            problem.contains("Error")
                && problem.contains("Ingress default/web-canary: metadata.annotations[nginx.ingress.kubernetes.io/canary]")
        });
        assert_eq!(said, !served, "{canary}: {:?}", problems(&view));
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
    let view = translate(&text.concat());
    let mut denied: Vec<_> = denied(&view)
        .iter()
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    denied.sort();
    assert_eq!(denied, ["blog/younger", "shop/asks", "shop/sister"]);
    let problems = problems(&view).join("\n");
    for said in [
        "Ingress shop/sister: spec.rules: Ingress shop/asks denies the whole host a.test; requests get 503",
        "Ingress shop/asks: metadata.annotations: host a.test is served without it by Ingress blog/older",
    ] {
        assert!(problems.contains(said), "{said}: {problems}");
    }
}

#[test]
fn another_namespace_closes_nothing_that_the_owner_of_a_host_adds_to_it_later() {
    let annotated = |name: &str, namespace: &str, year: u32, annotation: &str| {
        dated(name, year, &["a.test"], "[]").replace(
            &format!("{{name: {name}, "),
            &format!("{{name: {name}, namespace: {namespace}, annotations: {{{annotation}}}, "),
        )
    };
    let asks = "nginx.ingress.kubernetes.io/auth-tls-secret: asks/ca";
    let objects = [
        annotated("web", "shop", 2020, ""),
        annotated("asks", "asks", 2024, asks),
        // Made anew for each certificate.
        annotated("challenge", "shop", 2026, ""),
        annotated("late", "third", 2026, ""),
    ];
    let view = translate(&objects.concat());
    let mut denied: Vec<_> = denied(&view)
        .iter()
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    denied.sort();
    assert_eq!(denied, ["asks/asks", "third/late"]);
    // The owner's own wish holds for all that is younger, and for all of its own.
    let objects = [
        annotated("web", "shop", 2020, ""),
        annotated("guest", "guest", 2023, ""),
        annotated("asks", "shop", 2024, asks),
        annotated("late", "third", 2026, ""),
    ];
    let view = translate(&objects.concat());
    let open: Vec<_> = view
        .rules()
        .iter()
        .filter(|(_, rule, _)| !matches!(rule.action, Action::Deny(_)))
        .map(|(_, rule, _)| rule.source.name.to_string())
        .collect();
    assert_eq!(open, ["guest/guest"]);
}

#[test]
fn a_default_backend_with_client_certificates_denies_no_other_ingress_without_a_host() {
    let asks = "nginx.ingress.kubernetes.io/auth-tls-secret: shop/ca";
    let restricted = ingress(
        "restricted",
        "{defaultBackend: {service: {name: s, port: {number: 80}}}}",
    )
    .replace(
        "{name: restricted}",
        &format!(
            "{{name: restricted, creationTimestamp: '2020-01-01T00:00:00Z', annotations: {{{asks}}}}}"
        ),
    );
    let other = dated("other", 2025, &[""], "[]")
        .replace("{name: other, ", "{name: other, namespace: blog, ");
    let view = translate(&format!("{restricted}{other}"));
    let denied = denied(&view);
    assert_eq!(denied.len(), 1, "{denied:?}");
    assert!(denied[0].starts_with("default/restricted *"), "{denied:?}");
}

#[test]
fn whoever_cannot_have_a_host_protected_is_told_once_however_many_serve_it() {
    let many = |namespace: &str, year: u32, annotation: &str| -> String {
        let one = |number| {
            let name = format!("{namespace}-{number}");
            dated(&name, year, &["a.test"], "[]").replace(
                &format!("{{name: {name}, "),
                &format!("{{name: {name}, namespace: {namespace}, annotations: {{{annotation}}}, "),
            )
        };
        (0..20).map(one).collect()
    };
    let asks = "nginx.ingress.kubernetes.io/auth-tls-secret: asks/ca";
    let text = many("blog", 2020, "") + &many("asks", 2024, asks);
    let problems = problems(&translate(&text));
    let said = |problem: &&String| {
        problem.contains(
            "served without it by Ingress blog/blog-9 and 19 more of another namespace, which had the host first",
        )
    };
    assert_eq!(problems.iter().filter(said).count(), 20, "{problems:#?}");
    // Two more for each that asks and adds a path that is denied, and one for each whose Service is missing.
    assert_eq!(problems.len(), 20 + 40 + 40, "{problems:#?}");
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
        let view = translate_with(&format!("{text}{classes}{SERVICE}"), settings);
        let case = format!("field {field:?}, annotation {annotation:?}, without class {without}");
        assert_eq!(!view.rules().is_empty(), serves, "{case}");
        assert_eq!(view.state.foreign() == 0, serves, "{case}");
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
    // Not what the controller of Pods writes, and kube-proxy sends it nothing.
    let only_serving = "{addresses: [192.0.2.7], conditions: {ready: false, serving: true}}";
    // Unset, `serving` means yes.
    let terminating = "{addresses: [192.0.2.8], conditions: {ready: false, terminating: true}}";
    let nulls =
        "{addresses: [192.0.2.9], conditions: {ready: null, serving: null, terminating: null}}";
    for (list, expected) in [
        (vec![only_serving, draining], "192.0.2.4:8080"),
        (vec![only_serving], ""),
        (vec![unready, dead, terminating], "192.0.2.8:8080"),
        (vec![nulls, terminating], "192.0.2.9:8080"),
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
        let view = translate(&text);
        assert_eq!(
            endpoints(&view),
            [format!("default/s:80 [{expected}]")],
            "{list:?}"
        );
        assert_eq!(problems(&view), [] as [&str; 0]);
    }
}

#[test]
fn endpoints_are_of_one_family_sorted_and_free_of_duplicates() {
    let v4 =
        "[{addresses: [192.0.2.9]}, {addresses: [192.0.2.1], targetRef: {kind: Pod, name: p1}}]";
    let v6 = "[{addresses: ['2001:db8::1']}]";
    for (families, v4, v6, expected) in [
        ("", v4, v6, "192.0.2.1:8080=p1 192.0.2.9:8080"),
        (
            "ipFamilies: [IPv4, IPv6],",
            v4,
            v6,
            "192.0.2.1:8080=p1 192.0.2.9:8080",
        ),
        ("ipFamilies: [IPv6, IPv4],", v4, v6, "[2001:db8::1]:8080"),
        (
            "ipFamilies: [IPv6, IPv4],",
            v4,
            "[]",
            "192.0.2.1:8080=p1 192.0.2.9:8080",
        ),
        ("ipFamilies: [IPv4],", "[]", v6, "[2001:db8::1]:8080"),
    ] {
        let service = SERVICE.replace("spec: {", &format!("spec: {{{families} "));
        let text = format!(
            "{}{service}{}{}{}",
            rule(),
            slice("a", "IPv4", v4, HTTP),
            slice("b", "IPv6", v6, HTTP),
            slice("c", "IPv4", &v4.replace("192.0.2.9", "192.0.2.1"), HTTP),
        );
        let expected = format!("default/s:80 [{expected}]");
        assert_eq!(
            endpoints(&translate(&text)),
            [expected],
            "{families} {v4} {v6}"
        );
    }
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
        let view = translate(&format!("{}{service}{slices}", ingress("web", &spec)));
        let endpoints = view.update.endpoints[0].1.as_ref().unwrap();
        let found = endpoints
            .first()
            .map(|endpoint| endpoint.address.to_string());
        assert_eq!(found.as_deref(), expected, "{port}");
        assert_eq!(view.problems.is_empty(), expected.is_some(), "{port}");
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
        let view = translate(&format!("{}{service}{slices}", ingress("web", &spec)));
        assert_eq!(endpoints(&view), [format!("default/s:{port} [{expected}]")]);
    }
}

#[test]
fn an_ingress_that_names_thousands_of_ports_of_one_service_does_not_multiply_its_endpoints() {
    let headless =
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: None}\n---\n";
    let addresses: Vec<_> = (0..1000)
        .map(|at| format!("{{addresses: [198.18.{}.{}]}}", at / 250, at % 250))
        .collect();
    let slices = slice("a", "IPv4", &format!("[{}]", addresses.join(", ")), "[]");
    let naming = |name: &str, ports: std::ops::Range<u16>| {
        let path = |port| {
            format!(
                "{{path: /{port}, pathType: Prefix, backend: {{service: {{name: s, port: {{number: {port}}}}}}}}}"
            )
        };
        let paths: Vec<_> = ports.map(path).collect();
        ingress(
            name,
            &format!("{{rules: [{{http: {{paths: [{}]}}}}]}}", paths.join(", ")),
        )
    };
    let (few, many) = (naming("few", 1..101), naming("many", 101..1001));
    let mut index = Index::default();
    let mut state = State::new(settings());
    for (ingresses, refused) in [
        (few.clone(), 0),
        (format!("{few}{many}"), 1000 - room::ENDPOINTS / 1000),
        (many, 900 - room::ENDPOINTS / 1000),
        (few, 0),
    ] {
        let text = format!("{ingresses}{headless}{slices}");
        let keys = index.apply(Event::Whole(Box::new(index_of(&text))));
        state.apply(&index, keys);
        let whole = state.whole();
        let lists = whole.endpoints.iter().filter_map(|(_, list)| list.as_ref());
        let all: usize = lists.map(|list| list.len()).sum();
        assert!(all <= room::ENDPOINTS, "{all}");
        let problems = state.book().lock().unwrap().all();
        assert_eq!(problems.len(), refused, "{:?}", problems.first());
        let scratch = translate(&text);
        assert_eq!(sorted(&whole).endpoints, sorted(&scratch.update).endpoints);
        assert_eq!(problems, scratch.problems);
    }
    // Without Ingresses nothing is left.
    let keys = index.apply(Event::Whole(Box::new(index_of(&slices))));
    state.apply(&index, keys);
    let left = format!("{:?}", state.rooms);
    assert!(left.ends_with("taken: {} }"), "{left}");
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
    let settings = Settings {
        allow_loopback_endpoints: true,
        ..settings()
    };
    let loose = translate_with(&text, settings);
    assert_eq!(
        endpoints(&loose),
        ["default/s:80 [127.0.0.1:8080 127.0.0.2:8080 169.254.169.254:8080 192.0.2.1:8080]"]
    );
    assert_eq!(loose.problems.len(), 3, "{:?}", problems(&loose));
}

#[test]
fn what_forebay_listens_on_is_no_endpoint() {
    let list = "[{addresses: [127.0.0.1]}, {addresses: [127.0.0.2]}, {addresses: [198.51.100.7]}, {addresses: [192.0.2.1]}]";
    let text = format!("{}{SERVICE}{}", rule(), slice("a", "IPv4", list, HTTP));
    for (listeners, expected) in [
        (&["0.0.0.0:8080", "198.51.100.7:8080"][..], "192.0.2.1:8080"),
        (
            &["127.0.0.1:8080"],
            "127.0.0.2:8080 192.0.2.1:8080 198.51.100.7:8080",
        ),
        (
            &["0.0.0.0:80", "198.51.100.7:443"],
            "127.0.0.1:8080 127.0.0.2:8080 192.0.2.1:8080 198.51.100.7:8080",
        ),
    ] {
        let settings = Settings {
            allow_loopback_endpoints: true,
            listeners: listeners.iter().map(|own| own.parse().unwrap()).collect(),
            ..settings()
        };
        let view = translate_with(&text, settings);
        assert_eq!(
            endpoints(&view),
            [format!("default/s:80 [{expected}]")],
            "{listeners:?}"
        );
        let own = problems(&view);
        let own = own
            .iter()
            .filter(|problem| problem.contains("is where Forebay itself listens"));
        assert_eq!(
            own.count(),
            4 - expected.split(' ').count(),
            "{listeners:?}"
        );
    }
}

#[test]
fn an_external_name_is_asked_for_and_its_addresses_are_endpoints() {
    let service = |spec: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{type: ExternalName, {spec}}}\n"
        )
    };
    let subject = "Warning test.yaml:1: Ingress default/web: \
                   spec.rules[0].http.paths[0].backend.service: Service default/s";
    let found = |addresses: &[&str]| Addresses {
        found: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        failure: None,
    };
    let failed = Addresses {
        failure: Some("no such name".to_owned()),
        ..found(&[])
    };
    let stale = Addresses {
        failure: Some("no such name".to_owned()),
        ..found(&["192.0.2.1"])
    };
    for (spec, addresses, expected, problem) in [
        (
            "externalName: a.test., ports: [{port: 80}]",
            found(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
            "192.0.2.1:80 192.0.2.2:80",
            None,
        ),
        (
            "externalName: a.test, ports: [{port: 80, targetPort: 8080}]",
            found(&["192.0.2.1"]),
            "192.0.2.1:8080",
            None,
        ),
        ("externalName: a.test", stale, "192.0.2.1:80", None),
        (
            "externalName: a.test",
            found(&["127.0.0.1", "192.0.2.1"]),
            "192.0.2.1:80",
            None,
        ),
        (
            "externalName: a.test",
            found(&["169.254.169.254"]),
            "",
            Some("is an ExternalName, \"a.test\": what it stands for is a link-local address"),
        ),
        (
            "externalName: a.test",
            failed,
            "",
            Some("is an ExternalName, \"a.test\": no such name"),
        ),
        (
            "externalName: a.test",
            found(&[]),
            "",
            Some("is an ExternalName, \"a.test\": it has no address"),
        ),
        (
            "externalName: ''",
            found(&[]),
            "",
            Some("is an ExternalName without a name"),
        ),
    ] {
        let (mut index, keys) = read(&format!("{}{}", rule(), service(spec)));
        let mut state = State::new(settings());
        state.apply(&index, keys);
        let externals = state.take_externals();
        if !spec.contains("''") {
            let by = ["default".to_owned()].into();
            assert_eq!(externals, Some([("a.test".into(), by)].into()), "{spec}");
        }
        assert_eq!(state.take_externals(), None, "{spec}");
        let keys = index.apply(Event::Addresses("a.test".into(), Some(addresses)));
        state.apply(&index, keys);
        let view = View {
            update: state.whole(),
            problems: state.book().lock().unwrap().all(),
            state,
        };
        assert_eq!(
            endpoints(&view),
            [format!("default/s:80 [{expected}]")],
            "{spec}"
        );
        let expected = problem.map(|problem| format!("{subject} {problem}; requests get 503"));
        assert_eq!(
            problems(&view),
            expected.into_iter().collect::<Vec<_>>(),
            "{spec}"
        );
    }
}

#[test]
fn an_external_name_that_nobody_names_any_more_is_asked_for_no_longer() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {type: ExternalName, externalName: a.test, ports: [{port: 80}]}\n";
    let mut index = Index::default();
    let mut state = State::new(settings());
    let mut externals = |text: &str| {
        let keys = index.apply(Event::Whole(Box::new(index_of(text))));
        state.apply(&index, keys);
        state.take_externals().map(|names| names.len())
    };
    assert_eq!(externals(service), None, "no rule names it");
    assert_eq!(externals(&format!("{}{service}", rule())), Some(1));
    let other = service.replace("port: 80", "port: 80, targetPort: 81");
    assert_eq!(externals(&format!("{}{other}", rule())), None);
    assert_eq!(
        externals(&format!(
            "{}{}",
            rule(),
            service.replace("a.test", "b.test")
        )),
        Some(1)
    );
    assert_eq!(externals(&rule()), Some(0));
}

#[test]
fn whoever_looks_an_external_name_up_knows_which_namespaces_want_it() {
    let of = |namespace: &str, name: &str, port: u16| {
        let at = |text: String| {
            let (place, named) = (
                "metadata: {name: ",
                format!("metadata: {{namespace: {namespace}, name: "),
            );
            text.replace(place, &named)
        };
        let service = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{type: ExternalName, externalName: {name}, ports: [{{port: 80}}, {{port: {port}}}]}}\n"
        );
        let ingress = ingress(
            "web",
            &format!(
                "{{rules: [{{http: {{paths: [{{pathType: Prefix, path: /a, backend: {{service: {{name: s, port: {{number: 80}}}}}}}}, {{pathType: Prefix, path: /b, backend: {{service: {{name: s, port: {{number: {port}}}}}}}}}]}}}}]}}"
            ),
        );
        format!("{}---\n{}---\n", at(service), at(ingress))
    };
    let mut index = Index::default();
    let mut state = State::new(settings());
    let mut externals = |text: String| {
        let keys = index.apply(Event::Whole(Box::new(index_of(&text))));
        state.apply(&index, keys);
        let names = state.take_externals()?;
        let text = names.into_iter().map(|(name, by)| {
            let by: Vec<_> = by.into_iter().collect();
            format!("{name} {}", by.join(" "))
        });
        Some(text.collect::<Vec<_>>().join(", "))
    };
    let said = |text: &str| Some(text.to_owned());
    let (a, b) = (of("a", "x.test", 81), of("b", "x.test", 81));
    assert_eq!(externals(a.clone()), said("x.test a"));
    assert_eq!(externals(format!("{a}{b}")), said("x.test a b"));
    assert_eq!(externals(format!("{a}{}", of("b", "x.test", 82))), None);
    let other = of("b", "y.test", 82);
    assert_eq!(externals(format!("{a}{other}")), said("x.test a, y.test b"));
    assert_eq!(externals(b), said("x.test b"));
}

/// A Secret with a certificate for these names.
fn secret(name: &str, namespace: &str, hosts: &[&str]) -> String {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let made = rcgen::generate_simple_self_signed(hosts).unwrap();
    let data = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {"tls.crt": made.cert.pem(), "tls.key": made.signing_key.serialize_pem()},
    });
    format!("{data}\n---\n")
}

/// An Ingress with a rule for each of `hosts`.
fn dated(name: &str, year: u32, hosts: &[&str], tls: &str) -> String {
    let rule = |host: &&str| {
        format!(
            "{{host: '{host}', http: {{paths: [{{path: /{name}, pathType: Prefix, {TO_S}}}]}}}}"
        )
    };
    let rules: Vec<_> = hosts.iter().map(rule).collect();
    ingress(
        name,
        &format!("{{tls: {tls}, rules: [{}]}}", rules.join(", ")),
    )
    .replace(
        &format!("{{name: {name}}}"),
        &format!("{{name: {name}, creationTimestamp: '{year}-01-01T00:00:00Z'}}"),
    )
}

/// `host: secret` of each host that has TLS; `-` for the default certificate.
fn tls(view: &View) -> Vec<String> {
    let mut lines: Vec<_> = view
        .hosts()
        .filter(|(_, rules)| rules.policy.tls)
        .map(|(host, rules)| match &rules.policy.certificate {
            Some(secret) => format!("{host}: {}", secret.name),
            None => format!("{host}: -"),
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn the_oldest_ingress_with_tls_and_a_rule_for_a_host_decides_its_certificate() {
    let one = secret(
        "one",
        "default",
        &["a.test", "b.test", "c.test", "*.w.test"],
    );
    let two = secret("two", "default", &["a.test", "*.test"]);
    for (ingresses, expected) in [
        // The older wins, whatever its entry is called.
        (
            vec![
                dated(
                    "young",
                    2026,
                    &["a.test"],
                    "[{hosts: [a.test], secretName: one}]",
                ),
                dated(
                    "old",
                    2020,
                    &["a.test"],
                    "[{hosts: [A.test], secretName: two}]",
                ),
            ],
            &["a.test: two"][..],
        ),
        // Without a rule for the host an entry says nothing: not to it, and not to its redirect.
        (
            vec![
                dated(
                    "old",
                    2020,
                    &["x.test"],
                    "[{hosts: [a.test], secretName: one}, {secretName: two}]",
                ),
                dated("young", 2026, &["a.test"], "[]"),
            ],
            &["x.test: two"],
        ),
        (
            vec![
                dated(
                    "old",
                    2020,
                    &["x.test"],
                    "[{hosts: [a.test], secretName: two}]",
                ),
                dated(
                    "young",
                    2026,
                    &["a.test"],
                    "[{hosts: [a.test], secretName: one}]",
                ),
            ],
            &["a.test: one", "x.test: two"],
        ),
        // Found by the certificate's names, where no entry lists the host.
        (
            vec![dated(
                "web",
                2020,
                &["b.test", "z.other"],
                "[{hosts: [c.test], secretName: one}]",
            )],
            &["b.test: one", "z.other: -"],
        ),
        // An entry without hosts is for all of the Ingress's rules.
        (
            vec![dated(
                "web",
                2020,
                &["b.test", "z.other"],
                "[{secretName: one}]",
            )],
            &["b.test: one", "z.other: -"],
        ),
        (
            vec![dated(
                "web",
                2020,
                &["*.w.test", "*.x.test"],
                "[{secretName: one}]",
            )],
            &["*.w.test: one", "*.x.test: -"],
        ),
        // A wildcard's entry turns the redirect on below it, and no other certificate.
        (
            vec![
                dated(
                    "wild",
                    2026,
                    &["*.test"],
                    "[{hosts: ['*.test'], secretName: two}]",
                ),
                dated("web", 2020, &["a.test", "a.b.test"], "[]"),
            ],
            &["*.test: two", "a.test: -"],
        ),
        // A younger one has a say only where the Secret of the older cannot be used.
        (
            vec![
                dated(
                    "old",
                    2020,
                    &["a.test"],
                    "[{hosts: [a.test], secretName: absent}]",
                ),
                dated(
                    "young",
                    2026,
                    &["a.test"],
                    "[{hosts: [a.test], secretName: one}]",
                ),
            ],
            &["a.test: one"],
        ),
        (
            vec![dated("web", 2020, &["a.test"], "[{hosts: [a.test]}]")],
            &["a.test: -"],
        ),
        // Without a host nobody else's name can be taken.
        (vec![dated("web", 2020, &[""], "[{secretName: one}]")], &[]),
    ] {
        let text = format!("{}{one}{two}{SERVICE}", ingresses.concat());
        assert_eq!(tls(&translate(&text)), expected, "{ingresses:?}");
    }
}

#[test]
fn a_younger_wildcard_of_another_namespace_says_nothing_to_the_hosts_below_it() {
    let wild = |namespace: &str, year: u32, tls: bool| {
        let tls = if tls { "[{secretName: one}]" } else { "[]" };
        let wild = dated("wild", year, &["*.test"], tls);
        wild.replace(
            "{name: wild, ",
            &format!("{{name: wild, namespace: {namespace}, "),
        )
    };
    let web = dated("web", 2020, &["a.test"], "[]");
    let theirs = secret("one", "evil", &["*.test"]);
    let mut index = Index::default();
    let mut state = State::new(settings());
    // Each after the one before: the host hears of it when its wildcard is another's.
    for (above, tls, ignores) in [
        (wild("evil", 2026, true), false, true),
        (wild("default", 2026, true), true, false),
        (wild("evil", 2026, true), false, true),
        (wild("evil", 2026, false), false, false),
        (wild("evil", 2019, true), true, false),
        (wild("evil", 2026, true), false, true),
        (String::new(), false, false),
    ] {
        let text = format!("{web}{above}{theirs}{SERVICE}");
        let keys = index.apply(Event::Whole(Box::new(index_of(&text))));
        state.apply(&index, keys);
        let served = &state.hosts[&"a.test".parse().unwrap()];
        let policy = &served.rules.policy;
        let now = (policy.tls, policy.ignores_wildcard);
        assert_eq!(now, (tls, ignores), "{above}");
    }
}

#[test]
fn a_tls_entry_of_one_ingress_without_a_host_redirects_no_other() {
    for entry in ["{}", "{secretName: one}", "{hosts: ['*']}"] {
        let old = dated("old", 2020, &[""], "[]");
        let young = dated("young", 2025, &[""], &format!("[{entry}]"))
            .replace("{name: young, ", "{name: young, namespace: guest, ");
        let view = translate(&format!("{old}{young}{SERVICE}"));
        assert_eq!(view.rules().len(), 2, "{entry}");
        assert_eq!(tls(&view), [] as [&str; 0], "{entry}");
    }
}

#[test]
fn the_default_certificate_is_that_of_requests_that_no_host_matches() {
    let settings = |namespace: &str| Settings {
        default_certificate: Some(ObjectName::new(namespace, "one")),
        ..settings()
    };
    let text = secret("one", "default", &["any.test"]);
    let view = translate_with(&text, settings("default"));
    let hosts: Vec<_> = view.hosts().collect();
    assert_eq!(hosts.len(), 1);
    assert_eq!(*hosts[0].0, HostPattern::Any);
    assert_eq!(
        hosts[0].1.policy.certificate,
        Some(ObjectName::new("default", "one"))
    );
    assert_eq!(view.update.certificates.len(), 1);
    assert_eq!(
        translate_with(&text, settings("elsewhere"))
            .update
            .certificates,
        []
    );
}

#[test]
fn secrets_that_cannot_be_used_are_named_and_their_hosts_still_have_tls() {
    let good = |name: &str, namespace: &str| secret(name, namespace, &["a.test"]);
    for (name, secret, why, object_too) in [
        ("absent", String::new(), "does not exist", false),
        // Never another namespace's.
        ("foreign", good("foreign", "elsewhere"), "does not exist", false),
        (
            "empty",
            "apiVersion: v1\nkind: Secret\nmetadata: {name: empty}\nstringData: {tls.crt: x}\n---\n".into(),
            "has no tls.key",
            true,
        ),
        (
            "nonsense",
            "apiVersion: v1\nkind: Secret\nmetadata: {name: nonsense}\nstringData: {tls.crt: x, tls.key: z}\n---\n".into(),
            "tls.crt has no PEM certificate",
            true,
        ),
        (
            "large",
            good("large", "default").replace(r#""tls.key":""#, &format!(r#""tls.key":"{}"#, "x".repeat(256 * 1024))),
            "tls.crt and tls.key are together larger than 256 KiB",
            true,
        ),
    ] {
        let entry = format!("[{{hosts: [a.test], secretName: {name}}}]");
        let web = dated("web", 2026, &["a.test"], &entry);
        let view = translate(&format!("{web}{secret}{SERVICE}"));
        assert_eq!(tls(&view), ["a.test: -"], "{name}");
        assert_eq!(view.update.certificates, [], "{name}");
        let expected = format!(
            "Warning test.yaml:1: Ingress default/web: spec.tls[0].secretName: Secret default/{name}: {why}; the default certificate is used"
        );
        let problems = problems(&view);
        assert!(problems.contains(&expected), "{problems:?}");
        assert_eq!(problems.len(), 1 + usize::from(object_too), "{problems:?}");
    }
}

#[test]
fn a_secret_that_becomes_unusable_keeps_its_last_good_content_and_one_that_is_gone_does_not() {
    let good = secret("one", "default", &["a.test"]);
    let bad =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: one}\nstringData: {tls.crt: x}\n---\n";
    let web = dated("web", 2026, &["a.test"], "[{secretName: one}]");
    let mut index = Index::default();
    let mut state = State::new(settings());
    for (secret, served) in [
        (good.as_str(), true),
        (bad, true),
        ("", false),
        (bad, false),
        (&good, true),
    ] {
        let text = format!("{web}{secret}{SERVICE}");
        let keys = index.apply(Event::Whole(Box::new(index_of(&text))));
        state.apply(&index, keys);
        let whole = state.whole();
        let rules = whole.hosts[0].1.as_ref().unwrap();
        assert_eq!(rules.policy.certificate.is_some(), served, "{secret}");
        assert_eq!(whole.certificates.len(), usize::from(served), "{secret}");
    }
}

#[test]
fn a_secret_that_is_made_again_keeps_nothing_of_the_one_before() {
    let one = ObjectName::new("default", "one");
    let made = index_of(&secret("one", "default", &["a.test"]));
    let made = (*made.objects.secrets.find(&one).unwrap().object).clone();
    let empty = Secret::default();
    let web = dated("web", 2026, &["a.test"], "[{secretName: one}]");
    let mut index = Index::default();
    let mut state = State::new(settings());
    let keys = index.apply(Event::Whole(Box::new(index_of(&format!("{web}{SERVICE}")))));
    state.apply(&index, keys);
    // Its deletion may not be seen, as in a new list.
    for (uid, secret, served) in [
        ("1", &made, Some(true)),
        ("1", &empty, None),
        ("2", &empty, Some(false)),
        ("2", &made, Some(true)),
    ] {
        let mut secret = secret.clone();
        secret.metadata.uid = Some(uid.to_owned());
        let change = Change::Applied(one.clone(), Box::new(secret));
        let keys = index.apply(Event::Changed(Secret::changed(change)));
        let update = state.apply(&index, keys);
        let said = update.certificates.first();
        assert_eq!(said.map(|(_, is)| is.is_some()), served, "{uid}");
    }
}

#[test]
fn a_bad_edit_keeps_the_last_good_version_and_a_new_object_is_not_served() {
    let web = |uid: &str, annotation: &str, path: &str| {
        let text =
            dated("web", 2026, &["a.test"], "[]").replace("path: /web", &format!("path: {path}"));
        text.replacen("creationTimestamp", &format!("uid: {uid}, annotations: {{nginx.ingress.kubernetes.io/{annotation}}}, creationTimestamp"), 1)
    };
    let (good, bad) = ("rewrite-target: /$2", "rewrite-target: '/$2?x=1'");
    let mut index = Index::default();
    let mut state = State::new(settings());
    for (what, text, served) in [
        ("new and bad", web("u1", bad, "/a"), None),
        ("edited, still new and bad", web("u1", bad, "/b"), None),
        ("good", web("u1", good, "/a"), Some("/a")),
        ("edited and bad", web("u1", bad, "/b"), Some("/a")),
        ("edited and good", web("u1", good, "/c"), Some("/c")),
        ("another object of the name", web("u2", bad, "/d"), None),
        ("gone", String::new(), None),
    ] {
        let text = format!("{text}{SERVICE}");
        let keys = index.apply(Event::Whole(Box::new(index_of(&text))));
        state.apply(&index, keys);
        let whole = state.whole();
        let rules = whole
            .hosts
            .iter()
            .flat_map(|(_, rules)| &rules.as_ref().unwrap().rules);
        let paths: Vec<_> = rules.map(|rule| rule.path.as_str()).collect();
        assert_eq!(paths, served.into_iter().collect::<Vec<_>>(), "{what}");
        assert_eq!(
            whole.hosts.is_empty(),
            what == "gone",
            "{what}: the host is kept"
        );
        let problems = state.book().lock().unwrap().all();
        let says = |text: &str| {
            problems
                .iter()
                .any(|problem| problem.message.contains(text))
        };
        assert_eq!(
            says("its last good version stays in force"),
            what == "edited and bad",
            "{problems:?}"
        );
        assert_eq!(
            says("it is not served"),
            what.ends_with("new and bad") || what.starts_with("another"),
            "{problems:?}"
        );
    }
}

#[test]
fn a_config_map_that_was_never_read_may_restrict_access_and_denies_every_rule() {
    let name = ObjectName::new("forebay", "config");
    let mut state = State::new(Settings {
        configmap: Some(name.clone()),
        ..settings()
    });
    let mut index = Index::default();
    let text = format!("{}{SERVICE}", dated("web", 2020, &["a.test"], "[]"));
    let unread = Unread {
        uid: Some("1".into()),
        error: "cannot be read".into(),
        ..Unread::default()
    };
    let readable = ConfigMap {
        metadata: ObjectMeta {
            uid: Some("1".to_owned()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    };
    let changed = |change| Event::Changed(ConfigMap::changed(change));
    for (event, denied) in [
        (Event::Whole(Box::new(index_of(&text))), false),
        (changed(Change::Unread(name.clone(), unread.clone())), true),
        (
            changed(Change::Applied(name.clone(), Box::new(readable))),
            false,
        ),
        // What it said last stays.
        (changed(Change::Unread(name.clone(), unread)), false),
        (changed(Change::Deleted(name)), false),
    ] {
        let keys = index.apply(event);
        state.apply(&index, keys);
        let whole = sorted(&state.whole());
        let rule = &whole.hosts[0].1.as_ref().unwrap().rules[0];
        assert_eq!(matches!(rule.action, Action::Deny(_)), denied);
    }
}

#[test]
fn what_a_folder_never_said_readably_opens_nothing() {
    let name = ObjectName::new("forebay", "config");
    let rules = |more: &str| {
        let text = format!("{}{SERVICE}{more}", dated("web", 2020, &["a.test"], "[]"));
        let text = text.replacen("spec: {", "spec: {ingressClassName: nginx, ", 1);
        let (index, keys) = read(&text);
        let mut state = State::new(Settings {
            configmap: Some(name.clone()),
            ..settings()
        });
        state.apply(&index, keys);
        let problems = state.book().lock().unwrap().all();
        let hosts = sorted(&state.whole()).hosts;
        let rule = hosts.first().map(|(_, rules)| {
            let rules = rules.as_ref().unwrap();
            !matches!(rules.rules[0].action, Action::Deny(_))
        });
        (rule, problems.len())
    };
    let config = |namespace: &str, value: &str| {
        format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config, namespace: {namespace}}}\n\
             data: {{proxy-body-size: {value}}}\n"
        )
    };
    let class = |spec: &str| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{name: nginx}}\nspec: {spec}\n"
        )
    };
    assert_eq!(rules(""), (Some(true), 0));
    let (open, problems) = rules(&config("forebay", "[10]"));
    assert_eq!(
        (open, problems),
        (Some(false), 2),
        "the Ingress says so, and the file"
    );
    assert_eq!(rules(&config("elsewhere", "[10]")), (Some(true), 1));
    let both = config("forebay", "'10'") + &config("forebay", "[10]");
    assert_eq!(rules(&both).0, Some(true), "it is in the file twice");
    assert_eq!(
        rules(&class("7")),
        (Some(false), 2),
        "the Ingress says so, and the file"
    );
}

#[test]
fn a_file_of_which_nobody_knows_what_it_says_may_be_the_config_map_until_all_was_read() {
    let name = ObjectName::new("forebay", "config");
    let web = format!("{}{SERVICE}", dated("web", 2020, &["a.test"], "[]"));
    let broken = format!("{web}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: [\n");
    let config =
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: config, namespace: forebay}\n";
    for (configmap, steps) in [
        (None, &[(&broken, true)][..]),
        (
            Some(&name),
            &[(&broken, false), (&web, true), (&broken, true)],
        ),
        (Some(&name), &[(&format!("{broken}{config}"), true)]),
        (Some(&name), &[(&web, true), (&broken, true)]),
        (Some(&name), &[(&format!("{web}---\nreplicas: 2\n"), true)]),
    ] {
        let mut state = State::new(Settings {
            configmap: configmap.cloned(),
            ..settings()
        });
        let mut index = Index::default();
        for (text, open) in steps {
            let keys = index.apply(Event::Whole(Box::new(index_of(text))));
            state.apply(&index, keys);
            let hosts = sorted(&state.whole()).hosts;
            let rules = hosts[0].1.as_ref().unwrap();
            let is_open = !matches!(rules.rules[0].action, Action::Deny(_));
            assert_eq!(is_open, *open, "{configmap:?} {text}");
        }
    }
}

#[test]
fn an_ingress_class_that_was_never_read_is_not_taken_for_ours_by_its_name() {
    let web = dated("web", 2020, &["a.test"], "[]");
    let web = web.replacen("spec: {", "spec: {ingressClassName: nginx, ", 1);
    let (mut index, keys) = read(&format!("{web}{SERVICE}"));
    let mut state = State::new(settings());
    state.apply(&index, keys);
    assert_eq!(state.foreign(), 0);
    let unread = Unread {
        uid: None,
        error: "cannot be read".into(),
        ..Unread::default()
    };
    let change = Change::Unread(ObjectName::new("", "nginx"), unread);
    let keys = index.apply(Event::Changed(IngressClass::changed(change)));
    state.apply(&index, keys);
    let hosts = state.whole().hosts;
    let rule = &hosts[0].1.as_ref().unwrap().rules[0];
    assert!(matches!(rule.action, Action::Deny(_)), "{rule:?}");
}

#[test]
fn an_ingress_class_may_be_in_what_cannot_be_read_of_a_folder_until_all_was_read() {
    let web = dated("web", 2020, &["a.test"], "[]");
    let web = web.replacen("spec: {", "spec: {ingressClassName: nginx, ", 1);
    let good = format!("{web}{SERVICE}");
    let class = |spec: &str| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{name: nginx}}\nspec: {spec}\n"
        )
    };
    let broken = class("{controller: [");
    let (hidden, other) = (
        format!("{good}{broken}"),
        format!("{good}{}", broken.replace("IngressClass", "Service")),
    );
    let theirs = format!("{good}{}", class("{controller: example.com/other}"));
    let (open, closed, absent) = (Some(true), Some(false), None);
    for steps in [
        &[(&good, open), (&hidden, open)][..],
        &[(&hidden, closed), (&good, open), (&hidden, open)],
        &[(&hidden, closed), (&theirs, absent), (&good, open)],
        &[(&other, open)],
    ] {
        let mut state = State::new(settings());
        let mut index = Index::default();
        for (text, expected) in steps {
            let keys = index.apply(Event::Whole(Box::new(index_of(text))));
            state.apply(&index, keys);
            let hosts = sorted(&state.whole()).hosts;
            let rule = hosts
                .first()
                .map(|(_, rules)| &rules.as_ref().unwrap().rules[0]);
            let is_open = rule.map(|rule| !matches!(rule.action, Action::Deny(_)));
            assert_eq!(is_open, *expected, "{text}");
            let problems = state.book().lock().unwrap().all();
            let mut problems = problems.iter().map(ToString::to_string);
            let says = problems.any(|it| it.contains("its IngressClass cannot be read"));
            assert_eq!(says, *expected == closed, "{text}");
        }
    }
}

/// The rules of `a.test`, as far as they are said of it: Ingress and path.
fn denied_and_open(state: &State, host: &str) -> (Vec<String>, Vec<String>) {
    let hosts = sorted(&state.whole()).hosts;
    let host: HostPattern = host.parse().unwrap();
    let rules = hosts.iter().find(|(of, _)| *of == host);
    let rules = rules.map_or_else(Vec::new, |(_, rules)| rules.as_ref().unwrap().rules.clone());
    let (denied, open): (Vec<_>, Vec<_>) = rules
        .into_iter()
        .partition(|rule| matches!(rule.action, Action::Deny(_)));
    let line = |rule: Rule| format!("{} {}", rule.source.name, rule.path.as_str());
    (
        denied.into_iter().map(line).collect(),
        open.into_iter().map(line).collect(),
    )
}

#[test]
fn an_ingress_that_was_never_read_denies_its_paths_but_nothing_of_an_older_one() {
    use serde_json::json;
    let raw = |namespace: &str, created: &str, class: serde_json::Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "odd", "namespace": namespace, "uid": "1", "creationTimestamp": created},
            "spec": {
                "ingressClassName": class,
                "rules": [{"host": "a.test", "http": {"paths": [
                    {"path": "/admin", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": "x"}}}},
                    {"path": "/web", "pathType": "Prefix", "backend": 7},
                ]}}],
            },
        })
    };
    let good = format!(
        "{}{SERVICE}",
        dated("web", 2020, &["a.test", "*.test"], "[]")
    );
    let unread = |raw: &serde_json::Value, uid: &str| {
        let outline = Outline::read(raw).unwrap();
        let unread = Unread {
            uid: Some(uid.into()),
            error: "cannot be read".into(),
            outline: Some(Arc::new(outline)),
        };
        let namespace = raw["metadata"]["namespace"].as_str().unwrap();
        let change = Change::Unread(ObjectName::new(namespace, "odd"), unread);
        Event::Changed(Ingress::changed(change))
    };
    let (old, young) = ("2019-01-01T00:00:00Z", "2021-01-01T00:00:00Z");
    let nginx = || json!("nginx");
    for (what, raw, denied, open) in [
        (
            "older",
            raw("default", old, nginx()),
            &["odd /admin", "odd /web"][..],
            &[][..],
        ),
        (
            "younger",
            raw("default", young, nginx()),
            &["odd /admin"],
            &["web /web"],
        ),
        (
            "another tenant's",
            raw("evil", young, nginx()),
            &["odd /admin"],
            &["web /web"],
        ),
        (
            "of no known age",
            raw("evil", "never", nginx()),
            &["odd /admin"],
            &["web /web"],
        ),
        (
            "of no known class",
            raw("default", young, json!(7)),
            &["odd /admin"],
            &["web /web"],
        ),
        (
            "another's",
            raw("default", old, json!("other")),
            &[],
            &["web /web"],
        ),
    ] {
        let (mut index, keys) = read(&good);
        let mut state = State::new(settings());
        state.apply(&index, keys);
        let keys = index.apply(unread(&raw, "1"));
        state.apply(&index, keys);
        let full = |lines: &[&str]| {
            let namespace = |line: &&str| {
                let own = raw["metadata"]["namespace"].as_str().unwrap();
                let namespace = if line.starts_with("odd") {
                    own
                } else {
                    "default"
                };
                format!("{namespace}/{line}")
            };
            lines.iter().map(namespace).collect::<Vec<_>>()
        };
        let expected = (full(denied), full(open));
        assert_eq!(denied_and_open(&state, "a.test"), expected, "{what}");
        // It can be read.
        let name = ObjectName::new(raw["metadata"]["namespace"].as_str().unwrap(), "odd");
        let mended = index_of(&dated("odd", 2021, &["a.test"], "[]"));
        let mended = mended
            .objects
            .ingresses
            .find(&ObjectName::new("default", "odd"));
        let mut mended = (*mended.unwrap().object).clone();
        mended.metadata.uid = Some("1".to_owned());
        let change = Change::Applied(name.clone(), Box::new(mended));
        let keys = index.apply(Event::Changed(Ingress::changed(change)));
        state.apply(&index, keys);
        assert_eq!(
            denied_and_open(&state, "a.test").0,
            Vec::<String>::new(),
            "{what}"
        );
        // Its last good version stays; there is none of another object of the name.
        let keys = index.apply(unread(&raw, "1"));
        state.apply(&index, keys);
        assert_eq!(
            denied_and_open(&state, "a.test").0,
            Vec::<String>::new(),
            "{what}"
        );
        let keys = index.apply(unread(&raw, "2"));
        state.apply(&index, keys);
        assert_eq!(denied_and_open(&state, "a.test"), expected, "{what}");
        let problems = state.book().lock().unwrap().all();
        let odd = problems
            .iter()
            .filter(|problem| problem.object.ends_with("/odd"));
        let odd: Vec<_> = odd.map(ToString::to_string).collect();
        let says = odd.iter().any(|it| it.contains("answer 503"));
        assert_eq!(says, what != "another's", "{what}: {odd:?}");
        let gone = Change::<Ingress>::Deleted(name);
        let keys = index.apply(Event::Changed(Ingress::changed(gone)));
        state.apply(&index, keys);
        let left = vec!["default/web /web".to_owned()];
        assert_eq!(denied_and_open(&state, "a.test"), (vec![], left), "{what}");
    }
}

#[test]
fn a_path_that_cannot_be_read_closes_its_host_for_its_own_namespace_alone() {
    for (namespace, is_open) in [("evil", true), ("default", false)] {
        let good = dated("web", 2020, &["a.test"], "[]");
        let odd = dated("odd", 2021, &["a.test"], "[]")
            .replace(
                "{name: odd,",
                &format!("{{name: odd, namespace: {namespace},"),
            )
            .replace("http: {", "http: 7, was: {");
        let view = translate(&format!("{good}{SERVICE}{odd}"));
        let web = vec!["default/web /web".to_owned()];
        let expected = if is_open {
            (vec![], web)
        } else {
            (web, vec![])
        };
        assert_eq!(denied_and_open(&view.state, "a.test"), expected, "{odd}");
    }
}

#[test]
fn an_ingress_of_a_file_that_cannot_be_read_keeps_its_hosts_from_broader_rules() {
    let good = format!("{}{SERVICE}", dated("web", 2020, &["*.test"], "[]"));
    let odd = |version: &str| {
        dated("odd", 2021, &["a.test"], "[]")
            .replace("networking.k8s.io/v1", version)
            .replace("tls: []", "tls: 7")
    };
    for version in ["networking.k8s.io/v1", "networking.k8s.io/v1beta1"] {
        let view = translate(&format!("{good}{}", odd(version)));
        let denied = vec!["default/odd /odd".to_owned()];
        assert_eq!(denied_and_open(&view.state, "a.test"), (denied, vec![]));
        let problems = problems(&view);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("answer 503"), "{problems:?}");
    }
}

#[test]
fn the_config_map_is_the_base_of_every_ingress_and_its_changes_reach_all() {
    let settings = Settings {
        configmap: Some(ObjectName::new("forebay", "config")),
        ..settings()
    };
    let map = |data: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config, namespace: forebay}}\ndata: {{{data}}}\n---\n"
        )
    };
    let own = dated("own", 2020, &["b.test"], "[]").replacen(
        "creationTimestamp",
        "annotations: {nginx.ingress.kubernetes.io/proxy-body-size: 9m, \
         nginx.ingress.kubernetes.io/whitelist-source-range: '0.0.0.0/0,::/0'}, creationTimestamp",
        1,
    );
    let ingresses = format!("{}{own}{SERVICE}", dated("web", 2020, &["a.test"], "[]"));
    let mut index = Index::default();
    let mut state = State::new(settings);
    for (data, limit, denied) in [
        (None, 1, false),
        (Some("proxy-body-size: 3m"), 3, false),
        (Some("whitelist-source-range: 192.0.2.0/24"), 1, true),
        (None, 1, false),
    ] {
        let text = format!("{}{ingresses}", data.map(map).unwrap_or_default());
        let keys = index.apply(Event::Whole(Box::new(index_of(&text))));
        state.apply(&index, keys);
        let whole = sorted(&state.whole());
        let rule = |at: usize| &whole.hosts[at].1.as_ref().unwrap().rules[0];
        assert_eq!(rule(0).policy.body_limit, Some(limit << 20), "{data:?}");
        assert_eq!(rule(1).policy.body_limit, Some(9 << 20), "{data:?}");
        let is_denied = |rule: &Rule| matches!(rule.action, Action::Deny(_));
        assert_eq!(
            (is_denied(rule(0)), is_denied(rule(1))),
            (denied, false),
            "{data:?}"
        );
    }
}

#[test]
fn a_bad_edit_keeps_the_last_good_version_also_past_a_config_map_that_denied_it() {
    let web = |annotation: &str| {
        let text = dated("web", 2026, &["a.test"], "[]");
        let annotations = format!(
            "annotations: {{nginx.ingress.kubernetes.io/rewrite-target: {annotation}}}, creationTimestamp"
        );
        text.replacen("creationTimestamp", &annotations, 1)
    };
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config, namespace: forebay}\n\
               data: {whitelist-source-range: 192.0.2.0/24}\n---\n";
    let (good, bad) = (web("/$2"), web("'/$2?x=1'"));
    let mut index = Index::default();
    let mut state = State::new(Settings {
        configmap: Some(ObjectName::new("forebay", "config")),
        ..settings()
    });
    for (text, served) in [
        (good.clone(), true),
        (bad.clone(), true),
        (format!("{bad}{map}"), false),
        (format!("{bad}{map}{SERVICE}"), false),
        (bad, true),
        (good, true),
    ] {
        let keys = index.apply(Event::Whole(Box::new(index_of(&text))));
        state.apply(&index, keys);
        let whole = state.whole();
        let rule = &whole.hosts[0].1.as_ref().unwrap().rules[0];
        let is_served = !matches!(rule.action, Action::Deny(_));
        assert_eq!(is_served, served, "{text}");
        let target = rule.policy.rewrite_target.as_deref();
        assert_eq!(target.is_some(), served, "{text}");
    }
}

#[test]
fn an_object_that_meets_a_bug_harms_no_other() {
    let text = format!(
        "{}{}{SERVICE}",
        dated("good", 2026, &["a.test"], "[]"),
        dated("panics", 2020, &["a.test", "b.test"], "[]"),
    );
    let view = translate(&text);
    assert_eq!(lines(&view), ["good a.test /good Prefix default/s:80"]);
    let hosts: Vec<_> = view.hosts().map(|(host, _)| host.to_string()).collect();
    assert_eq!(
        hosts,
        ["a.test", "b.test"],
        "its hosts fall to nobody's wildcard"
    );
    let problems = problems(&view).join("\n");
    assert!(
        problems.contains("Ingress default/panics: cannot be translated: this is a bug in Forebay"),
        "{problems}"
    );
}

#[test]
fn a_secret_of_any_type_is_taken() {
    let opaque = secret("one", "default", &["a.test"]).replace("kubernetes.io/tls", "Opaque");
    let web = dated(
        "web",
        2026,
        &["a.test"],
        "[{hosts: [a.test], secretName: one}]",
    );
    assert_eq!(
        tls(&translate(&format!("{web}{opaque}{SERVICE}"))),
        ["a.test: one"]
    );
}

#[test]
fn a_secret_that_is_not_of_the_watched_type_is_followed_by_name_until_it_is() {
    let one = ObjectName::new("default", "one");
    let made = index_of(&secret("one", "default", &["a.test"]));
    let made = Arc::clone(&made.objects.secrets.find(&one).unwrap().object);
    let web = |tls: &str| {
        let web = dated("web", 2026, &["a.test"], tls);
        Event::Whole(Box::new(index_of(&format!("{web}{SERVICE}"))))
    };
    let typed = |secret: Option<Secret>| {
        let change = match secret {
            Some(secret) => Change::Applied(one.clone(), Box::new(secret)),
            None => Change::Deleted(one.clone()),
        };
        Event::Changed(Secret::changed(change))
    };
    let by_name = |secret: Option<&Arc<Secret>>| Event::Secret(one.clone(), secret.cloned());
    let mut index = Index::default();
    let mut state = State::new(settings());
    state.follow_secrets_by_name();
    // What happens; how many Secrets are followed then, if others than before; what the update says
    // of the certificate.
    for (event, followed, served) in [
        (web("[{hosts: [a.test], secretName: one}]"), Some(1), None),
        (by_name(None), None, None),
        (by_name(Some(&made)), None, Some(true)),
        (by_name(None), None, Some(false)),
        // It was made again, of the watched type.
        (typed(Some((*made).clone())), Some(0), Some(true)),
        // Said before the watch by name has ended.
        (by_name(Some(&made)), None, None),
        (typed(None), Some(1), Some(false)),
        (by_name(Some(&made)), None, Some(true)),
        // Both watches have it for a moment.
        (typed(Some((*made).clone())), Some(0), None),
        (typed(None), Some(1), Some(false)),
        (by_name(Some(&made)), None, Some(true)),
        (web("[]"), Some(0), Some(false)),
    ] {
        let said = format!("{event:?}");
        let keys = index.apply(event);
        let update = state.apply(&index, keys);
        let named = state.take_named_secrets();
        if let Some(named) = &named {
            index.expect_secrets(named);
        }
        assert_eq!(named.map(|named| named.len()), followed, "{said}");
        let certificates: Vec<_> = update
            .certificates
            .iter()
            .map(|(_, is)| is.is_some())
            .collect();
        assert_eq!(certificates, Vec::from_iter(served), "{said}");
    }
}

/// A cluster where `one` is of the watched type, `two` has to be followed by name, and `three` is not
/// there.
struct Cluster {
    index: Index,
    state: State,
    proxy: Update,
    certificates: BTreeMap<&'static str, Arc<Secret>>,
}

impl Cluster {
    /// With an Ingress for `a.test` and `b.test` that has this TLS section.
    fn new(tls: &str) -> Self {
        let made = |name: &str| {
            let name = ObjectName::new("default", name);
            let made = index_of(&secret(&name.name, "default", &["a.test", "b.test"]));
            Arc::clone(&made.objects.secrets.find(&name).unwrap().object)
        };
        let mut cluster = Self {
            index: Index::default(),
            state: State::new(settings()),
            proxy: Update::default(),
            certificates: ["one", "two"].map(|name| (name, made(name))).into(),
        };
        cluster.state.follow_secrets_by_name();
        cluster.index.objects.mark_listed();
        cluster.typed("one", true);
        cluster.web(tls);
        cluster
    }

    fn see(&mut self, event: Event) {
        let keys = self.index.apply(event);
        self.look(keys);
    }

    fn look(&mut self, keys: BTreeSet<Key>) {
        let update = self.state.apply(&self.index, keys);
        let touched = self.state.take_touched_secrets();
        let is_named = |name: &ObjectName| self.state.serves_secret(name);
        self.index.settle_secrets(&touched, Some(&is_named));
        if let Some(named) = self.state.take_named_secrets() {
            self.index.expect_secrets(&named);
        }
        take(&mut self.proxy, &update);
        let (proxy, whole) = (sorted(&self.proxy), sorted(&self.state.whole()));
        assert_eq!(proxy.certificates, whole.certificates);
        assert_eq!(proxy.hosts, whole.hosts);
    }

    fn web(&mut self, tls: &str) {
        let web = index_of(&dated("web", 2026, &["a.test", "b.test"], tls));
        let name = ObjectName::new("default", "web");
        let web = (*web.objects.ingresses.find(&name).unwrap().object).clone();
        let change = Change::Applied(name, Box::new(web));
        self.see(Event::Changed(Kind::changed(change)));
    }

    fn typed(&mut self, name: &'static str, is_there: bool) {
        let of = ObjectName::new("default", name);
        let change = if is_there {
            Change::Applied(of, Box::new((*self.certificates[name]).clone()))
        } else {
            Change::Deleted(of)
        };
        self.see(Event::Changed(Secret::changed(change)));
    }

    fn by_name(&mut self, name: &'static str, is_there: bool) {
        let secret = is_there.then(|| Arc::clone(&self.certificates[name]));
        self.see(Event::Secret(ObjectName::new("default", name), secret));
    }

    /// Of `a.test` and `b.test`.
    fn served(&self) -> [String; 2] {
        let hosts = sorted(&self.proxy).hosts;
        let mut served = hosts.iter().map(|(_, rules)| {
            let secret = rules.as_ref().unwrap().policy.certificate.as_ref();
            let known = |secret: &&ObjectName| {
                let mut certificates = self.proxy.certificates.iter();
                certificates.any(|(name, _)| name == *secret)
            };
            let name = secret.filter(known).map(|secret| secret.name.clone());
            name.unwrap_or_else(|| "-".to_owned())
        });
        [served.next().unwrap(), served.next().unwrap()]
    }

    fn problems(&self) -> Vec<String> {
        let problems = self.state.book().lock().unwrap().all();
        let problems = problems.iter().map(ToString::to_string);
        problems.filter(|it| it.contains("Secret")).collect()
    }
}

#[test]
fn a_host_keeps_its_certificate_until_the_first_answer_for_the_secret_that_follows() {
    for (before, after) in [
        (
            "[{hosts: [a.test, b.test], secretName: one}]",
            "[{hosts: [a.test, b.test], secretName: two}]",
        ),
        ("[{secretName: one}]", "[{secretName: two}]"),
        // Found by its names.
        (
            "[{hosts: [b.test], secretName: one}]",
            "[{hosts: [b.test], secretName: two}]",
        ),
    ] {
        for (is_there, then) in [(true, "two"), (false, "-")] {
            let mut cluster = Cluster::new(before);
            assert_eq!(cluster.served(), ["one", "one"], "{before}");
            cluster.web(after);
            assert_eq!(cluster.served(), ["one", "one"], "{after}");
            let problems = cluster.problems();
            let unread = "Secret default/two: has not been read yet; the certificate that was served before stays";
            assert!(
                !problems.is_empty() && problems.iter().all(|it| it.contains(unread)),
                "{problems:?}"
            );
            // A change of something else in between.
            cluster.see(Event::Changed(Kind::changed(Change::Applied(
                ObjectName::new("default", "s"),
                Box::<k8s_openapi::api::core::v1::Service>::default(),
            ))));
            cluster.by_name("two", is_there);
            assert_eq!(cluster.served(), [then, then], "{after}");
            let certificates = cluster.proxy.certificates.iter();
            let certificates: Vec<_> = certificates.map(|(name, _)| &*name.name).collect();
            assert_eq!(certificates, is_there.then_some("two").as_slice());
            let problems = cluster.problems();
            assert_eq!(problems.is_empty(), is_there, "{problems:?}");
            assert!(
                !problems.iter().any(|it| it.contains("yet")),
                "{problems:?}"
            );
        }
    }
}

#[test]
fn a_host_keeps_its_certificate_no_longer_than_it_is_the_same_and_only_for_its_own_namespace() {
    let (one, two) = ("[{secretName: one}]", "[{secretName: two}]");
    // It is taken back.
    let mut cluster = Cluster::new(one);
    cluster.web(two);
    cluster.typed("one", false);
    assert_eq!(cluster.served(), ["-", "-"]);
    assert_eq!(cluster.proxy.certificates, []);
    // There is nothing to wait for.
    let mut cluster = Cluster::new(one);
    cluster.web("[{hosts: [a.test]}]");
    assert_eq!(cluster.served(), ["-", "-"]);
    assert_eq!(cluster.proxy.certificates, []);
    // The Ingress is deleted meanwhile.
    let mut cluster = Cluster::new(one);
    cluster.web(two);
    let web = ObjectName::new("default", "web");
    cluster.see(Event::Changed(Ingress::changed(Change::Deleted(
        web.clone(),
    ))));
    assert_eq!(
        (&*cluster.proxy.certificates, &*cluster.proxy.hosts),
        (&[][..], &[][..])
    );
    // From one Secret by name to another: the first is looked at no longer.
    let mut cluster = Cluster::new(two);
    cluster.by_name("two", true);
    assert_eq!(cluster.served(), ["two", "two"]);
    cluster.web("[{secretName: three}]");
    assert_eq!(cluster.served(), ["two", "two"]);
    cluster.web("[{secretName: two}]");
    assert_eq!(cluster.served(), ["two", "two"]);
    // The host goes to a younger Ingress of another namespace.
    let mut cluster = Cluster::new(one);
    let other = dated("web", 2027, &["a.test", "b.test"], two);
    let other = other.replace("{name: web,", "{name: web, namespace: other,");
    let name = ObjectName::new("other", "web");
    let other = index_of(&other)
        .objects
        .ingresses
        .find(&name)
        .unwrap()
        .clone();
    let taken = Change::Applied(name, Box::new((*other.object).clone()));
    let mut keys = cluster.index.apply(Event::Changed(Kind::changed(taken)));
    keys.extend(
        cluster
            .index
            .apply(Event::Changed(Ingress::changed(Change::Deleted(web)))),
    );
    cluster.look(keys);
    assert_eq!(cluster.served(), ["-", "-"]);
    assert_eq!(cluster.proxy.certificates, []);
}

#[test]
fn a_namespace_has_room_for_so_many_certificates_and_those_in_force_keep_theirs() {
    let both = "[{hosts: [a.test], secretName: one}, {hosts: [b.test], secretName: two}]";
    let size = |cluster: &Cluster, name| shelf::size(&cluster.certificates[name]);
    let mut cluster = Cluster::new("[]");
    let limit = size(&cluster, "one") + size(&cluster, "two") - 1;
    cluster.state.certificate_rooms = Rooms::new(limit);
    cluster.typed("two", true);
    cluster.web("[{hosts: [b.test], secretName: two}]");
    assert_eq!(cluster.served(), ["two", "two"]);
    cluster.web(both);
    assert_eq!(cluster.served(), ["-", "two"]);
    let problems = cluster.problems();
    let says = |it: &String| it.contains("the certificates of its namespace have");
    assert!(problems.iter().any(says), "{problems:?}");
    // Another of its size takes its place, and it is there again.
    cluster.typed("two", false);
    cluster.typed("two", true);
    assert_eq!(cluster.served(), ["one", "-"], "the first to come");
    // What is there stays if what follows is larger.
    cluster.state.certificate_rooms = Rooms::new(0);
    let mut larger = (*cluster.certificates["one"]).clone();
    let chain = larger.data.as_mut().unwrap().get_mut("tls.crt").unwrap();
    chain.0.push(b'\n');
    let change = Change::Applied(ObjectName::new("default", "one"), Box::new(larger));
    cluster.see(Event::Changed(Secret::changed(change)));
    assert_eq!(cluster.served(), ["one", "-"]);
    cluster.state.certificate_rooms = Rooms::new(limit);
    // Room that is left is taken at once.
    cluster.web("[{hosts: [b.test], secretName: two}]");
    cluster.typed("one", false);
    assert_eq!(cluster.served(), ["two", "two"]);
    assert_eq!(cluster.problems(), Vec::<String>::new());
}

#[test]
fn six_thousand_certificates_of_a_namespace_are_served_and_there_at_the_start() {
    const SIZE: usize = 6 * 1024;
    let (mut shelf, mut rooms) = (shelf::Shelf::default(), Rooms::new(room::CERTIFICATES));
    for number in 0..6000 {
        let name = ObjectName::new("default", number.to_string());
        assert!(shelf.place(&name, SIZE, shelf::UNKNOWN), "{number}");
        assert!(rooms.fits("default", 0, SIZE), "{number}");
        rooms.change("default", 0, SIZE);
    }
}

#[test]
fn a_host_keeps_its_certificate_while_the_next_is_read_whatever_else_its_namespace_names() {
    let mut cluster = Cluster::new("[{hosts: [a.test, b.test], secretName: one}]");
    let missing = |number: usize| format!("{{secretName: a{number:04}}}");
    let missing: Vec<_> = (0..2 * named::LIMIT).map(missing).collect();
    let missing = index_of(&dated(
        "many",
        2027,
        &["m.test"],
        &format!("[{}]", missing.join(", ")),
    ));
    let name = ObjectName::new("default", "many");
    let many = (*missing.objects.ingresses.find(&name).unwrap().object).clone();
    cluster.see(Event::Changed(Kind::changed(Change::Applied(
        name,
        Box::new(many),
    ))));
    assert_eq!(cluster.state.named_secrets().count(), named::LIMIT);
    // More Secrets than are read at a time, of which only the names are kept.
    let bare = shelf::bare(&cluster.certificates["two"]);
    let others: Vec<_> = (0..named::READS)
        .map(|number| format!("b{number:04}"))
        .collect();
    for name in others.iter().map(String::as_str).chain(["two"]) {
        let change = Change::Applied(ObjectName::new("default", name), Box::new(bare.clone()));
        cluster.see(Event::Changed(Secret::changed(change)));
    }
    let also = others
        .iter()
        .map(|name| format!(", {{secretName: {name}}}"));
    let also: String = also.collect();
    cluster.web(&format!(
        "[{{hosts: [a.test, b.test], secretName: two}}{also}]"
    ));
    assert_eq!(cluster.served(), ["one", "one"]);
    let two = ObjectName::new("default", "two");
    assert_eq!(
        cluster.state.named_secrets().count(),
        named::LIMIT + named::READS
    );
    assert!(
        !cluster.state.named_secrets().any(|name| *name == two),
        "it waits"
    );
    let gone = Change::<Secret>::Deleted(ObjectName::new("default", "b0000"));
    cluster.see(Event::Changed(Secret::changed(gone)));
    assert!(cluster.state.named_secrets().any(|name| *name == two));
    assert_eq!(cluster.served(), ["one", "one"]);
    cluster.by_name("two", true);
    assert_eq!(cluster.served(), ["two", "two"]);
}

/// Bytes of all Secrets of the watched type that are kept.
fn kept(cluster: &Cluster) -> usize {
    let secrets = cluster.index.objects.secrets.iter();
    secrets.map(|(_, item)| shelf::size(&item.object)).sum()
}

#[test]
fn of_secrets_that_nobody_names_little_is_kept_and_one_is_read_once_it_is_named() {
    let one = ObjectName::new("default", "one");
    let mut cluster = Cluster::new("[]");
    cluster.typed("one", false);
    for number in 0..40 {
        let entry = k8s_openapi::ByteString(vec![b'x'; shelf::SPARE / 4]);
        let secret = Secret {
            data: Some([("tls.crt".to_owned(), entry)].into()),
            ..Secret::default()
        };
        let name = ObjectName::new("default", format!("f{number}"));
        let change = Change::Applied(name, Box::new(secret));
        cluster.see(Event::Changed(Secret::changed(change)));
    }
    cluster.typed("one", true);
    assert_eq!(kept(&cluster), shelf::SPARE);
    assert_eq!(cluster.index.bare_secrets(), 37);
    for _ in 0..2 {
        cluster.web("[{secretName: one}]");
        assert_eq!(cluster.served(), ["-", "-"]);
        assert!(cluster.state.named_secrets().eq([&one]));
        assert!(
            cluster
                .problems()
                .iter()
                .all(|it| it.contains("not been read yet"))
        );
        cluster.by_name("one", true);
        assert_eq!(cluster.served(), ["one", "one"]);
        assert_eq!(cluster.problems(), Vec::<String>::new());
        assert_eq!(cluster.state.named_secrets().count(), 0, "the watch has it");
        assert!(kept(&cluster) > shelf::SPARE, "somebody names it");
        cluster.web("[]");
        assert_eq!(kept(&cluster), shelf::SPARE);
    }
    // There is room once others are gone.
    for number in 0..40 {
        let gone = Change::<Secret>::Deleted(ObjectName::new("default", format!("f{number}")));
        cluster.see(Event::Changed(Secret::changed(gone)));
    }
    cluster.typed("one", true);
    cluster.web("[{secretName: one}]");
    assert_eq!(cluster.served(), ["one", "one"]);
    assert_eq!(cluster.index.bare_secrets(), 0);
}

#[test]
fn a_certificate_in_force_stays_while_a_list_has_no_room_for_its_secret() {
    let tls = "[{secretName: one}]";
    let one = ObjectName::new("default", "one");
    let mut cluster = Cluster::new(tls);
    let bare = shelf::bare(&cluster.certificates["one"]);
    let listed = |name: &str| {
        let name = ObjectName::new("default", name);
        let list = Change::Listed(vec![(name, Ok(bare.clone()))]);
        Event::Changed(Secret::changed(list))
    };
    cluster.see(listed("one"));
    assert_eq!(cluster.served(), ["one", "one"]);
    assert!(cluster.state.named_secrets().eq([&one]));
    // Nothing was said of it in time.
    let given_up = cluster.index.give_up_secrets(cluster.index.expected());
    cluster.look(given_up.into_iter().collect());
    assert_eq!(cluster.served(), ["one", "one"]);
    cluster.by_name("one", true);
    assert_eq!(cluster.served(), ["one", "one"]);
    assert_eq!(cluster.state.named_secrets().count(), 0);
    cluster.see(listed("other"));
    assert_eq!(cluster.served(), ["-", "-"], "it is gone");
}

#[test]
fn a_secret_whose_first_answer_cannot_be_read_keeps_the_certificate_that_it_had() {
    let two = "[{secretName: two}]";
    for (uid, then) in [(None, "two"), (Some("another"), "-")] {
        let mut cluster = Cluster::new(two);
        cluster.by_name("two", true);
        // It is followed no longer, and then again.
        cluster.web("[{secretName: three}]");
        cluster.web(two);
        let unread = Unread {
            uid: uid.map(Into::into),
            error: "cannot be read".into(),
            ..Unread::default()
        };
        cluster.see(Event::UnreadSecret(
            ObjectName::new("default", "two"),
            unread,
        ));
        assert_eq!(cluster.served(), [then, then], "{uid:?}");
        let stays = |it: &String| it.ends_with("its last good version stays in force");
        assert_eq!(cluster.problems().iter().any(stays), then == "two");
    }
}

#[test]
fn a_younger_ingress_has_no_say_while_an_older_ones_secret_was_not_read_yet() {
    let mut cluster = Cluster::new("[{hosts: [elsewhere.test], secretName: two}]");
    let younger = dated(
        "younger",
        2027,
        &["a.test", "b.test"],
        "[{secretName: one}]",
    );
    let name = ObjectName::new("default", "younger");
    let younger = index_of(&younger)
        .objects
        .ingresses
        .find(&name)
        .unwrap()
        .clone();
    let change = Change::Applied(name, Box::new((*younger.object).clone()));
    cluster.see(Event::Changed(Kind::changed(change)));
    assert_eq!(cluster.served(), ["-", "-"]);
}

#[test]
fn a_secret_that_cannot_be_read_keeps_its_certificate_and_is_named() {
    let unread = |uid: Option<&str>| Unread {
        uid: uid.map(Into::into),
        error: "cannot be read".into(),
        ..Unread::default()
    };
    let stays = ": cannot be read; its last good version stays in force";
    let gone = ": cannot be read; it is not served; there is no earlier version";
    let unserved = ": cannot be read; the default certificate is used";
    let (one, two) = ["one", "two"]
        .map(|name| ObjectName::new("default", name))
        .into();
    let typed = |uid| Event::Changed(Secret::changed(Change::Unread(one.clone(), unread(uid))));
    let by_name = |uid| Event::UnreadSecret(two.clone(), unread(uid));
    for name in ["one", "two"] {
        let mut cluster = Cluster::new(&format!("[{{secretName: {name}}}]"));
        if name == "two" {
            cluster.by_name("two", true);
        }
        let event = |uid| {
            if name == "one" {
                typed(uid)
            } else {
                by_name(uid)
            }
        };
        assert_eq!(
            (cluster.served(), cluster.problems()),
            ([name, name].map(str::to_owned), vec![])
        );
        cluster.see(event(None));
        assert_eq!(cluster.served(), [name, name]);
        let said = cluster.problems();
        assert!(
            said.len() == 1 && said[0].ends_with(&format!("{name}{stays}")),
            "{said:?}"
        );
        // It is another one.
        cluster.see(event(Some("9")));
        assert_eq!(cluster.served(), ["-", "-"]);
        let said = cluster.problems();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said.iter().any(|it| it.ends_with(&format!("{name}{gone}"))),
            "{said:?}"
        );
        assert!(
            said.iter()
                .any(|it| it.ends_with(&format!("{name}{unserved}"))),
            "{said:?}"
        );
        let followed = cluster.state.named_secrets().count();
        assert_eq!(followed, usize::from(name == "two"));
        match name {
            "one" => cluster.typed("one", true),
            _ => cluster.by_name("two", true),
        }
        assert_eq!(
            (cluster.served(), cluster.problems()),
            ([name, name].map(str::to_owned), vec![])
        );
    }
}

/// An Ingress of a namespace that names as many Secrets, and has a rule for the host of the last.
fn naming(namespace: &str, count: usize) -> String {
    let entry =
        |number| format!("{{hosts: [h{number}.{namespace}.test], secretName: s{number:04}}}");
    let entries: Vec<_> = (0..count).map(entry).collect();
    let host = format!("h{}.{namespace}.test", count - 1);
    let web = dated(
        namespace,
        2026,
        &[&*host],
        &format!("[{}]", entries.join(", ")),
    );
    web.replace(
        "metadata: {",
        &format!("metadata: {{namespace: {namespace}, "),
    )
}

#[test]
fn a_secret_that_loses_its_room_is_served_no_longer() {
    let last = ObjectName::new("greedy", "s0255");
    let made = index_of(&secret("s0255", "greedy", &["h255.greedy.test"]));
    let made = Arc::clone(&made.objects.secrets.find(&last).unwrap().object);
    let greedy = naming("greedy", 256);
    let both = format!("{greedy}{}", naming("modest", 1));
    let whole = |text: &str| Event::Whole(Box::new(index_of(text)));
    let mut index = Index::default();
    let mut state = State::new(settings());
    state.follow_secrets_by_name();
    for (event, served) in [
        (whole(&greedy), None),
        (Event::Secret(last.clone(), Some(made)), Some(true)),
        (whole(&both), Some(false)),
    ] {
        let keys = index.apply(event);
        let update = state.apply(&index, keys);
        if let Some(named) = state.take_named_secrets() {
            index.expect_secrets(&named);
        }
        let mut certificates = update.certificates.iter();
        let said = certificates.find(|(name, _)| *name == last);
        assert_eq!(said.map(|(_, is)| is.is_some()), served);
    }
}

#[test]
fn of_a_secret_that_loses_its_room_nothing_is_said_but_that() {
    let last = ObjectName::new("greedy", "s0255");
    let unread = Unread {
        uid: None,
        error: "cannot be read".into(),
        ..Unread::default()
    };
    let greedy = naming("greedy", 256);
    let both = format!("{greedy}{}", naming("modest", 1));
    let mut index = Index::default();
    let mut state = State::new(settings());
    state.follow_secrets_by_name();
    for (event, says) in [
        (Event::Whole(Box::new(index_of(&greedy))), false),
        (Event::UnreadSecret(last, unread), true),
        (Event::Whole(Box::new(index_of(&both))), false),
    ] {
        let keys = index.apply(event);
        state.apply(&index, keys);
        if let Some(named) = state.take_named_secrets() {
            index.expect_secrets(&named);
        }
        let problems = state.book().lock().unwrap().all();
        let mut problems = problems.iter().map(ToString::to_string);
        assert_eq!(problems.any(|it| it.contains("cannot be read")), says);
    }
}

#[test]
fn an_ingress_says_which_secret_there_was_no_room_to_follow() {
    let mut index = Index::default();
    let mut state = State::new(settings());
    state.follow_secrets_by_name();
    let mut problems = |text: String| {
        let keys = index.apply(Event::Whole(Box::new(index_of(&text))));
        state.apply(&index, keys);
        let problems = state.book().lock().unwrap().all();
        let problems = problems.iter().map(ToString::to_string);
        problems
            .filter(|problem| problem.contains("Secret"))
            .collect::<Vec<_>>()
    };
    let full = "is not of type kubernetes.io/tls, and Forebay already follows 256 such Secrets";
    let last = |problems: &[String]| {
        let [problem] = problems else {
            panic!("{problems:?}")
        };
        assert!(problem.contains("Secret greedy/s0255"), "{problem}");
        problem.contains(full)
    };
    let greedy = naming("greedy", 256);
    assert!(!last(&problems(greedy.clone())));
    // Another namespace has its turn.
    let both = problems(format!("{greedy}{}", naming("modest", 1)));
    let (theirs, own): (Vec<_>, Vec<_>) = both.into_iter().partition(|it| it.contains("greedy"));
    assert!(last(&theirs));
    assert!(
        own[0].contains("Secret modest/s0000: has not been read yet"),
        "{own:?}"
    );
    assert!(!last(&problems(greedy)));
}

#[test]
fn a_private_key_is_in_no_debug_output() {
    let one = secret("one", "default", &["a.test"]);
    let web = dated("web", 2026, &["a.test"], "[{secretName: one}]");
    let view = translate(&format!("{web}{one}{SERVICE}"));
    assert_eq!(view.update.certificates.len(), 1);
    for debug in [
        format!("{:?}", view.update),
        format!("{:?}", view.state),
        format!("{:?}", view.state.whole()),
    ] {
        assert!(debug.contains("[redacted]") || !debug.contains("Certificate {"));
        assert!(!debug.contains("PRIVATE KEY"));
    }
}

#[test]
fn a_default_backend_serves_a_host_only_of_the_first_ingress_that_names_it() {
    let with_default = |name: &str, year: u32| {
        dated(name, year, &["a.test"], "[]").replace(
            "spec: {",
            "spec: {defaultBackend: {service: {name: s, port: {number: 80}}}, ",
        )
    };
    let of_host = |text: String| {
        let view = translate(&format!("{text}{SERVICE}"));
        let lines = lines(&view);
        let fallback = lines
            .iter()
            .find(|line| line.contains("a.test / ") && line.ends_with("(default)"));
        fallback.map(|line| line.split(' ').next().unwrap().to_owned())
    };
    let plain = |name: &str, year: u32| dated(name, year, &["a.test"], "[]");
    for (older, younger, expected) in [
        (with_default("old", 2020), plain("young", 2026), Some("old")),
        (plain("old", 2020), with_default("young", 2026), None),
        (
            with_default("old", 2020),
            with_default("young", 2026),
            Some("old"),
        ),
    ] {
        assert_eq!(of_host(format!("{younger}{older}")).as_deref(), expected);
    }
}

#[test]
fn a_host_whose_rules_are_all_refused_stays_with_its_ingress() {
    let text = dated("web", 2020, &["admin.shop.test"], "[]").replace("path: /web", "path: web");
    let view = translate(&format!("{text}{SERVICE}"));
    let hosts: Vec<_> = view
        .hosts()
        .map(|(host, rules)| (host.to_string(), rules.rules.len()))
        .collect();
    assert_eq!(hosts, [("admin.shop.test".to_owned(), 0)]);
}

#[test]
fn a_rule_that_is_ignored_does_not_turn_its_host_into_regex_mode() {
    let annotated = |text: String| {
        let (head, rest) = text.split_once("creationTimestamp").unwrap();
        format!(
            "{head}annotations: {{nginx.ingress.kubernetes.io/rewrite-target: /$1}}, creationTimestamp{rest}"
        )
    };
    for (path, regex_mode) in [("/old", false), ("/other", true)] {
        let old = dated("old", 2020, &["a.test"], "[]");
        let young = annotated(dated("young", 2026, &["a.test"], "[]"))
            .replace("path: /young", &format!("path: {path}"));
        let view = translate(&format!("{old}{young}{SERVICE}"));
        let regexes = view
            .rules()
            .iter()
            .filter(|(_, rule, _)| rule.regex.is_some())
            .count();
        assert_eq!(regexes > 0, regex_mode, "{path}");
    }
}

#[test]
fn regexes_have_room_for_everyday_use_and_no_more() {
    let paths: Vec<_> = (0..4000)
        .map(|number| {
            format!("{{path: '/{number}/.{{0,500}}', pathType: ImplementationSpecific, {TO_S}}}")
        })
        .collect();
    let text = ingress(
        "hog",
        &format!(
            "{{rules: [{{host: a.test, http: {{paths: [{}]}}}}]}}",
            paths.join(", ")
        ),
    )
    .replace(
        "{name: hog}",
        "{name: hog, annotations: {nginx.ingress.kubernetes.io/use-regex: 'true'}}",
    );
    let (index, keys) = read(&format!("{text}{SERVICE}"));
    let mut state = State::new(settings());
    state.apply(&index, keys.clone());
    let problems = state.book().lock().unwrap().all();
    let refused = problems
        .iter()
        .filter(|problem| problem.message.contains("take more than 16 MiB"))
        .count();
    assert!(refused > 0 && refused < 4000, "{refused}");
    // What is gone gives its room back.
    let (empty, _) = read(SERVICE);
    state.apply(&empty, keys.clone());
    state.apply(&index, keys);
    let again = state.book().lock().unwrap().all();
    assert_eq!(problems.len(), again.len());
}

/// An Ingress whose `paths` are regexes.
fn of_regexes(name: &str, host: &str, paths: impl Iterator<Item = String>) -> String {
    let path = |path| format!("{{path: '{path}', pathType: ImplementationSpecific, {TO_S}}}");
    let paths: Vec<_> = paths.map(path).collect();
    let spec = format!(
        "{{rules: [{{host: {host}, http: {{paths: [{}]}}}}]}}",
        paths.join(", ")
    );
    ingress(name, &spec).replace(
        &format!("{{name: {name}}}"),
        &format!(
            "{{name: {name}, annotations: {{nginx.ingress.kubernetes.io/use-regex: 'true'}}}}"
        ),
    )
}

#[test]
fn one_ingress_leaves_room_for_the_regexes_of_others_in_its_namespace() {
    let hog = of_regexes(
        "hog",
        "a.test",
        (0..2000).map(|number| format!("/{number}/.{{0,500}}")),
    );
    let late = of_regexes("late", "b.test", ["/late/.{0,500}".to_owned()].into_iter());
    let view = translate(&format!("{SERVICE}{late}{hog}"));
    let rules = view.rules();
    assert!(rules.iter().any(|(host, ..)| host.to_string() == "b.test"));
    let refused = problems(&view);
    let expected = "the regexes of Ingress default/hog take more than 16 MiB";
    assert!(refused.iter().any(|problem| problem.contains(expected)));
    assert!(refused.iter().all(|problem| !problem.contains("late")));
}

/// So many regexes in two Ingresses that nothing else fits into their namespace.
fn two_hogs() -> String {
    let hog = |name: &str, host: &str| {
        let paths = (0..2000).map(|number| format!("/{name}/{number}/.{{0,500}}"));
        of_regexes(name, host, paths)
    };
    format!("{}{}", hog("hog", "a.test"), hog("hug", "aa.test"))
}

#[test]
fn a_host_that_found_no_room_for_its_regexes_is_served_once_there_is_some() {
    let hog = two_hogs();
    let late = of_regexes("late", "b.test", ["/late/.{0,500}".to_owned()].into_iter());
    let mut index = Index::default();
    let mut state = State::new(settings());
    let mut apply = |text: &str| {
        let keys = index.apply(Event::Whole(Box::new(index_of(text))));
        state.apply(&index, keys)
    };
    let rules = |update: &Update| -> Vec<usize> {
        let hosts = update.hosts.iter().filter_map(|(_, rules)| rules.as_ref());
        hosts.map(|rules| rules.rules.len()).collect()
    };
    let all = format!("{SERVICE}{late}{hog}");
    let first = apply(&all);
    assert!(rules(&first).contains(&0), "{:?}", rules(&first));
    let second = apply(&format!("{SERVICE}{late}"));
    drop(first);
    // A proxy drops the old rules after it has the new ones.
    assert_eq!(rules(&second), [0; 0]);
    let third = apply(&format!(
        "{SERVICE}{late}{}",
        dated("other", 2020, &["c.test"], "[]")
    ));
    assert_eq!(rules(&third), [1, 1]);
}

#[test]
fn a_path_that_was_compared_as_text_for_want_of_room_is_a_regex_once_there_is_some() {
    let hog = two_hogs();
    let guest = of_regexes("guest", "b.test", ["/guest/[0-9]+".to_owned()].into_iter())
        .replace("{name: guest, ", "{name: guest, namespace: guest, ");
    let owner =
        dated("owner", 2020, &["b.test"], "[]").replace("path: /owner", "path: '/owner/.{0,500}'");
    let mut index = Index::default();
    let mut state = State::new(settings());
    let mut apply = |text: &str| {
        let keys = index.apply(Event::Whole(Box::new(index_of(text))));
        state.apply(&index, keys)
    };
    let matches = |update: &Update| {
        let hosts = update.hosts.iter().filter_map(|(_, rules)| rules.as_ref());
        let rule = hosts
            .flat_map(|rules| &rules.rules)
            .find(|rule| rule.source.name.name == "owner")?;
        Some(rule.regex.as_ref()?.is_match(b"/owner/x"))
    };
    let first = apply(&format!("{SERVICE}{guest}{owner}{hog}"));
    assert_eq!(matches(&first), Some(false));
    drop(first);
    let second = apply(&format!("{SERVICE}{guest}{owner}"));
    assert_eq!(matches(&second), Some(true));
}

#[test]
fn both_hear_of_paths_that_another_namespace_adds_to_a_host() {
    let owner = dated("owner", 2020, &["a.test"], "[]");
    let guest = |namespace: &str, path: &str, annotation: &str| {
        let text = dated("guest", 2025, &["a.test"], "[]");
        let text = text.replace("path: /guest", &format!("path: '{path}'"));
        let head =
            format!("namespace: {namespace}, annotations: {{{annotation}}}, creationTimestamp");
        text.replacen("creationTimestamp", &head, 1)
    };
    let regex = "nginx.ingress.kubernetes.io/use-regex: 'true'";
    let added = "Ingress evil/guest: spec.rules: host a.test belongs to Ingress default/owner, which is older and in \
                 another namespace; paths are added to it";
    let regexes = "Ingress default/owner: spec.rules: Ingress evil/guest, of another namespace, makes all paths of host \
                   a.test regexes: they are compared as prefixes, without regard to case";
    for (guest, expected) in [
        (guest("evil", "/guest", ""), &[added][..]),
        (guest("evil", "/guest", regex), &[regexes, added]),
        (guest("default", "/guest", regex), &[]),
        (guest("evil", "/owner", regex), &[]),
    ] {
        let view = translate(&format!("{owner}{guest}{SERVICE}"));
        let said = problems(&view);
        for text in [added, regexes] {
            let is_said = said.iter().any(|problem| problem.ends_with(text));
            assert_eq!(is_said, expected.contains(&text), "{guest}: {said:#?}");
        }
    }
}

#[test]
fn whoever_turns_a_host_into_regex_mode_takes_no_room_from_its_owner() {
    let paths: Vec<_> = (0..9000)
        .map(|number| format!("{{path: '/page/{number}', pathType: Prefix, {TO_S}}}"))
        .collect();
    let owner = ingress(
        "owner",
        &format!(
            "{{rules: [{{host: a.test, http: {{paths: [{}]}}}}]}}",
            paths.join(", ")
        ),
    );
    let guest = of_regexes("guest", "a.test", ["/guest/[0-9]+".to_owned()].into_iter())
        .replace("{name: guest, ", "{name: guest, namespace: guest, ");
    let view = translate(&format!("{owner}{guest}"));
    assert_eq!(view.rules().len(), 9001);
}

#[test]
fn a_path_that_is_no_regex_is_compared_as_text_where_another_ingress_asks_for_regexes() {
    let guest = of_regexes("guest", "a.test", ["/guest/[0-9]+".to_owned()].into_iter())
        .replace("{name: guest, ", "{name: guest, namespace: guest, ");
    for (annotation, served) in [
        ("", true),
        ("nginx.ingress.kubernetes.io/use-regex: 'true'", false),
    ] {
        let owner = dated("owner", 2020, &["a.test"], "[]")
            .replace("path: /owner", "path: '/owner/(v1'")
            .replace(
                "creationTimestamp",
                &format!("annotations: {{{annotation}}}, creationTimestamp"),
            );
        let view = translate(&format!("{owner}{guest}{SERVICE}"));
        let rules = view.rules();
        let rule = rules
            .iter()
            .find(|(_, rule, _)| rule.source.name.name == "owner");
        assert_eq!(rule.is_some(), served, "{annotation}");
        if let Some((_, rule, _)) = rule {
            let regex = rule.regex.as_ref().unwrap();
            assert!(regex.is_match(b"/owner/(v1") && !regex.is_match(b"/owner/"));
        }
        let said = if served {
            "; it is compared as text"
        } else {
            "unclosed group"
        };
        let problems = problems(&view);
        assert!(
            problems.iter().any(|problem| problem.ends_with(said)),
            "{problems:?}"
        );
    }
}

/// An Ingress that has one path on each of so many hosts.
fn sharing(name: &str, year: u32, hosts: usize, path: &str, annotations: &str) -> String {
    let hosts: Vec<_> = (0..hosts).map(|host| format!("h{host}.test")).collect();
    let hosts: Vec<_> = hosts.iter().map(String::as_str).collect();
    dated(name, year, &hosts, "[]")
        .replace(&format!("path: /{name},"), &format!("path: /{path},"))
        .replace(
            "creationTimestamp",
            &format!("annotations: {{{annotations}}}, creationTimestamp"),
        )
}

#[test]
fn an_edit_has_only_those_hosts_ranked_again_whose_rules_it_changes() {
    let many = 300;
    let web = sharing("web", 2020, many, "web", "");
    let edited = web.replacen("path: /web", "path: /other", 1);
    let annotated = sharing(
        "web",
        2020,
        many,
        "web",
        "nginx.ingress.kubernetes.io/use-regex: 'true'",
    );
    let gone = sharing("web", 2020, many - 1, "web", "");
    let tls = web.replace("tls: []", "tls: [{secretName: s}]");
    let also = format!("{web}{}", sharing("also", 2021, 1, "also", ""));
    let mut index = Index::default();
    let mut state = State::new(settings());
    for (text, ranked) in [
        (&web, many),
        (&edited, 1),
        (&web, 1),
        (&also, 2),
        (&web, 1),
        (&annotated, many),
        (&web, many),
        (&gone, 0),
        (&web, 1),
        (&tls, many),
    ] {
        let before = state.ranked;
        let text = format!("{text}{SERVICE}");
        let keys = index.apply(Event::Whole(Box::new(index_of(&text))));
        state.apply(&index, keys);
        assert_eq!(state.ranked - before, ranked, "{text}");
        assert_eq!(
            sorted(&state.whole()).hosts,
            sorted(&translate(&text).update).hosts
        );
    }
}

#[test]
fn a_namespace_has_so_many_rules_and_its_youngest_ingresses_go_without() {
    const LIMIT: usize = 60;
    let auth = "nginx.ingress.kubernetes.io/auth-type: basic";
    let web = |number: u32| sharing(&format!("w{number}"), 2020 + number, 10, "p", "");
    let five: String = (0..5).map(web).collect();
    let eight: String = (0..8).map(web).collect();
    let old = sharing("old", 2019, 10, "old", "");
    let closed = format!("{eight}{}", sharing("closed", 2030, 10, "c", auth));
    let neighbour = dated("other", 2031, &["n.test", "h1.test"], "[]")
        .replace("{name: other,", "{name: other, namespace: quiet,");
    let grown = format!(
        "{}{}",
        sharing("w0", 2020, 55, "p", ""),
        (1..3).map(web).collect::<String>()
    );
    let mut index = Index::default();
    let mut state = State::new(settings());
    state.rule_rooms = Rooms::new(LIMIT);
    let mut proxy = Update::default();
    for (text, refused, closes) in [
        (five.clone(), &[][..], false),
        (eight.clone(), &["w6", "w7"], false),
        (format!("{eight}{neighbour}"), &["w6", "w7"], false),
        (
            format!("{old}{eight}{neighbour}"),
            &["w5", "w6", "w7"],
            false,
        ),
        // What it is to protect could be any path.
        (
            format!("{closed}{neighbour}"),
            &["closed", "w6", "w7"],
            true,
        ),
        (eight.clone(), &["w6", "w7"], false),
        (grown, &["w1", "w2"], false),
        (five, &[], false),
    ] {
        let before = state.ranked;
        let text = format!("{text}{SERVICE}");
        let keys = index.apply(Event::Whole(Box::new(index_of(&text))));
        let update = state.apply(&index, keys);
        take(&mut proxy, &update);
        // Those of the neighbour, and those refused that keep or close a host.
        assert!(
            state.ranked - before <= LIMIT + 2 + 10,
            "{}",
            state.ranked - before
        );
        let problems = state.book().lock().unwrap().all();
        let named: Vec<_> = problems
            .iter()
            .filter(|problem| problem.message.contains("may have 60 rules together"))
            .map(|problem| problem.object.rsplit('/').next().unwrap())
            .collect();
        assert_eq!(named, refused, "{text}");
        let (denied, open) = denied_and_open(&state, "h1.test");
        assert_eq!(!denied.is_empty(), closes, "{denied:?}");
        let has_neighbour = text.contains("quiet");
        // It came later, and in another namespace: closed like all that is younger than who closes.
        let is_open = open.contains(&"quiet/other /other".to_owned());
        assert_eq!(is_open, has_neighbour && !closes, "{open:?}");
        let mut scratch = State::new(settings());
        scratch.rule_rooms = Rooms::new(LIMIT);
        let (fresh, keys) = read(&text);
        scratch.apply(&fresh, keys);
        assert_eq!(
            sorted(&proxy).hosts,
            sorted(&scratch.whole()).hosts,
            "{text}"
        );
        assert_eq!(problems, scratch.book().lock().unwrap().all(), "{text}");
    }
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
            dated("good", 2026, &["good.test"], "[{hosts: [good.test], secretName: one}]"),
            slice("a", "IPv4", "[{addresses: [192.0.2.1]}]", HTTP),
            *CERTIFICATE,
        );
        let bad = serde_json::json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "bad", "creationTimestamp": "2027-01-01T00:00:00Z", "annotations": {key: value}},
            "spec": {
                "tls": [{"hosts": [host], "secretName": secret}, {"hosts": ["good.test"], "secretName": secret}],
                "rules": [
                    {"host": host, "http": {"paths": [
                        {"path": path, "pathType": path_type, "backend": {"service": {"name": service, "port": {"number": port}}}},
                    ]}},
                    {"host": "good.test", "http": {"paths": [
                        {"path": path, "pathType": path_type, "backend": {"service": {"name": service, "port": {"number": port}}}},
                    ]}},
                ],
            },
        });
        let alone = translate(&good);
        let both = translate(&format!("{good}{bad}\n"));
        let others = |view: &View| -> Vec<String> {
            let mut lines = lines(view);
            lines.retain(|line| line.starts_with("good "));
            lines
        };
        prop_assert_eq!(others(&alone), others(&both));
        for (key, endpoints) in &alone.update.endpoints {
            let found = both.update.endpoints.iter().find(|(of, _)| of == key);
            prop_assert_eq!(found.map(|(_, endpoints)| endpoints), Some(endpoints));
        }
        prop_assert!(tls(&both).contains(&"good.test: one".to_owned()));
    }
}

/// One of a few objects, in one of a few versions, or its absence.
fn any_object() -> impl Strategy<Value = (usize, Option<String>)> {
    const NAMES: [&str; 4] = ["one", "two", "three", "four"];
    const HOSTS: [&str; 4] = ["a.test", "b.test", "*.test", ""];
    const ANNOTATIONS: [&str; 5] = [
        "",
        "nginx.ingress.kubernetes.io/rewrite-target: /$1",
        "nginx.ingress.kubernetes.io/auth-tls-secret: default/ca",
        "nginx.ingress.kubernetes.io/auth-url: 'https://auth.test'",
        "nginx.ingress.kubernetes.io/canary: 'true'",
    ];
    let annotated = |text: String, annotation: &str| {
        text.replacen(
            "creationTimestamp",
            &format!("annotations: {{{annotation}}}, creationTimestamp"),
            1,
        )
    };
    let web = (
        0..4_usize,
        2020..2024_u32,
        0..4_usize,
        0..4_usize,
        0..5_usize,
        0..3_usize,
        any::<bool>(),
    )
        .prop_map(move |(name, year, one, two, annotation, tls, default)| {
            let tls = [
                "[]",
                "[{secretName: one}]",
                "[{hosts: [a.test], secretName: two}]",
            ][tls];
            let mut text = dated(NAMES[name], year, &[HOSTS[one], HOSTS[two]], tls);
            if default {
                text = text.replace(
                    "spec: {",
                    "spec: {defaultBackend: {service: {name: s, port: {number: 80}}}, ",
                );
            }
            // All claim one path on each host.
            let text = text.replace(&format!("path: /{}", NAMES[name]), "path: /p");
            (name, Some(annotated(text, ANNOTATIONS[annotation])))
        });
    let service = any::<bool>().prop_map(|other| {
        let text = if other {
            SERVICE.replace("port: 80", "port: 81")
        } else {
            SERVICE.to_owned()
        };
        (4, Some(text))
    });
    let slice = (0..2_usize, 1..4_u8, any::<bool>()).prop_map(|(name, last, other)| {
        let endpoints = format!("[{{addresses: [192.0.2.{last}]}}]");
        let text = slice(["left", "right"][name], "IPv4", &endpoints, HTTP);
        (
            5 + name,
            Some(if other {
                text.replace("service-name: s", "service-name: t")
            } else {
                text
            }),
        )
    });
    let secret = (0..2_usize, any::<bool>()).prop_map(|(name, other)| {
        let text = match other {
            false => SECRETS[name].clone(),
            true => SECRETS[2].replace("three", ["one", "two"][name]),
        };
        (7 + name, Some(text))
    });
    let class = any::<bool>().prop_map(|ours| {
        let controller = if ours { "forebay.dev/ingress" } else { "example.com/other" };
        let text = format!(
            "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{name: edge}}\nspec: {{controller: {controller}}}\n---\n"
        );
        (9, Some(text))
    });
    let of_class = (0..2_usize).prop_map(|host| {
        let text = dated("classy", 2019, &[HOSTS[host]], "[]");
        (
            10,
            Some(text.replace("spec: {", "spec: {ingressClassName: edge, ")),
        )
    });
    let gone = (0..11_usize).prop_map(|place| (place, None));
    prop_oneof![4 => web, 1 => service, 2 => slice, 1 => secret, 1 => class, 1 => of_class, 3 => gone]
}

static SECRETS: std::sync::LazyLock<[String; 3]> = std::sync::LazyLock::new(|| {
    [
        secret("one", "default", &["a.test", "*.test"]),
        secret("two", "default", &["a.test"]),
        secret("three", "default", &["b.test"]),
    ]
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Whatever changed and in whatever order, the state is the one that the objects alone give,
    /// and the updates applied one after another come to the same.
    #[test]
    fn changes_applied_one_by_one_equal_a_build_from_scratch(
        steps in prop::collection::vec(prop::collection::vec(any_object(), 1..4), 1..12)
    ) {
        let mut texts = vec![None; 11];
        let mut index = Index::default();
        let mut state = State::new(settings());
        let mut proxy = Update::default();
        let mut decoder = wire::Decoder::default();
        for step in steps {
            for (place, text) in step {
                texts[place] = text;
            }
            let text: String = texts.iter().flatten().map(String::as_str).collect();
            let keys = index.apply(Event::Whole(Box::new(index_of(&text))));
            let update = state.apply(&index, keys);
            // As to a proxy that is another process.
            let sent = decoder.decode(&wire::encode(&update).unwrap()).unwrap();
            prop_assert_eq!(&sent, &update, "{}", text);
            take(&mut proxy, &sent);
            let scratch = translate(&text);
            let whole = sorted(&state.whole());
            let expected = sorted(&scratch.update);
            prop_assert_eq!(&whole.hosts, &expected.hosts, "{}", text);
            prop_assert_eq!(&whole.endpoints, &expected.endpoints, "{}", text);
            prop_assert_eq!(&whole.certificates, &expected.certificates, "{}", text);
            let proxy = sorted(&proxy);
            prop_assert_eq!(&proxy.hosts, &expected.hosts, "{}", text);
            prop_assert_eq!(&proxy.endpoints, &expected.endpoints, "{}", text);
            prop_assert_eq!(&proxy.certificates, &expected.certificates, "{}", text);
            let problems = state.book().lock().unwrap().all();
            prop_assert_eq!(problems, scratch.problems, "{}", text);
            prop_assert_eq!(state.foreign(), scratch.state.foreign());
        }
    }
}

/// Applies an update to a whole state, as a proxy does.
fn take(state: &mut Update, update: &Update) {
    fn merge<K: Clone + PartialEq, V: Clone>(
        state: &mut Vec<(K, Option<V>)>,
        update: &[(K, Option<V>)],
    ) {
        for (key, value) in update {
            state.retain(|(of, _)| of != key);
            if value.is_some() {
                state.push((key.clone(), value.clone()));
            }
        }
    }
    if update.base.is_none() {
        *state = Update::default();
    }
    merge(&mut state.endpoints, &update.endpoints);
    merge(&mut state.certificates, &update.certificates);
    merge(&mut state.hosts, &update.hosts);
}

static CERTIFICATE: std::sync::LazyLock<String> =
    std::sync::LazyLock::new(|| secret("one", "default", &["good.test"]));

/// An Ingress of another namespace, younger than all others, that claims what `good` has: its hosts
/// with its path, its hosts in TLS sections, default backends, and annotations for a whole host.
fn any_intruder() -> impl Strategy<Value = String> {
    const HOSTS: [&str; 5] = ["a.test", "b.test", "", "own.test", "*.test"];
    const TLS: [&str; 6] = [
        "[]",
        "[{secretName: one}]",
        "[{hosts: [a.test]}]",
        "[{hosts: [a.test, b.test], secretName: one}]",
        "[{hosts: ['*.test'], secretName: one}]",
        "[{hosts: ['*.test', 'x y'], secretName: absent}, {secretName: one}]",
    ];
    const ANNOTATIONS: [&str; 8] = [
        "use-regex: 'true'",
        "rewrite-target: /$1",
        "rewrite-target: '/?bad'",
        "auth-tls-secret: evil/ca",
        "server-snippet: 'deny all;'",
        "canary: 'true'",
        "force-ssl-redirect: 'true'",
        "ssl-redirect: 'false'",
    ];
    let kinds = prop_oneof![
        Just("Prefix"),
        Just("Exact"),
        Just("ImplementationSpecific"),
        Just("x")
    ];
    let parts = (
        0..9_u8,
        0..5_usize,
        0..5_usize,
        0..6_usize,
        0..8_usize,
        any::<bool>(),
        kinds,
        "[/p(|.*^\\[]{0,6}",
    );
    parts.prop_map(|(name, one, two, tls, annotation, default, kind, odd)| {
        let name = format!("i{name}");
        let text = dated(&name, 2025, &[HOSTS[one], HOSTS[two]], TLS[tls]);
        // Only what `good` has already, or what cannot be read: other paths may be merged into a host.
        let path = if kind == "Prefix" {
            "/p".to_owned()
        } else {
            format!("'x{odd}'")
        };
        let text = text.replace(&format!("path: /{name}"), &format!("path: {path}"));
        let text = text.replace("pathType: Prefix", &format!("pathType: {kind}"));
        let annotations = format!(
            "annotations: {{nginx.ingress.kubernetes.io/{}}}, namespace: evil, creationTimestamp",
            ANNOTATIONS[annotation]
        );
        let text = text.replacen("creationTimestamp", &annotations, 1);
        if default {
            text.replace(
                "spec: {",
                "spec: {defaultBackend: {service: {name: s, port: {number: 80}}}, ",
            )
        } else {
            text
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    /// Whatever younger Ingresses of another namespace say, the hosts of an older one keep its rules,
    /// its certificate, its redirect and its default backend.
    #[test]
    fn another_tenant_changes_nothing_of_what_an_older_rule_serves(
        intruders in prop::collection::vec(any_intruder(), 1..4),
        tls in 0..3_usize,
        default in any::<bool>(),
    ) {
        let tls = ["[]", "[{secretName: one}]", "[{hosts: [a.test]}]"][tls];
        let mut good = dated("good", 2020, &["a.test", "b.test", ""], tls).replace("path: /good", "path: /p");
        if default {
            good = good.replace("spec: {", "spec: {defaultBackend: {service: {name: s, port: {number: 80}}}, ");
        }
        let base = format!("{good}{}{SERVICE}", SECRETS[0]);
        let theirs = SECRETS[0].replace("\"namespace\":\"default\"", "\"namespace\":\"evil\"");
        let alone = translate_quickly(&base);
        let both = translate_quickly(&format!("{base}{theirs}{}", intruders.concat()));
        let whole = both.whole();
        let sent = wire::Decoder::default().decode(&wire::encode(&whole).unwrap());
        prop_assert_eq!(sent.map_err(|error| error.to_string()), Ok(whole));
        for (host, served) in &alone.hosts {
            let now = both.hosts.get(host).map(|served| &served.rules);
            let now = now.ok_or_else(|| TestCaseError::fail(format!("{host} is gone")))?;
            // A rule that is closed because it cannot be read is another path of the host.
            let theirs = now.rules.iter().filter(|rule| rule.source.name.namespace == "default");
            prop_assert!(theirs.eq(&served.rules.rules), "{}: {:?}", host, now.rules);
            let policy = HostPolicy {
                ignores_wildcard: served.rules.policy.ignores_wildcard,
                ..now.policy.clone()
            };
            prop_assert_eq!(&policy, &served.rules.policy, "{}", host);
            // Or the wildcard's certificate would be theirs.
            let is_above = both.own_tls(&"*.test".parse().unwrap()).is_some();
            let is_below = *host != HostPattern::Any;
            prop_assert_eq!(now.policy.ignores_wildcard, is_above && is_below, "{}", host);
            let ours = &served.rules.fallbacks;
            prop_assert_eq!(now.fallbacks.get(..ours.len()), Some(&ours[..]), "{}", host);
            prop_assert!(*host == HostPattern::Any || now.fallbacks.len() == ours.len(), "{}", host);
        }
    }
}

fn translate_quickly(text: &str) -> State {
    let (index, keys) = read(text);
    let mut state = State::new(settings());
    state.apply(&index, keys);
    state
}

#[test]
fn the_last_good_version_of_an_ingress_outlives_a_time_without_room() {
    let rewrite = |value: &str| format!("nginx.ingress.kubernetes.io/rewrite-target: '{value}'");
    let web = |value| sharing("web", 2020, 10, "p", &rewrite(value));
    let (good, bad) = (web("/x"), web("/x?y=1"));
    let old = sharing("old", 2019, 10, "old", "");
    let mut index = Index::default();
    let mut state = State::new(settings());
    state.rule_rooms = Rooms::new(15);
    for (what, text, served) in [
        ("good", good, "default/web /p"),
        ("bad", bad.clone(), "default/web /p"),
        ("no room", format!("{bad}{old}"), "default/old /old"),
        ("no room", format!("{bad}{old}---\n"), "default/old /old"),
        ("room", bad, "default/web /p"),
    ] {
        let keys = index.apply(Event::Whole(Box::new(index_of(&format!(
            "{text}{SERVICE}"
        )))));
        state.apply(&index, keys);
        assert_eq!(denied_and_open(&state, "h1.test").1, [served], "{what}");
    }
}

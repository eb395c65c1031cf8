//! The rules of the Ingress API and of ingress-nginx, as tables.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::table::{CanonicalHost, CanonicalPath};
use ingress_model::{
    Backend, BackendKey, Endpoint, ObjectName, PathPattern, Policy, RouteAction, RoutePolicy,
    ServicePort, Severity, TlsRedirect,
};

fn rule(ingress: &str, created: i64, host: &str, kind: PathKind, path: &str) -> Route {
    Route {
        ingress: ObjectName::new("default", ingress),
        created,
        origin: Origin::Rule,
        host: host.parse().unwrap(),
        path: PathPattern::new(kind, path).unwrap(),
        backend: BackendKey {
            service: ObjectName::new("default", ingress),
            port: ServicePort::Number(80),
        },
        action: RouteAction::Forward,
        policy: Policy::default(),
    }
}

fn default_backend(ingress: &str, created: i64, host: &str) -> Route {
    Route {
        origin: Origin::DefaultBackend,
        ..rule(ingress, created, host, PathKind::Prefix, "/")
    }
}

fn snapshot(routes: Vec<Route>) -> Snapshot {
    let address: SocketAddr = "198.18.0.1:80".parse().unwrap();
    let backends = routes
        .iter()
        .map(|route| {
            let endpoints = vec![Endpoint { address, pod: None }];
            (
                route.backend.clone(),
                Backend {
                    key: route.backend.clone(),
                    endpoints,
                },
            )
        })
        .collect();
    Snapshot {
        routes,
        backends,
        ..Snapshot::default()
    }
}

fn compile(snapshot: &Snapshot) -> (RouteTable, Vec<Problem>) {
    let mut upstreams = Upstreams::default();
    upstreams.adopt(&snapshot.backends);
    RouteTable::compile(snapshot, &upstreams, &Registry::new(1))
}

/// Name of the Ingress that answers, or `-` for 404.
fn answer(table: &RouteTable, host: &str, path: &str) -> String {
    let (host, path) = (
        CanonicalHost::parse(host).unwrap(),
        CanonicalPath::parse(path).unwrap(),
    );
    table
        .lookup(&host, &path)
        .map_or("-".to_owned(), |entry| entry.route.ingress.name.clone())
}

#[test]
fn path_types_match_as_the_ingress_page_says() {
    use PathKind::{Exact, Prefix};
    for (kind, rule_path, path, matches) in [
        (Prefix, "/", "/anything", true),
        (Prefix, "/", "/", true),
        (Exact, "/foo", "/foo", true),
        (Exact, "/foo", "/bar", false),
        (Exact, "/foo", "/foo/", false),
        (Exact, "/foo/", "/foo", false),
        (Exact, "/foo", "/FOO", false),
        (Prefix, "/foo", "/foo", true),
        (Prefix, "/foo", "/foo/", true),
        (Prefix, "/foo/", "/foo", true),
        (Prefix, "/foo/", "/foo/", true),
        (Prefix, "/aaa/bb", "/aaa/bbb", false),
        (Prefix, "/aaa/bbb", "/aaa/bbb", true),
        (Prefix, "/aaa/bbb/", "/aaa/bbb", true),
        (Prefix, "/aaa/bbb", "/aaa/bbb/", true),
        (Prefix, "/aaa/bbb", "/aaa/bbb/ccc", true),
        (Prefix, "/aaa/bbb", "/aaa/bbbxyz", false),
        (Prefix, "/foo", "/%66oo/x", true),
        (Prefix, "/foo", "//x/..//foo", true),
        (Prefix, "/foo", "/foo%2Fbar", true),
    ] {
        let (table, problems) = compile(&snapshot(vec![rule("web", 0, "a.b", kind, rule_path)]));
        assert_eq!(problems, []);
        assert_eq!(
            answer(&table, "a.b", path) == "web",
            matches,
            "{kind:?} {rule_path} against {path}"
        );
    }
}

#[test]
fn longest_path_wins_then_exact() {
    let (table, _) = compile(&snapshot(vec![
        rule("root", 0, "a.b", PathKind::Prefix, "/"),
        rule("foo", 0, "a.b", PathKind::Prefix, "/foo"),
        rule("foobar", 0, "a.b", PathKind::Prefix, "/foo/bar"),
        rule("exact", 9, "a.b", PathKind::Exact, "/foo"),
    ]));
    for (path, ingress) in [
        ("/", "root"),
        ("/fo", "root"),
        ("/foo", "exact"),
        ("/foo/", "foo"),
        ("/foo/bar/x", "foobar"),
        ("/foo/barx", "foo"),
    ] {
        assert_eq!(answer(&table, "a.b", path), ingress, "{path}");
    }
}

#[test]
fn a_path_of_many_segments_is_hashed_once() {
    use super::super::lookup::HASHED_BYTES;
    let deep = "/a".repeat(2000);
    let routes = vec![
        rule("deep", 0, "a.b", PathKind::Prefix, &deep),
        rule("root", 0, "a.b", PathKind::Prefix, "/"),
    ];
    let (table, _) = compile(&snapshot(routes));
    for (path, found) in [
        ("/a".repeat(15_000), "deep"),
        (format!("{}/b", "/a".repeat(1999)), "root"),
    ] {
        let before = HASHED_BYTES.get();
        assert_eq!(answer(&table, "a.b", &path), found);
        let hashed = HASHED_BYTES.get() - before;
        assert!(
            hashed <= path.len(),
            "{hashed} bytes hashed for a path of {}",
            path.len()
        );
    }
}

#[test]
fn exact_host_goes_before_wildcard_before_none() {
    let (table, _) = compile(&snapshot(vec![
        rule("exact", 0, "a.example.com", PathKind::Prefix, "/x"),
        rule("wildcard", 0, "*.example.com", PathKind::Prefix, "/"),
        rule("any", 0, "", PathKind::Prefix, "/"),
    ]));
    for (host, path, ingress) in [
        ("A.example.com.:8080", "/x", "exact"),
        ("a.example.com", "/y", "-"),
        ("b.example.com", "/x", "wildcard"),
        ("b.b.example.com", "/x", "any"),
        ("example.com", "/x", "any"),
        ("", "/x", "any"),
        ("198.51.100.10", "/x", "any"),
    ] {
        assert_eq!(answer(&table, host, path), ingress, "{host}{path}");
    }
}

#[test]
fn oldest_ingress_keeps_a_path_and_the_other_is_told() {
    let mut routes = vec![
        rule("young", 2, "a.b", PathKind::Prefix, "/x"),
        rule("old", 1, "a.b", PathKind::Prefix, "/x/"),
        rule("young", 2, "a.b", PathKind::Prefix, "/y"),
    ];
    for _ in 0..2 {
        let (table, problems) = compile(&snapshot(routes.clone()));
        assert_eq!(answer(&table, "a.b", "/x"), "old");
        assert_eq!(answer(&table, "a.b", "/y"), "young");
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].object, "Ingress default/young");
        routes.reverse();
    }
}

#[test]
fn a_problem_names_the_rule_and_who_has_its_path() {
    let (_, problems) = compile(&snapshot(vec![
        rule("old", 1, "a.b", PathKind::Prefix, "/x"),
        rule("young", 2, "a.b", PathKind::Prefix, "/x/"),
    ]));
    let expected = Problem {
        severity: Severity::Warning,
        object: "Ingress default/young".to_owned(),
        field: "spec.rules: a.b/x/".to_owned(),
        file: None,
        message:
            "host a.b and path /x/ already belong to Ingress default/old; this rule is ignored"
                .to_owned(),
    };
    assert_eq!(problems, [expected]);
}

#[test]
fn an_entry_knows_its_place_its_counters_and_why_it_is_denied() {
    let mut snapshot = snapshot(vec![
        rule("web", 0, "a.b", PathKind::Prefix, "/"),
        rule("api", 1, "a.b", PathKind::Prefix, "/api"),
        Route {
            action: RouteAction::Deny("not here".into()),
            ..rule("closed", 2, "a.b", PathKind::Prefix, "/closed")
        },
    ]);
    // Ingress `api` goes to the Service of `web`.
    snapshot.routes[1].backend = snapshot.routes[0].backend.clone();
    let (mut upstreams, metrics) = (Upstreams::default(), Registry::new(1));
    upstreams.adopt(&snapshot.backends);
    let (table, _) = RouteTable::compile(&snapshot, &upstreams, &metrics);
    let expected = [
        ("web", "web", None),
        ("api", "web", None),
        ("closed", "closed", Some("not here")),
    ];
    assert_eq!(table.entries().len(), expected.len());
    for (place, (ingress, service, denied)) in expected.into_iter().enumerate() {
        let entry = &table.entries()[place];
        assert_eq!(entry.route.ingress.name, ingress);
        assert_eq!(entry.index(), place, "{ingress}");
        assert_eq!(entry.denied(), denied, "{ingress}");
        let counters = metrics.route(RouteLabels {
            namespace: "default".to_owned(),
            ingress: ingress.to_owned(),
            service: service.to_owned(),
        });
        assert!(Arc::ptr_eq(&entry.counters, &counters), "{ingress}");
    }
}

#[test]
fn default_backend_answers_when_no_rule_does() {
    let mut snapshot = snapshot(vec![
        default_backend("empty", 1, ""),
        default_backend("ready", 2, ""),
        rule("web", 3, "a.b", PathKind::Prefix, "/x"),
        default_backend("web", 3, "a.b"),
        rule("bare", 4, "c.d", PathKind::Prefix, "/x"),
    ]);
    for (key, backend) in &mut snapshot.backends {
        if key.service.name == "empty" {
            backend.endpoints.clear();
        }
    }
    let (table, _) = compile(&snapshot);
    for (host, path, ingress) in [
        ("x.y", "/", "ready"),
        ("a.b", "/x", "web"),
        ("a.b", "/z", "web"),
        ("c.d", "/x", "bare"),
        ("c.d", "/z", "-"),
    ] {
        assert_eq!(answer(&table, host, path), ingress, "{host}{path}");
    }
}

#[test]
fn a_denied_default_backend_needs_no_endpoints_to_answer() {
    let mut snapshot = snapshot(vec![
        Route {
            action: RouteAction::Deny("no".into()),
            ..default_backend("denied", 1, "a.b")
        },
        default_backend("open", 2, "a.b"),
    ]);
    for (key, backend) in &mut snapshot.backends {
        if key.service.name == "denied" {
            backend.endpoints.clear();
        }
    }
    let (table, _) = compile(&snapshot);
    assert_eq!(answer(&table, "a.b", "/"), "denied");
}

#[test]
fn one_rewrite_turns_its_whole_host_into_regexes() {
    let rewrite = |target: &str, route: Route| Route {
        policy: RoutePolicy {
            rewrite_target: Some(target.into()),
            ..RoutePolicy::default()
        }
        .into(),
        ..route
    };
    let (table, problems) = compile(&snapshot(vec![
        rewrite(
            "/",
            rule("s1", 0, "foo.bar.com", PathKind::Prefix, "/foos1"),
        ),
        rewrite(
            "/$2",
            rule("s2", 0, "foo.bar.com", PathKind::Regex, "/bars2(/|$)(.*)"),
        ),
        rule("exact", 0, "foo.bar.com", PathKind::Exact, "/exact"),
        rewrite("/", rule("same", 0, "bar.foo.com", PathKind::Prefix, "/")),
    ]));
    assert_eq!(problems, []);
    for (host, path, ingress, upstream) in [
        ("foo.bar.com", "/foos1", "s1", "/"),
        ("foo.bar.com", "/FOOS1/deep/er", "s1", "/"),
        ("foo.bar.com", "/bars2/a%20b/c", "s2", "/a%20b/c"),
        ("foo.bar.com", "/bars2", "s2", "/"),
        ("foo.bar.com", "/EXACTLY", "exact", "/EXACTLY"),
        ("bar.foo.com", "//x/%7e", "same", "//x/%7e"),
    ] {
        assert_eq!(answer(&table, host, path), ingress, "{host}{path}");
        let canonical = CanonicalPath::parse(path).unwrap();
        let entry = table
            .lookup(&CanonicalHost::parse(host).unwrap(), &canonical)
            .unwrap();
        assert_eq!(
            entry.upstream_path(path, &canonical),
            upstream,
            "{host}{path}"
        );
    }
    assert_eq!(answer(&table, "foo.bar.com", "/other"), "-");
}

#[test]
fn paths_are_matched_and_rewritten_byte_by_byte() {
    let regex = |name: &str, path: &str, target: &str| Route {
        policy: RoutePolicy {
            rewrite_target: Some(target.into()),
            ..RoutePolicy::default()
        }
        .into(),
        ..rule(name, 0, "a.b", PathKind::Regex, path)
    };
    let (table, problems) = compile(&snapshot(vec![
        regex("any", "/s/(.*)", "/$1"),
        regex("named", "/café/(.*)", "/$1"),
        regex("class", "/k/([é])", "/$1"),
        rule("plain", 0, "c.d", PathKind::Prefix, "/café"),
        rule("exact", 0, "c.d", PathKind::Exact, "/thé"),
    ]));
    assert_eq!(problems, []);
    for (host, path, ingress, upstream) in [
        ("a.b", "/s/caf%E9", "any", "/caf%E9"),
        ("a.b", "/S/%ff%FE/%c3%a9%3F", "any", "/%FF%FE/%C3%A9%3F"),
        ("a.b", "/caf%C3%A9/x", "named", "/x"),
        ("a.b", "/CAF%C3%A9/x%E9", "named", "/x%E9"),
        ("a.b", "/k/%C3%A9", "class", "/%C3%A9"),
        ("c.d", "/caf%C3%A9/%E9", "plain", "/caf%C3%A9/%E9"),
        ("c.d", "/th%C3%A9", "exact", "/th%C3%A9"),
    ] {
        assert_eq!(answer(&table, host, path), ingress, "{host}{path}");
        let canonical = CanonicalPath::parse(path).unwrap();
        let entry = table
            .lookup(&CanonicalHost::parse(host).unwrap(), &canonical)
            .unwrap();
        assert_eq!(
            entry.upstream_path(path, &canonical),
            upstream,
            "{host}{path}"
        );
    }
    for (host, path) in [("a.b", "/caf%E9/x"), ("c.d", "/caf%E9"), ("c.d", "/th%E9")] {
        assert_eq!(answer(&table, host, path), "-", "{host}{path}");
    }
}

#[test]
fn only_a_dollar_and_a_digit_name_a_capture() {
    for (target, upstream) in [
        ("/v2/$1", "/v2/one"),
        ("/$2$1", "/twoone"),
        ("$1", "/one"),
        ("/$9/x", "//x"),
        ("/$x/$1", "/$x/one"),
        ("/$$1/a$", "/$one/a$"),
        ("/10", "/10"),
    ] {
        let (table, _) = compile(&snapshot(vec![Route {
            policy: RoutePolicy {
                rewrite_target: Some(target.into()),
                ..RoutePolicy::default()
            }
            .into(),
            ..rule("web", 0, "a.b", PathKind::Regex, "/(one)/(two)")
        }]));
        let path = CanonicalPath::parse("/one/two").unwrap();
        let entry = &table.entries()[0];
        assert_eq!(entry.upstream_path("/one/two", &path), upstream, "{target}");
    }
}

#[test]
fn a_regex_cannot_leave_its_group() {
    for path in ["/a)|(/b", "/a)|.*(", "/a(?x)#", "/a\\"] {
        let (table, problems) = compile(&snapshot(vec![rule(
            "bad",
            0,
            "a.b",
            PathKind::Regex,
            path,
        )]));
        assert_eq!(answer(&table, "a.b", "/x/b"), "-", "{path}");
        assert_eq!(problems.len(), 1, "{path}: {problems:?}");
    }
}

#[test]
fn longer_regex_text_is_tried_first() {
    let regex = |name: &str, path: &str| rule(name, 0, "a.b", PathKind::Regex, path);
    let (table, _) = compile(&snapshot(vec![
        regex("root", "/"),
        regex("a", "/foo/a"),
        regex("any", "/foo/.*"),
        regex("set", "/foo/bar/[A-Z0-9]{3}"),
    ]));
    for (path, ingress) in [("/foo/a", "any"), ("/foo/bar/bar", "set"), ("/x", "root")] {
        assert_eq!(answer(&table, "a.b", path), ingress, "{path}");
    }
}

#[test]
fn the_policy_alone_can_make_a_regex_of_a_prefix() {
    let regex = |name: &str, created: i64, kind: PathKind, path: &str| Route {
        policy: RoutePolicy {
            use_regex: true,
            ..RoutePolicy::default()
        }
        .into(),
        ..rule(name, created, "a.b", kind, path)
    };
    let (table, problems) = compile(&snapshot(vec![
        regex("dot", 0, PathKind::Prefix, "/a.c"),
        regex("bare", 0, PathKind::Prefix, "/x"),
        regex("slash", 1, PathKind::Prefix, "/x/"),
        regex("again", 2, PathKind::Exact, "/x/"),
    ]));
    for (path, ingress) in [("/abc", "dot"), ("/xy", "bare"), ("/x/y", "slash")] {
        assert_eq!(answer(&table, "a.b", path), ingress, "{path}");
    }
    let told: Vec<_> = problems.iter().map(|problem| &*problem.object).collect();
    assert_eq!(
        told,
        ["Ingress default/again"],
        "one regex is one path, whatever its kind"
    );
}

#[test]
fn a_bad_regex_harms_only_its_own_rule() {
    for path in ["/(", "/(?!admin)", "/(a{1000}){1000}"] {
        let (table, problems) = compile(&snapshot(vec![
            rule("bad", 0, "a.b", PathKind::Regex, path),
            rule("good", 1, "a.b", PathKind::Prefix, "/good"),
        ]));
        assert_eq!(answer(&table, "a.b", "/good"), "good", "{path}");
        assert_eq!(problems.len(), 1, "{path}");
        assert_eq!(
            (problems[0].severity, &*problems[0].object),
            (Severity::Error, "Ingress default/bad"),
            "{path}"
        );
    }
}

#[test]
fn a_denied_rule_whose_regex_is_unusable_closes_all_that_it_could_have_matched() {
    let long = format!("/{}(?!c)", "ab".repeat(2040));
    for (path, kind, closed, open) in [
        (
            "/(?!public)",
            PathKind::Regex,
            &["/secret", "/"][..],
            &[][..],
        ),
        (
            "/a/(?!public)",
            PathKind::Regex,
            &["/a/b", "/A/"],
            &["/a", "/b"],
        ),
        ("/a/b*(?!c)", PathKind::Regex, &["/a/c", "/a/b"], &["/a"]),
        ("/a/b{2}(?!c)", PathKind::Regex, &["/a/bb", "/a/"], &["/a"]),
        ("/a/b?(?!c)", PathKind::Regex, &["/a/"], &["/a"]),
        ("/a|/b(?!c)", PathKind::Regex, &["/a", "/b", "/c"], &[]),
        ("^/a(?!c)", PathKind::Regex, &["/a"], &["/b"]),
        ("/a\\.b(?!c)", PathKind::Regex, &["/a.b", "/a"], &["/b"]),
        ("/é(?!c)", PathKind::Regex, &["/%C3%A9"], &["/%C3"]),
        (&long, PathKind::Regex, &[&long[..256]], &["/a"]),
        // Another rule made a regex of it.
        ("/a[", PathKind::Prefix, &["/a[", "/a"], &["/b"]),
    ] {
        let denied = Route {
            action: RouteAction::Deny("no".into()),
            ..rule("denied", 0, "a.b", kind, path)
        };
        let (table, problems) = compile(&snapshot(vec![
            denied,
            rule("open", 1, "a.b", PathKind::Prefix, "/"),
            rule("regex", 2, "a.b", PathKind::Regex, "/other"),
        ]));
        for request in closed {
            assert_eq!(
                answer(&table, "a.b", request),
                "denied",
                "{path}: {request}"
            );
        }
        for request in open {
            assert_eq!(answer(&table, "a.b", request), "open", "{path}: {request}");
        }
        assert_eq!(problems.len(), 1, "{path}: {problems:?}");
        assert!(problems[0].message.contains("503"), "{path}: {problems:?}");
    }
}

#[test]
fn plain_http_is_redirected_where_the_host_has_a_tls_entry() {
    let tls = |hosts: &[&str], policy: Policy, rule_host: &str| {
        let mut snapshot = snapshot(vec![Route {
            policy,
            ..rule("web", 0, rule_host, PathKind::Prefix, "/")
        }]);
        snapshot.tls_hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
        compile(&snapshot).0.entries()[0].redirect_to_https
    };
    let redirect = |tls_redirect| {
        Policy::from(RoutePolicy {
            tls_redirect,
            ..RoutePolicy::default()
        })
    };
    let off = || redirect(TlsRedirect::Never);
    let force = || redirect(TlsRedirect::Always);
    for (hosts, policy, rule_host, redirects) in [
        (&["a.b.c"][..], Policy::default(), "a.b.c", true),
        (&["*.b.c"], Policy::default(), "a.b.c", true),
        (&["*.b.c"], Policy::default(), "*.b.c", true),
        (&["x.b.c"], Policy::default(), "a.b.c", false),
        (&["a.b.c"], off(), "a.b.c", false),
        (&[], force(), "a.b.c", true),
    ] {
        assert_eq!(
            tls(hosts, policy, rule_host),
            redirects,
            "{hosts:?} {rule_host}"
        );
    }
}

proptest! {
    /// The order in which objects arrive must not decide who owns a path.
    #[test]
    fn any_order_of_routes_gives_the_same_answers(seed in proptest::collection::vec((0..3i64, 0..4usize, 0..3usize, 0..4usize), 1..12).prop_shuffle()) {
        let hosts = ["a.b", "*.b", ""];
        let paths = ["/", "/x", "/x/", "/x/y"];
        let routes: Vec<_> = seed
            .iter()
            .map(|(created, name, host, path)| {
                let kind = if created % 2 == 0 { PathKind::Prefix } else { PathKind::Exact };
                rule(&format!("i{name}"), *created, hosts[*host], kind, paths[*path])
            })
            .collect();
        let mut reversed = routes.clone();
        reversed.reverse();
        let ((one, _), (other, _)) = (compile(&snapshot(routes)), compile(&snapshot(reversed)));
        for host in ["a.b", "c.b", "z"] {
            for path in ["/", "/x", "/x/", "/x/y", "/x/y/z"] {
                prop_assert_eq!(answer(&one, host, path), answer(&other, host, path), "{}{}", host, path);
            }
        }
    }
}

//! Rules of hosts in, answers out; and what a change costs.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    super::{CanonicalHost, CanonicalPath, Request, routes::HASHED_BYTES},
    *,
};
use ingress_model::{
    BackendKey, Condition, Conditions, Endpoint, ObjectRef, PathKind, PathPattern, PathRegex,
    Redirect, RoutePolicy, ServicePort, Split, Target, UpstreamPolicy,
};

fn backend(service: &str) -> BackendKey {
    BackendKey {
        service: ObjectName::new("default", service),
        port: ServicePort::Number(80),
    }
}

fn target(service: &str, weight: u32) -> Target {
    let key = UpstreamKey {
        backend: backend(service),
        policy: UpstreamPolicy::default(),
    };
    Target {
        upstream: Arc::new(key),
        weight,
    }
}

/// A rule of the Ingress `name` to the Service of that name.
fn rule(name: &str, kind: PathKind, path: &str) -> Rule {
    Rule {
        source: Arc::new(ObjectRef::new(
            "Ingress",
            ObjectName::new("default", name),
            "",
        )),
        path: PathPattern::new(kind, path).unwrap(),
        regex: None,
        conditions: Conditions::default(),
        policy: Arc::default(),
        action: Action::Forward(Split::all(target(name, 1).upstream)),
    }
}

fn prefix(name: &str, path: &str) -> Rule {
    rule(name, PathKind::Prefix, path)
}

fn exact(name: &str, path: &str) -> Rule {
    rule(name, PathKind::Exact, path)
}

fn regex(name: &str, path: &str, target: Option<&str>) -> Rule {
    Rule {
        regex: Some(PathRegex::new(path).unwrap()),
        policy: Arc::new(RoutePolicy {
            rewrite_target: target.map(Into::into),
            ..RoutePolicy::default()
        }),
        ..rule(name, PathKind::Regex, path)
    }
}

type Hosts<'h> = Vec<(&'h str, Vec<Rule>, Vec<Rule>)>;

/// A whole state with one endpoint for every Service, but for those called `empty`.
fn whole(hosts: Hosts<'_>) -> Update {
    let mut endpoints = BTreeMap::new();
    for (_, rules, fallbacks) in &hosts {
        for target in rules.iter().chain(fallbacks).flat_map(targets) {
            let backend = target.upstream.backend.clone();
            let address = Endpoint {
                address: ([198, 18, 0, 1], 80).into(),
                pod: None,
            };
            let count = usize::from(!backend.service.name.starts_with("empty"));
            endpoints.insert(backend, Some(vec![address; count].into()));
        }
    }
    Update {
        epoch: 1,
        base: None,
        endpoints: endpoints.into_iter().collect(),
        certificates: Vec::new(),
        hosts: hosts
            .into_iter()
            .map(|(host, rules, fallbacks)| {
                let rules = HostRules {
                    rules,
                    fallbacks,
                    ..HostRules::default()
                };
                (host.parse().unwrap(), Some(Arc::new(rules)))
            })
            .collect(),
    }
}

fn empty() -> Site {
    let resolver = Resolver::new().unwrap();
    Site::new(resolver, Arc::new(Registry::new(1)))
}

fn site(hosts: Hosts<'_>) -> Site {
    let mut site = empty();
    site.apply(&whole(hosts)).unwrap();
    site
}

/// `METHOD path?query`, and a header.
struct Asked {
    method: &'static str,
    query: Option<&'static str>,
    header: (&'static str, &'static str),
}

impl Request for Asked {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }

    fn has_header(&self, name: &[u8], value: &[u8]) -> bool {
        (name, value) == (self.header.0.as_bytes(), self.header.1.as_bytes())
    }

    fn query(&self) -> Option<&str> {
        self.query
    }
}

const GET: Asked = Asked {
    method: "GET",
    query: None,
    header: ("", ""),
};

fn find(table: &RouteTable, host: &str, path: &str, asked: &Asked) -> Option<Arc<Entry>> {
    let host = CanonicalHost::parse(host).unwrap();
    let path = CanonicalPath::parse(path).unwrap();
    table.lookup(&host, &path, asked).cloned()
}

/// Name of the Ingress that answers, or `-` for 404.
fn answer(site: &Site, host: &str, path: &str) -> String {
    let entry = find(&site.tables().borrow(), host, path, &GET);
    entry.map_or("-".to_owned(), |entry| entry.rule.source.name.name.clone())
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
        let site = site(vec![("a.b", vec![rule("web", kind, rule_path)], vec![])]);
        let found = answer(&site, "a.b", path) == "web";
        assert_eq!(found, matches, "{kind:?} {rule_path} against {path}");
    }
}

#[test]
fn longest_path_wins_then_exact() {
    let rules = vec![
        prefix("root", "/"),
        prefix("foo", "/foo"),
        prefix("foobar", "/foo/bar"),
        exact("exact", "/foo"),
    ];
    let site = site(vec![("a.b", rules, vec![])]);
    for (path, ingress) in [
        ("/", "root"),
        ("/fo", "root"),
        ("/foo", "exact"),
        ("/foo/", "foo"),
        ("/foo/bar/x", "foobar"),
        ("/foo/barx", "foo"),
    ] {
        assert_eq!(answer(&site, "a.b", path), ingress, "{path}");
    }
}

#[test]
fn a_path_of_many_segments_is_hashed_once() {
    let deep = "/a".repeat(2000);
    let site = site(vec![(
        "a.b",
        vec![prefix("deep", &deep), prefix("root", "/")],
        vec![],
    )]);
    for (path, found) in [
        ("/a".repeat(15_000), "deep"),
        (format!("{}/b", "/a".repeat(1999)), "root"),
    ] {
        let before = HASHED_BYTES.get();
        assert_eq!(answer(&site, "a.b", &path), found);
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
    let site = site(vec![
        ("a.example.com", vec![prefix("exact", "/x")], vec![]),
        ("*.example.com", vec![prefix("wildcard", "/")], vec![]),
        ("", vec![prefix("any", "/")], vec![]),
        ("kept.example.com", vec![], vec![]),
    ]);
    for (host, path, ingress) in [
        ("A.example.com.:8080", "/x", "exact"),
        ("a.example.com", "/y", "-"),
        ("kept.example.com", "/", "-"),
        ("b.example.com", "/x", "wildcard"),
        ("b.b.example.com", "/x", "any"),
        ("example.com", "/x", "any"),
        ("", "/x", "any"),
        ("198.51.100.10", "/x", "any"),
    ] {
        assert_eq!(answer(&site, host, path), ingress, "{host}{path}");
    }
}

#[test]
fn default_backend_answers_when_no_rule_does() {
    let denied = Rule {
        action: Action::Deny("no".into()),
        ..prefix("denied", "/")
    };
    let site = site(vec![
        ("", vec![], vec![prefix("empty", "/"), prefix("ready", "/")]),
        ("a.b", vec![prefix("web", "/x")], vec![prefix("rest", "/")]),
        ("c.d", vec![prefix("bare", "/x")], vec![]),
        ("e.f", vec![], vec![denied, prefix("open", "/")]),
        (
            "g.h",
            vec![],
            vec![prefix("empty1", "/"), prefix("empty2", "/")],
        ),
    ]);
    for (host, path, ingress) in [
        ("x.y", "/", "ready"),
        ("a.b", "/x", "web"),
        ("a.b", "/z", "rest"),
        ("c.d", "/x", "bare"),
        ("c.d", "/z", "-"),
        ("e.f", "/", "denied"),
        ("g.h", "/", "empty1"),
    ] {
        assert_eq!(answer(&site, host, path), ingress, "{host}{path}");
    }
}

#[test]
fn regexes_are_tried_in_their_order_and_rewrite_byte_by_byte() {
    let rules = vec![
        regex("s2", "/bars2(/|$)(.*)", Some("/$2")),
        regex("s1", "/foos1", Some("/")),
        regex("exact", "/exact", None),
        regex("any", "/s/(.*)", Some("/$1")),
        regex("named", "/café/(.*)", Some("/$1")),
        regex("class", "/k/([é])", Some("/$1")),
        regex("rest", "/foo", None),
    ];
    let site = site(vec![
        ("a.b", rules, vec![]),
        (
            "c.d",
            vec![prefix("plain", "/café"), exact("exact", "/thé")],
            vec![],
        ),
    ]);
    for (host, path, ingress, upstream) in [
        ("a.b", "/foos1", "s1", "/"),
        ("a.b", "/FOOS1/deep/er", "s1", "/"),
        ("a.b", "/bars2/a%20b/c", "s2", "/a%20b/c"),
        ("a.b", "/bars2", "s2", "/"),
        ("a.b", "/EXACTLY", "exact", "/EXACTLY"),
        ("a.b", "/s/caf%E9", "any", "/caf%E9"),
        ("a.b", "/S/%ff%FE/%c3%a9%3F", "any", "/%FF%FE/%C3%A9%3F"),
        ("a.b", "/caf%C3%A9/x", "named", "/x"),
        ("a.b", "/CAF%C3%A9/x%E9", "named", "/x%E9"),
        ("a.b", "/k/%C3%A9", "class", "/%C3%A9"),
        ("a.b", "/foobar", "rest", "/foobar"),
        ("c.d", "/caf%C3%A9/%E9", "plain", "/caf%C3%A9/%E9"),
        ("c.d", "/th%C3%A9", "exact", "/th%C3%A9"),
    ] {
        assert_eq!(answer(&site, host, path), ingress, "{host}{path}");
        let entry = find(&site.tables().borrow(), host, path, &GET).unwrap();
        let canonical = CanonicalPath::parse(path).unwrap();
        assert_eq!(
            entry.upstream_path(path, &canonical),
            upstream,
            "{host}{path}"
        );
    }
    for (host, path) in [
        ("a.b", "/caf%E9/x"),
        ("a.b", "/other"),
        ("c.d", "/caf%E9"),
        ("c.d", "/th%E9"),
    ] {
        assert_eq!(answer(&site, host, path), "-", "{host}{path}");
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
        let rules = vec![regex("web", "/(one)/(two)", Some(target))];
        let site = site(vec![("a.b", rules, vec![])]);
        let entry = find(&site.tables().borrow(), "a.b", "/one/two", &GET).unwrap();
        let path = CanonicalPath::parse("/one/two").unwrap();
        assert_eq!(entry.upstream_path("/one/two", &path), upstream, "{target}");
    }
}

#[test]
fn the_first_rule_whose_conditions_are_met_has_a_path_else_a_shorter_one_does() {
    let condition = |name: &str, value: &str| Condition {
        name: name.into(),
        value: value.into(),
    };
    let with = |rule: Rule, conditions: Conditions| Rule { conditions, ..rule };
    let rules = vec![
        with(
            prefix("both", "/x"),
            Conditions {
                methods: ["POST".into()].into(),
                query: [condition("v", "1")].into(),
                ..Conditions::default()
            },
        ),
        with(
            prefix("post", "/x"),
            Conditions {
                methods: ["PUT".into(), "POST".into()].into(),
                ..Conditions::default()
            },
        ),
        with(
            prefix("header", "/x"),
            Conditions {
                headers: [condition("x-a", "b")].into(),
                ..Conditions::default()
            },
        ),
        prefix("root", "/"),
    ];
    let site = site(vec![("a.b", rules, vec![])]);
    for (method, query, header, ingress) in [
        ("POST", Some("v=1"), ("", ""), "both"),
        ("POST", Some("a&v=1&b"), ("", ""), "both"),
        ("POST", Some("v=11"), ("", ""), "post"),
        ("POST", Some("v"), ("", ""), "post"),
        ("PUT", None, ("x-a", "b"), "post"),
        ("GET", None, ("x-a", "b"), "header"),
        ("GET", None, ("x-a", "c"), "root"),
        ("post", None, ("", ""), "root"),
    ] {
        let asked = Asked {
            method,
            query,
            header,
        };
        let entry = find(&site.tables().borrow(), "a.b", "/x/y", &asked).unwrap();
        let found = &entry.rule.source.name.name;
        assert_eq!(found, ingress, "{method} {query:?} {header:?}");
    }
}

#[test]
fn a_split_sends_each_target_its_share() {
    let targets = [target("a", 1), target("never", 0), target("b", 3)];
    let split = Rule {
        action: Action::Forward(Split::new(targets).unwrap()),
        ..prefix("web", "/")
    };
    let site = site(vec![("a.b", vec![split], vec![])]);
    let entry = find(&site.tables().borrow(), "a.b", "/", &GET).unwrap();
    let mut chosen = [0; 3];
    for _ in 0..4000 {
        chosen[entry.choose()] += 1;
    }
    assert_eq!(chosen[1], 0);
    // Five sigma.
    assert!((863..=1137).contains(&chosen[0]), "{chosen:?}");
    let names: Vec<_> = entry
        .upstreams()
        .iter()
        .map(|upstream| upstream.backend().to_string())
        .collect();
    assert_eq!(names, ["default/a:80", "default/never:80", "default/b:80"]);
}

#[test]
fn what_a_rule_answers_itself_needs_no_upstream() {
    let redirect = Redirect::new(301, "/y").unwrap();
    for (action, denied) in [
        (Action::Deny("no".into()), Some("no")),
        (Action::Redirect(redirect), None),
        (Action::Respond(204), None),
    ] {
        let own = Rule {
            action: action.clone(),
            ..prefix("web", "/")
        };
        let site = site(vec![("a.b", vec![own], vec![])]);
        let entry = find(&site.tables().borrow(), "a.b", "/", &GET).unwrap();
        assert!(entry.upstreams().is_empty());
        assert_eq!(entry.denied(), denied, "{action:?}");
        let table = site.tables().borrow().clone();
        assert_eq!(
            (table.rules(), table.denied()),
            (1, usize::from(denied.is_some()))
        );
    }
}

#[test]
fn plain_http_is_redirected_where_the_host_has_tls() {
    for (redirect, tls, expected) in [
        (TlsRedirect::WithTls, false, false),
        (TlsRedirect::WithTls, true, true),
        (TlsRedirect::Always, false, true),
        (TlsRedirect::Never, true, false),
    ] {
        let policy = Arc::new(RoutePolicy {
            tls_redirect: redirect,
            ..RoutePolicy::default()
        });
        let rule = Rule {
            policy,
            ..prefix("web", "/")
        };
        let mut update = whole(vec![("a.b", vec![rule], vec![])]);
        let rules = update.hosts[0].1.as_mut().unwrap();
        Arc::make_mut(rules).policy.tls = tls;
        let mut site = empty();
        site.apply(&update).unwrap();
        let entry = find(&site.tables().borrow(), "a.b", "/", &GET).unwrap();
        assert_eq!(entry.redirects_to_https(), expected, "{redirect:?} {tls}");
    }
}

/// An update of one host.
fn one(base: u64, host: &str, rules: Option<Vec<Rule>>) -> Update {
    let rules = rules.map(|rules| {
        Arc::new(HostRules {
            rules,
            ..HostRules::default()
        })
    });
    Update {
        epoch: base + 1,
        base: Some(base),
        hosts: vec![(host.parse().unwrap(), rules)],
        ..Update::default()
    }
}

#[test]
fn a_change_compiles_the_hosts_that_it_names_and_endpoints_compile_none() {
    let names: Vec<String> = (0..1000).map(|number| format!("h{number}.test")).collect();
    let hosts = names
        .iter()
        .map(|name| (&**name, vec![prefix("web", "/")], vec![]));
    let mut site = site(hosts.collect());
    assert_eq!(site.compiled(), 1000);
    let before = find(&site.tables().borrow(), "h8.test", "/", &GET).unwrap();
    site.apply(&one(1, "h7.test", Some(vec![prefix("other", "/")])))
        .unwrap();
    assert_eq!(site.compiled(), 1001);
    assert_eq!(answer(&site, "h7.test", "/"), "other");
    let after = find(&site.tables().borrow(), "h8.test", "/", &GET).unwrap();
    assert!(Arc::ptr_eq(&before, &after));

    let tables = site.tables();
    let table = Arc::clone(&tables.borrow());
    let address = Endpoint {
        address: ([198, 18, 0, 9], 80).into(),
        pod: None,
    };
    let endpoints = Update {
        epoch: 3,
        base: Some(2),
        endpoints: vec![(backend("web"), Some(vec![address.clone()].into()))],
        ..Update::default()
    };
    site.apply(&endpoints).unwrap();
    assert_eq!(site.compiled(), 1001);
    assert!(Arc::ptr_eq(&table, &tables.borrow()));
    assert_eq!(*after.upstreams()[0].endpoints(), [address]);

    // The whole state again, as after a gap.
    let hosts = names
        .iter()
        .map(|name| (&**name, vec![prefix("web", "/")], vec![]));
    site.apply(&whole(hosts.collect())).unwrap();
    assert_eq!(site.compiled(), 1002, "only the host that differs");
}

#[test]
fn an_update_of_another_state_is_refused_and_changes_nothing() {
    let mut site = site(vec![("a.b", vec![prefix("web", "/")], vec![])]);
    for base in [0, 2, 7] {
        let gap = site.apply(&one(base, "a.b", None)).unwrap_err();
        assert_eq!((gap.base, gap.in_force), (base, Some(1)));
    }
    assert!(empty().apply(&one(1, "a.b", None)).is_err());
    assert_eq!(answer(&site, "a.b", "/"), "web");
    site.apply(&one(1, "a.b", None)).unwrap();
    assert_eq!(answer(&site, "a.b", "/"), "-");
}

#[test]
fn entries_that_left_are_retired_and_their_places_and_tables_are_freed() {
    let mut site = site(vec![("a.b", vec![prefix("web", "/")], vec![])]);
    let held = Arc::clone(&site.tables().borrow());
    let old = find(&held, "a.b", "/", &GET).unwrap();
    site.apply(&one(1, "a.b", Some(vec![prefix("web", "/x")])))
        .unwrap();
    assert!(old.is_retired());
    let new = find(&site.tables().borrow(), "a.b", "/x", &GET).unwrap();
    assert!(!new.is_retired());
    // A worker that still has the old table is not the one to free it.
    let table = Arc::downgrade(&held);
    drop(held);
    assert!(table.upgrade().is_some());
    site.tidy();
    assert!(table.upgrade().is_none());
    for base in 2..50 {
        site.apply(&one(base, "a.b", Some(vec![prefix("web", "/y")])))
            .unwrap();
        site.apply(&Update {
            epoch: base + 1,
            base: Some(base + 1),
            ..Update::default()
        })
        .unwrap();
    }
    let slot = find(&site.tables().borrow(), "a.b", "/y", &GET)
        .unwrap()
        .slot();
    assert!(slot <= 2, "{slot}");
}

#[test]
fn a_whole_state_takes_away_the_hosts_that_it_does_not_name() {
    let web = || vec![prefix("web", "/")];
    let mut site = site(vec![("a.b", web(), vec![]), ("c.d", web(), vec![])]);
    let state = vec![("c.d", web(), vec![]), ("e.f", web(), vec![])];
    site.apply(&whole(state)).unwrap();
    let answers = ["a.b", "c.d", "e.f"].map(|host| answer(&site, host, "/"));
    assert_eq!(answers, ["-", "web", "web"]);
}

#[test]
fn entries_in_force_have_places_of_their_own() {
    let rules = |count: usize| {
        let rule = |number| prefix("web", &format!("/{number}"));
        Some((0..count).map(rule).collect())
    };
    let mut site = site(vec![]);
    for (base, count) in [(1, 3), (2, 5), (3, 2), (4, 5)] {
        site.apply(&one(base, "a.b", rules(count))).unwrap();
        site.apply(&Update {
            base: Some(base + 1),
            epoch: base + 1,
            ..Update::default()
        })
        .unwrap();
        let entries = site.tables().borrow().entries();
        let mut slots: Vec<_> = entries.iter().map(|(_, entry)| entry.slot()).collect();
        slots.sort();
        slots.dedup();
        assert_eq!(slots.len(), count, "{slots:?}");
        // A host has its new places before its old ones are free.
        assert!(slots.iter().all(|slot| *slot < 10), "{slots:?}");
    }
}

#[test]
fn an_entry_that_left_is_kept_for_whoever_has_it_and_no_longer() {
    let mut site = site(vec![("a.b", vec![prefix("web", "/")], vec![])]);
    let held = find(&site.tables().borrow(), "a.b", "/", &GET).unwrap();
    site.apply(&one(1, "a.b", None)).unwrap();
    site.tidy();
    assert_eq!(site.retired.len(), 1);
    drop(held);
    site.tidy();
    assert!(site.retired.is_empty());
}

#[test]
fn a_table_says_how_many_rules_it_has_and_which() {
    let denied = |path| Rule {
        action: Action::Deny("no".into()),
        ..prefix("denied", path)
    };
    let web = || prefix("web", "/");
    let said = |site: &Site| {
        let table = site.tables().borrow().clone();
        let of = |(host, entry): &(HostPattern, Arc<Entry>)| {
            format!("{host}{}", entry.rule.path.as_str())
        };
        let entries: Vec<_> = table.entries().iter().map(of).collect();
        (table.rules(), table.denied(), entries.join(" "))
    };
    let said = |site: &Site, rules, denied, entries: &str| {
        assert_eq!(said(site), (rules, denied, entries.to_owned()));
    };
    let retirements = |site: &Site| site.tables().borrow().retirements();
    let mut site = site(vec![
        ("b.test", vec![web(), denied("/x")], vec![web()]),
        ("a.test", vec![denied("/"), denied("/y")], vec![]),
    ]);
    said(&site, 5, 3, "a.test/ a.test/y b.test/ b.test/x b.test/");
    let before = retirements(&site);
    site.apply(&one(1, "c.test", Some(vec![web()]))).unwrap();
    said(
        &site,
        6,
        3,
        "a.test/ a.test/y b.test/ b.test/x b.test/ c.test/",
    );
    assert_eq!(retirements(&site), before, "no entry has left");
    site.apply(&one(2, "b.test", Some(vec![denied("/x")])))
        .unwrap();
    said(&site, 4, 3, "a.test/ a.test/y b.test/x c.test/");
    let between = retirements(&site);
    site.apply(&one(3, "a.test", None)).unwrap();
    said(&site, 2, 1, "b.test/x c.test/");
    let after = retirements(&site);
    assert!(before != between && between != after && before != after);
}

#[test]
fn what_a_rule_serves_is_counted_under_its_ingress_and_its_first_service() {
    let labels = |rule: &Rule| {
        let RouteLabels {
            namespace,
            ingress,
            service,
        } = labels(rule);
        [namespace, ingress, service].join(" ")
    };
    let mut rule = prefix("web", "/");
    assert_eq!(labels(&rule), "default web web");
    rule.action = Action::Respond(204);
    assert_eq!(labels(&rule), "default web ");
}

#[test]
fn a_backend_that_comes_back_is_heard_of_by_rules_that_did_not_change() {
    let state = || whole(vec![("a.b", vec![prefix("web", "/")], vec![])]);
    let mut site = site(vec![("a.b", vec![prefix("web", "/")], vec![])]);
    let mut without = state();
    without.endpoints.clear();
    site.apply(&without).unwrap();
    site.apply(&state()).unwrap();
    let entry = find(&site.tables().borrow(), "a.b", "/", &GET).unwrap();
    assert_eq!(entry.upstreams()[0].endpoints().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever way a state came about, it answers as one that was made at once.
    #[test]
    fn changes_one_after_another_answer_as_the_whole_state(
        steps in prop::collection::vec((0..6_usize, prop::option::of(prop::collection::vec((0..4_usize, 0..4_usize, any::<bool>()), 0..4))), 1..20)
    ) {
        const HOSTS: [&str; 6] = ["a.test", "b.test", "*.test", "*.b.test", "c.b.test", ""];
        const PATHS: [&str; 4] = ["/", "/x", "/x/y", "/z"];
        const NAMES: [&str; 4] = ["one", "two", "empty", "four"];
        let mut changed = empty();
        changed.apply(&Update { epoch: 1, ..Update::default() }).unwrap();
        let mut state: BTreeMap<&str, Vec<Rule>> = BTreeMap::new();
        for (number, (host, rules)) in (1..).zip(steps) {
            let rules = rules.map(|rules| {
                let rule = |(name, path, is_exact): (usize, usize, bool)| {
                    let kind = if is_exact { PathKind::Exact } else { PathKind::Prefix };
                    rule(NAMES[name], kind, PATHS[path])
                };
                rules.into_iter().map(rule).collect::<Vec<_>>()
            });
            match &rules {
                Some(rules) => drop(state.insert(HOSTS[host], rules.clone())),
                None => drop(state.remove(HOSTS[host])),
            }
            changed.apply(&one(number, HOSTS[host], rules)).unwrap();
        }
        let hosts = state.into_iter().map(|(host, rules)| (host, rules, vec![]));
        let at_once = site(hosts.collect());
        for host in ["a.test", "b.test", "d.test", "c.b.test", "d.b.test", "x.y"] {
            for path in ["/", "/x", "/x/", "/x/y", "/x/y/w", "/z", "/w"] {
                prop_assert_eq!(answer(&changed, host, path), answer(&at_once, host, path), "{}{}", host, path);
            }
        }
        let (one, other) = (changed.tables(), at_once.tables());
        prop_assert_eq!(one.borrow().rules(), other.borrow().rules());
        let rows = |table: &RouteTable| {
            let row = |(host, entry): &(HostPattern, Arc<Entry>)| format!("{host} {:?}", entry.rule);
            table.entries().iter().map(row).collect::<Vec<_>>()
        };
        prop_assert_eq!(rows(&one.borrow()), rows(&other.borrow()));
    }
}

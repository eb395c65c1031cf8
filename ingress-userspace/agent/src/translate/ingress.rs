//! One Ingress → what it claims. Pure, and without a look at any other object.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, Ingress, IngressBackend, IngressRule, IngressSpec, IngressTLS,
};

use super::{
    super::{
        annotation::{self, Base, Denial, Scope},
        kept::Item,
    },
    claim::{Claim, Content, Draft, Tls, TlsEntry, Translated},
};
use ingress_model::{
    Action, BackendKey, HostPattern, ObjectName, PathKind, PathPattern, Policy, Problem,
    RoutePolicy, ServicePort, Split, Subject, TlsRedirect, UpstreamKey,
};

/// Bytes that mean something in a regex and are no part of an everyday path; `.` is both.
const REGEX_CHARACTERS: &[char] = &[
    '^', '$', '*', '+', '?', '(', ')', '[', ']', '{', '}', '|', '\\',
];

/// Translates every rule that can be; what cannot is a problem and harms no other rule. All of them are
/// denied for the reason `closed`, if there is one.
///
/// A canary claims nothing of its own: as a rule like any other it could take the main Ingress's
/// place, without the access control that only the main one has.
pub(super) fn translate(
    name: &ObjectName,
    item: &Item<Ingress>,
    base: &Base,
    closed: Option<&'static str>,
) -> Translated {
    #[cfg(test)]
    assert_ne!(name.name, "panics", "the bug that a test has put here");
    let mut claim = Claim::empty(name, item);
    let subject = claim.subject();
    let mut problems = Vec::new();
    let none = Default::default();
    let annotations = item.object.metadata.annotations.as_ref();
    let reading = annotation::read(annotations.unwrap_or(&none), base);
    let annotation = |key: &str| format!("metadata.annotations[{key}]");
    for warning in reading.warnings {
        let field = annotation(&warning.key);
        problems.push(subject.warning(field, warning.message));
    }
    if let Some(key) = &reading.canary {
        let message = "canaries are not supported; the main Ingress keeps all requests";
        problems.push(subject.error(annotation(key), message));
        return Translated {
            claim,
            problems,
            spoiled: false,
            denied: false,
        };
    }
    let spoiled = !reading.spoiled.is_empty();
    for remark in reading.spoiled {
        problems.push(subject.error(annotation(&remark.key), remark.message));
    }
    for denial in &reading.denials {
        let message = format!("{}; requests get 503", denial.reason);
        problems.push(subject.error(annotation(&denial.key), message));
    }
    let reason = |denial: &Denial| format!("{}: {}", denial.key, denial.reason).into_boxed_str();
    let mut writer = Writer {
        namespace: &name.namespace,
        subject,
        denied: closed
            .map(Box::from)
            .or_else(|| reading.denials.first().map(reason)),
        route: Arc::new(reading.policy.route.clone()),
        policy: reading.policy,
        problems: &mut problems,
        content: &mut claim.content,
        hosts: BTreeMap::new(),
        backends: BTreeMap::new(),
    };
    match &item.object.spec {
        Some(spec) => writer.spec(spec),
        None => writer.refuse("spec".to_owned(), "is missing".to_owned()),
    }
    let Writer {
        hosts, backends, ..
    } = writer;
    claim.content.hosts = hosts.into();
    claim.content.backends = backends.into();
    claim.content.denies_hosts = reading
        .denials
        .iter()
        .find(|denial| denial.scope == Scope::Host)
        .map(reason);
    Translated {
        claim,
        problems,
        spoiled,
        denied: closed.is_some() || !reading.denials.is_empty(),
    }
}

struct Writer<'a> {
    namespace: &'a str,
    subject: Subject,
    /// Why its rules are denied, if they are.
    denied: Option<Box<str>>,
    policy: Policy,
    /// The policy of its routes, shared by them.
    route: Arc<RoutePolicy>,
    problems: &'a mut Vec<Problem>,
    content: &'a mut Content,
    hosts: BTreeMap<HostPattern, Vec<Draft>>,
    backends: BTreeMap<BackendKey, Box<str>>,
}

impl Writer<'_> {
    fn spec(&mut self, spec: &IngressSpec) {
        for (number, rule) in spec.rules.iter().flatten().enumerate() {
            self.rule(number, rule);
        }
        if let Some(backend) = &spec.default_backend {
            self.default_backend(backend);
        }
        if spec.default_backend.is_none() && spec.rules.as_ref().is_none_or(Vec::is_empty) {
            let message = "has neither rules nor a default backend";
            self.problems.push(self.subject.warning("spec", message));
        }
        let hosts = self.hosts.keys();
        // An entry for a wildcard is for hosts below it, too.
        let above = hosts.clone().filter_map(HostPattern::wildcard_above);
        let served: BTreeSet<_> = above.chain(hosts.cloned()).collect();
        let entries = spec.tls.iter().flatten().enumerate();
        let entries = entries.map(|(number, entry)| self.tls(number, entry, &served));
        self.content.tls = Tls::of(entries.collect());
    }

    /// Hosts that none of its rules names are left out: nobody's certificate or redirect changes
    /// by an entry for a host of which the Ingress serves nothing.
    fn tls(
        &mut self,
        number: usize,
        entry: &IngressTLS,
        served: &BTreeSet<HostPattern>,
    ) -> (BTreeSet<HostPattern>, bool, TlsEntry) {
        let field = format!("spec.tls[{number}]");
        let mut hosts = BTreeSet::new();
        for (at, host) in entry.hosts.iter().flatten().enumerate() {
            let field = format!("{field}.hosts[{at}]");
            match host.parse::<HostPattern>() {
                Ok(host) if served.contains(&host) => drop(hosts.insert(host)),
                Ok(host) => {
                    let message = format!("no rule of this Ingress is for {host}; ignored");
                    self.problems.push(self.subject.warning(field, message));
                }
                Err(error) => self.refuse(field, format!("{error}; ignored")),
            }
        }
        let secret = entry.secret_name.as_ref().filter(|name| !name.is_empty());
        let lists_none = entry.hosts.as_ref().is_none_or(Vec::is_empty);
        let entry = TlsEntry {
            secret: secret.map(|name| ObjectName::new(self.namespace, name.clone())),
            field,
        };
        (hosts, lists_none, entry)
    }

    fn rule(&mut self, number: usize, rule: &IngressRule) {
        let field = format!("spec.rules[{number}]");
        let host = match rule
            .host
            .as_deref()
            .unwrap_or_default()
            .parse::<HostPattern>()
        {
            Ok(host) => host,
            Err(error) => {
                return self.refuse(
                    format!("{field}.host"),
                    format!("{error}; the rule is not served"),
                );
            }
        };
        self.hosts.entry(host.clone()).or_default();
        let paths = rule
            .http
            .as_ref()
            .map(|http| http.paths.as_slice())
            .unwrap_or_default();
        for (number, path) in paths.iter().enumerate() {
            self.path(&host, path, &format!("{field}.http.paths[{number}]"));
        }
    }

    fn path(&mut self, host: &HostPattern, path: &HTTPIngressPath, field: &str) {
        let text = path.path.as_deref().unwrap_or_default();
        let pattern = self.pattern(path.path_type.as_str(), text);
        let pattern = pattern.or_else(|(part, error)| {
            let message = format!("{error}; the path is not served");
            self.refuse(format!("{field}.{part}"), message);
            self.closed(text).ok_or(())
        });
        let Ok(pattern) = pattern else { return };
        let route = Arc::clone(&self.route);
        if let Some(draft) = self.draft(pattern, route, &path.backend, field, "backend")
            && let Some(drafts) = self.hosts.get_mut(host)
        {
            drafts.push(draft);
        }
    }

    /// The pattern, or which field of the path is wrong, and why.
    fn pattern(&self, kind: &str, text: &str) -> Result<PathPattern, (&'static str, String)> {
        let kind = match kind {
            "Exact" => PathKind::Exact,
            "Prefix" => PathKind::Prefix,
            "ImplementationSpecific" | "" => self.implementation_specific(text),
            other => {
                let message =
                    format!("{other:?} is not one of Exact, Prefix, ImplementationSpecific");
                return Err(("pathType", message));
            }
        };
        PathPattern::new(kind, text).map_err(|error| ("path", error.to_string()))
    }

    /// What a path that cannot be written may have meant, where the Ingress is denied: if the rule
    /// fell away, another one could open what it was to protect.
    fn closed(&self, path: &str) -> Option<PathPattern> {
        self.denied.as_ref()?;
        let odd = |c: char| c.is_control() || " ?#".contains(c) || REGEX_CHARACTERS.contains(&c);
        let end = path.find(odd).unwrap_or(path.len());
        let start = &path[..end.min(path.floor_char_boundary(1024))];
        let whole_segments = if start == path {
            path
        } else {
            start.rfind('/').map_or("/", |at| &start[..=at])
        };
        PathPattern::new(PathKind::Prefix, whole_segments)
            .or_else(|_| PathPattern::new(PathKind::Prefix, "/"))
            .ok()
    }

    /// A prefix, as in ingress-nginx, unless an annotation makes a regex of what looks like one.
    fn implementation_specific(&self, path: &str) -> PathKind {
        let regexes = self.policy.route.use_regex || self.policy.route.rewrite_target.is_some();
        if regexes && path.contains(REGEX_CHARACTERS) {
            PathKind::Regex
        } else {
            PathKind::Prefix
        }
    }

    /// `spec.defaultBackend`: for every host of the rules, and for hosts that nobody names.
    ///
    /// As in ingress-nginx, a catch-all neither rewrites nor redirects.
    fn default_backend(&mut self, backend: &IngressBackend) {
        let Ok(root) = PathPattern::new(PathKind::Prefix, "/") else {
            return;
        };
        let own = RoutePolicy {
            rewrite_target: None,
            use_regex: false,
            ..self.policy.route.clone()
        };
        let others = RoutePolicy {
            tls_redirect: TlsRedirect::Never,
            ..own.clone()
        };
        let field = "spec.defaultBackend";
        let draft = self.draft(root, Arc::new(own), backend, field, "");
        self.content.catch_all = draft.clone().map(|draft| Draft {
            policy: Arc::new(others),
            ..draft
        });
        self.content.fallback = draft;
    }

    fn draft(
        &mut self,
        path: PathPattern,
        policy: Arc<RoutePolicy>,
        backend: &IngressBackend,
        field: &str,
        part: &str,
    ) -> Option<Draft> {
        let at = match part {
            "" => field.to_owned(),
            part => format!("{field}.{part}"),
        };
        let key = match self.backend(backend, &at) {
            Ok((key, at)) => {
                if let Entry::Vacant(free) = self.backends.entry(key.clone()) {
                    free.insert(at.into());
                }
                Some(key)
            }
            Err((at, message)) => {
                self.refuse(at, message);
                None
            }
        };
        let action = match (&self.denied, key) {
            (Some(reason), _) => Action::Deny(reason.clone()),
            (None, Some(backend)) => {
                let policy = self.policy.upstream.clone();
                Action::Forward(Split::all(Arc::new(UpstreamKey { backend, policy })))
            }
            (None, None) => return None,
        };
        Some(Draft {
            path,
            policy,
            action,
            field: field.into(),
        })
    }

    fn backend(
        &self,
        backend: &IngressBackend,
        field: &str,
    ) -> Result<(BackendKey, String), (String, String)> {
        let refuse = |part: &str, message: &str| {
            Err((format!("{field}{part}"), format!("{message}; not served")))
        };
        if backend.resource.is_some() {
            return refuse(".resource", "resource backends are not supported");
        }
        let Some(service) = &backend.service else {
            return refuse(
                "",
                "names no service (networking.k8s.io/v1 needs service.name and service.port)",
            );
        };
        if service.name.is_empty() {
            return refuse(".service.name", "is missing");
        }
        let port = service.port.as_ref();
        let name = port
            .and_then(|port| port.name.as_deref())
            .filter(|name| !name.is_empty());
        let number = port.and_then(|port| port.number).map(u16::try_from);
        let port = match (name, number) {
            (Some(name), _) => ServicePort::Name(name.into()),
            (None, Some(Ok(number @ 1..))) => ServicePort::Number(number),
            (None, Some(_)) => return refuse(".service.port.number", "is not between 1 and 65535"),
            (None, None) => return refuse(".service.port", "has neither a name nor a number"),
        };
        let service = ObjectName::new(self.namespace, service.name.clone());
        Ok((BackendKey { service, port }, format!("{field}.service")))
    }

    fn refuse(&mut self, field: String, message: String) {
        self.problems.push(self.subject.error(field, message));
    }
}

//! One Ingress → its routes.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::{HTTPIngressPath, IngressBackend, IngressRule, IngressSpec};

use super::{
    super::annotation::{self, Denial, Scope},
    claim::Claim,
};
use ingress_model::{
    BackendKey, HostPattern, ObjectName, Origin, PathKind, PathPattern, Policy, Problem, Route,
    RouteAction, ServicePort, TlsRedirect,
};

/// Bytes that mean something in a regex and are no part of an everyday path; `.` is both.
const REGEX_CHARACTERS: &[char] = &[
    '^', '$', '*', '+', '?', '(', ')', '[', ']', '{', '}', '|', '\\',
];

/// A route, and the field that names its backend; `None` where nothing does and the route is denied.
pub(super) type Written = (Route, Option<String>);

/// What one Ingress comes to.
#[derive(Default)]
pub(super) struct Translated {
    pub(super) routes: Vec<Written>,
    /// Hosts of its rules.
    pub(super) hosts: BTreeSet<HostPattern>,
    /// Why all of these hosts must be denied, not only its own routes.
    pub(super) denies_hosts: Option<Box<str>>,
}

/// Translates every rule that can be; what cannot is a problem and harms no other rule.
///
/// A canary has no routes of its own: as a rule like any other it could take the main Ingress's
/// place, without the access control that only the main one has.
pub(super) fn translate(claim: &Claim<'_>, problems: &mut Vec<Problem>) -> Translated {
    let none = Default::default();
    let annotations = claim.item.object.metadata.annotations.as_ref();
    let reading = annotation::read(annotations.unwrap_or(&none));
    let annotation = |key: &str| format!("metadata.annotations[{key}]");
    for warning in reading.warnings {
        let field = annotation(&warning.key);
        problems.push(claim.subject().warning(field, warning.message));
    }
    if let Some(key) = &reading.canary {
        let message = "canaries are not supported; the main Ingress keeps all requests";
        problems.push(claim.subject().error(annotation(key), message));
        return Translated::default();
    }
    for denial in &reading.denials {
        let message = format!("{}; requests get 503", denial.reason);
        problems.push(claim.subject().error(annotation(&denial.key), message));
    }
    let reason = |denial: &Denial| format!("{}: {}", denial.key, denial.reason).into_boxed_str();
    let mut writer = Writer {
        claim,
        action: reading
            .denials
            .first()
            .map_or(RouteAction::Forward, |denial| {
                RouteAction::Deny(reason(denial))
            }),
        policy: reading.policy,
        problems,
        written: Vec::new(),
        hosts: BTreeSet::new(),
    };
    match &claim.item.object.spec {
        Some(spec) => writer.spec(spec),
        None => writer.refuse("spec".to_owned(), "is missing".to_owned()),
    }
    Translated {
        routes: writer.written,
        hosts: writer.hosts,
        denies_hosts: reading
            .denials
            .iter()
            .find(|denial| denial.scope == Scope::Host)
            .map(reason),
    }
}

struct Writer<'a> {
    claim: &'a Claim<'a>,
    action: RouteAction,
    policy: Policy,
    problems: &'a mut Vec<Problem>,
    written: Vec<Written>,
    /// Hosts of the rules so far.
    hosts: BTreeSet<HostPattern>,
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
            self.problems
                .push(self.claim.subject().warning("spec", message));
        }
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
        self.hosts.insert(host.clone());
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
        if let Ok(pattern) = pattern {
            self.route(
                Origin::Rule,
                host.clone(),
                pattern,
                &path.backend,
                &format!("{field}.backend"),
            );
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
        if self.action == RouteAction::Forward {
            return None;
        }
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
    fn default_backend(&mut self, backend: &IngressBackend) {
        let Ok(root) = PathPattern::new(PathKind::Prefix, "/") else {
            return;
        };
        // As in ingress-nginx, a catch-all neither rewrites nor redirects.
        let rules = self.policy.clone();
        self.policy.route.rewrite_target = None;
        self.policy.route.use_regex = false;
        let mut hosts = self.hosts.clone();
        hosts.remove(&HostPattern::Any);
        for host in hosts {
            self.route(
                Origin::DefaultBackend,
                host,
                root.clone(),
                backend,
                "spec.defaultBackend",
            );
        }
        self.policy.route.tls_redirect = TlsRedirect::Never;
        self.route(
            Origin::DefaultBackend,
            HostPattern::Any,
            root,
            backend,
            "spec.defaultBackend",
        );
        self.policy = rules;
    }

    fn route(
        &mut self,
        origin: Origin,
        host: HostPattern,
        path: PathPattern,
        backend: &IngressBackend,
        field: &str,
    ) {
        let (backend, field) = match self.backend(backend, field) {
            Ok((key, field)) => (key, Some(field)),
            Err((field, message)) => {
                self.refuse(field, message);
                if self.action == RouteAction::Forward {
                    return;
                }
                // Nothing is sent there.
                (self.stand_in(backend), None)
            }
        };
        let route = Route {
            ingress: self.claim.name.clone(),
            created: self.claim.created,
            origin,
            host,
            path,
            backend,
            action: self.action.clone(),
            policy: self.policy.clone(),
        };
        self.written.push((route, field));
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
        let service = ObjectName::new(self.claim.name.namespace.clone(), service.name.clone());
        Ok((BackendKey { service, port }, format!("{field}.service")))
    }

    /// A key for a backend that has none: no Service has a port 0.
    fn stand_in(&self, backend: &IngressBackend) -> BackendKey {
        let service = backend.service.as_ref().map(|service| &service.name);
        let resource = backend.resource.as_ref().map(|resource| &resource.name);
        let name = service.or(resource).cloned().unwrap_or_default();
        BackendKey {
            service: ObjectName::new(self.claim.name.namespace.clone(), name),
            port: ServicePort::Number(0),
        }
    }

    fn refuse(&mut self, field: String, message: String) {
        self.problems
            .push(self.claim.subject().error(field, message));
    }
}

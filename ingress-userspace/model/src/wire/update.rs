//! An update as bytes.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_bytes::Bytes;
use zeroize::Zeroizing;

use super::super::{
    Action, BackendKey, Certificate, Conditions, Endpoint, HostPattern, HostPolicy, HostRules,
    ObjectName, ObjectRef, PathPattern, PathRegex, PathRegexError, PrivateKey, RoutePolicy, Rule,
    Update,
};

/// Regexes that no table uses any more are forgotten once in this many updates.
const SOME: u32 = 256;
/// And once new ones have taken so many bytes: an Ingress that changes all of its paths with each
/// update would else take up hundreds of times what the agent lets its namespace have.
const MUCH: usize = 16 << 20;

/// Bytes that are no update.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Cut off, of another version, or a value that its constructor refuses.
    #[error("not an update: {0}")]
    Malformed(#[from] postcard::Error),
    /// Bytes follow it.
    #[error("{0} bytes follow the update")]
    Trailing(usize),
    /// A key occurs twice in one list.
    #[error("{0} occurs twice in one update")]
    Repeated(String),
    /// A state that is older than the one it changes.
    #[error("state {epoch} cannot come of state {base}")]
    Epoch {
        /// Its own number.
        epoch: u64,
        /// The number of the state that it changes.
        base: u64,
    },
    /// A regex that cannot be used.
    #[error("the path {path:?} is no usable regex: {source}")]
    Regex {
        /// The path.
        path: Box<str>,
        /// Why.
        source: PathRegexError,
    },
    /// Some rules of a host have a regex, and some have none.
    #[error("host {0} is partly in regex mode")]
    Mode(HostPattern),
    /// A rule has a policy that the update does not list.
    #[error("there is no policy {0}")]
    Policy(usize),
    /// Endpoints out of order, or one of them twice.
    #[error("the endpoints of {0} are not sorted")]
    Unsorted(BackendKey),
}

/// The types below differ from the model's where something is shared, or secret.
#[derive(Serialize, Deserialize)]
struct Frame<'a> {
    epoch: u64,
    base: Option<u64>,
    #[serde(borrow)]
    endpoints: Changes<'a, BackendKey, Cow<'a, [Endpoint]>>,
    #[serde(borrow)]
    certificates: Changes<'a, ObjectName, Pair<'a>>,
    /// Those of its rules, each once: ten thousand rules may have one of four kilobytes.
    policies: Vec<Arc<RoutePolicy>>,
    #[serde(borrow)]
    hosts: Changes<'a, HostPattern, Rules<'a>>,
}

/// Values by key; without a value, the key is gone.
type Changes<'a, K, V> = Vec<(Cow<'a, K>, Option<V>)>;

/// A certificate. The key has a form of its own here, so that [`PrivateKey`] needs none that a log or
/// an answer could use.
#[derive(Serialize, Deserialize)]
struct Pair<'a> {
    #[serde(borrow)]
    chain: &'a Bytes,
    #[serde(borrow)]
    key: &'a Bytes,
}

#[derive(Serialize, Deserialize)]
struct Rules<'a> {
    #[serde(borrow)]
    rules: Vec<Line<'a>>,
    #[serde(borrow)]
    fallbacks: Vec<Line<'a>>,
    policy: Cow<'a, HostPolicy>,
}

/// A rule.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    source: Arc<ObjectRef>,
    path: Cow<'a, PathPattern>,
    #[serde(borrow)]
    regex: Option<Pattern<'a>>,
    conditions: Cow<'a, Conditions>,
    /// Its place in the list of the frame.
    policy: usize,
    action: Cow<'a, Action>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Pattern<'a> {
    Compiled(&'a str),
    Literal(&'a str),
}

/// An update as bytes. They hold private keys, and are overwritten when they are dropped.
///
/// # Errors
/// None that a value of these types leads to; postcard's signature has one.
pub fn encode(update: &Update) -> Result<Zeroizing<Vec<u8>>, WireError> {
    let frame = Frame::from(update);
    // A vector that grows leaves copies of what it held behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(postcard::experimental::serialized_size(
        &frame,
    )?));
    postcard::to_io(&frame, &mut *bytes)?;
    Ok(bytes)
}

impl<'a> From<&'a Update> for Frame<'a> {
    fn from(update: &'a Update) -> Self {
        let endpoints = update.endpoints.iter();
        let certificates = update.certificates.iter();
        let hosts = update.hosts.iter();
        let mut policies = Policies::default();
        let hosts = hosts
            .map(|(host, rules)| {
                let rules = rules
                    .as_deref()
                    .map(|rules| Rules::of(rules, &mut policies));
                (Cow::Borrowed(host), rules)
            })
            .collect();
        Self {
            epoch: update.epoch,
            base: update.base,
            endpoints: endpoints
                .map(|(backend, list)| (Cow::Borrowed(backend), list.as_deref().map(Cow::Borrowed)))
                .collect(),
            certificates: certificates
                .map(|(secret, certificate)| {
                    let pair = certificate.as_deref().map(|certificate| Pair {
                        chain: Bytes::new(&certificate.chain_pem),
                        key: Bytes::new(certificate.key.expose_pem()),
                    });
                    (Cow::Borrowed(secret), pair)
                })
                .collect(),
            policies: policies.list,
            hosts,
        }
    }
}

/// The policies of a frame's rules.
#[derive(Default)]
struct Policies<'a> {
    list: Vec<Arc<RoutePolicy>>,
    places: HashMap<&'a RoutePolicy, usize>,
    /// The same for those that were seen: most rules share theirs.
    seen: HashMap<*const RoutePolicy, usize>,
}

impl<'a> Policies<'a> {
    fn place(&mut self, policy: &'a Arc<RoutePolicy>) -> usize {
        let Self { list, places, seen } = self;
        *seen.entry(Arc::as_ptr(policy)).or_insert_with(|| {
            *places.entry(policy).or_insert_with(|| {
                list.push(Arc::clone(policy));
                list.len() - 1
            })
        })
    }
}

impl<'a> Rules<'a> {
    fn of(host: &'a HostRules, policies: &mut Policies<'a>) -> Self {
        let mut lines = |rules: &'a [Rule]| {
            let lines = rules.iter().map(|rule| Line::of(rule, policies));
            lines.collect()
        };
        Self {
            rules: lines(&host.rules),
            fallbacks: lines(&host.fallbacks),
            policy: Cow::Borrowed(&host.policy),
        }
    }
}

impl<'a> Line<'a> {
    fn of(rule: &'a Rule, policies: &mut Policies<'a>) -> Self {
        let pattern = |regex: &'a PathRegex| {
            if regex.is_literal() {
                Pattern::Literal(regex.as_str())
            } else {
                Pattern::Compiled(regex.as_str())
            }
        };
        Self {
            source: Arc::clone(&rule.source),
            path: Cow::Borrowed(&rule.path),
            regex: rule.regex.as_ref().map(pattern),
            conditions: Cow::Borrowed(&rule.conditions),
            policy: policies.place(&rule.policy),
            action: Cow::Borrowed(&rule.action),
        }
    }
}

/// Reads updates; remembers the regexes that are in use, so that each is compiled once.
#[derive(Debug, Default)]
pub struct Decoder {
    regexes: std::collections::HashMap<Box<str>, PathRegex>,
    /// Updates since unused regexes were forgotten, and bytes of new ones.
    since: u32,
    grown: usize,
}

impl Decoder {
    /// The update that `bytes` are, all of them.
    ///
    /// # Errors
    /// They are none, or one that no agent makes.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Update, WireError> {
        let (frame, rest) = postcard::take_from_bytes::<Frame<'_>>(bytes)?;
        if !rest.is_empty() {
            return Err(WireError::Trailing(rest.len()));
        }
        if let Some(base) = frame.base.filter(|base| *base >= frame.epoch) {
            let epoch = frame.epoch;
            return Err(WireError::Epoch { epoch, base });
        }
        self.since += 1;
        if self.since >= SOME || self.grown >= MUCH {
            (self.since, self.grown) = (0, 0);
            self.regexes.retain(|_, regex| regex.is_shared());
        }
        let mut update = Update {
            epoch: frame.epoch,
            base: frame.base,
            ..Update::default()
        };
        unique(frame.endpoints.iter().map(|(backend, _)| backend))?;
        for (backend, endpoints) in frame.endpoints {
            let is_sorted = |list: &[Endpoint]| list.is_sorted_by(|a, b| a.address < b.address);
            if endpoints.as_deref().is_some_and(|list| !is_sorted(list)) {
                return Err(WireError::Unsorted(backend.into_owned()));
            }
            let endpoints = endpoints.map(|list| list.into_owned().into());
            update.endpoints.push((backend.into_owned(), endpoints));
        }
        unique(frame.certificates.iter().map(|(secret, _)| secret))?;
        for (secret, pair) in frame.certificates {
            let secret = secret.into_owned();
            let certificate = pair.map(|pair| {
                Arc::new(Certificate {
                    secret: secret.clone(),
                    chain_pem: pair.chain.to_vec(),
                    key: PrivateKey::from_pem(pair.key.to_vec()),
                })
            });
            update.certificates.push((secret, certificate));
        }
        unique(frame.hosts.iter().map(|(host, _)| host))?;
        for (host, rules) in frame.hosts {
            let host = host.into_owned();
            let rules = match rules {
                Some(rules) => Some(Arc::new(self.rules(rules, &host, &frame.policies)?)),
                None => None,
            };
            update.hosts.push((host, rules));
        }
        Ok(update)
    }

    fn rules(
        &mut self,
        rules: Rules<'_>,
        host: &HostPattern,
        policies: &[Arc<RoutePolicy>],
    ) -> Result<HostRules, WireError> {
        let with_regex = rules.rules.iter().filter(|line| line.regex.is_some());
        if !matches!(with_regex.count(), count if count == 0 || count == rules.rules.len()) {
            return Err(WireError::Mode(host.clone()));
        }
        let mut lines = |lines: Vec<Line<'_>>| {
            let mut rules: Vec<Rule> = Vec::with_capacity(lines.len());
            for line in lines {
                let rule = self.rule(line, rules.last(), policies)?;
                rules.push(rule);
            }
            Ok::<_, WireError>(rules)
        };
        Ok(HostRules {
            rules: lines(rules.rules)?,
            fallbacks: lines(rules.fallbacks)?,
            policy: rules.policy.into_owned(),
        })
    }

    /// The rule of a line. What it has in common with the rule before it, which mostly comes from the
    /// same Ingress, it shares as the agent's do.
    fn rule(
        &mut self,
        line: Line<'_>,
        before: Option<&Rule>,
        policies: &[Arc<RoutePolicy>],
    ) -> Result<Rule, WireError> {
        let policy = policies
            .get(line.policy)
            .ok_or(WireError::Policy(line.policy))?;
        let regex = match line.regex {
            None => None,
            Some(Pattern::Literal(start)) => Some(PathRegex::literal(start)),
            Some(Pattern::Compiled(path)) => Some(self.regex(path)?),
        };
        Ok(Rule {
            source: shared(line.source, before.map(|rule| &rule.source)),
            path: line.path.into_owned(),
            regex,
            conditions: line.conditions.into_owned(),
            policy: Arc::clone(policy),
            action: line.action.into_owned(),
        })
    }

    fn regex(&mut self, path: &str) -> Result<PathRegex, WireError> {
        if let Some(regex) = self.regexes.get(path) {
            return Ok(regex.clone());
        }
        let regex = PathRegex::new(path).map_err(|source| WireError::Regex {
            path: path.into(),
            source,
        })?;
        self.grown += regex.memory() + path.len();
        self.regexes.insert(path.into(), regex.clone());
        Ok(regex)
    }
}

fn shared<T: PartialEq>(value: Arc<T>, before: Option<&Arc<T>>) -> Arc<T> {
    before
        .filter(|before| **before == value)
        .map_or(value, Arc::clone)
}

fn unique<'a, K: Hash + Eq + ToString + 'a>(
    keys: impl Iterator<Item = &'a K>,
) -> Result<(), WireError> {
    let mut seen = HashSet::new();
    for key in keys {
        if !seen.insert(key) {
            return Err(WireError::Repeated(key.to_string()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{
            Condition, PathKind, Redirect, ServicePort, Split, Target, UpstreamKey, UpstreamPolicy,
        },
        super::VERSION,
        *,
    };

    fn backend(service: &str) -> BackendKey {
        BackendKey {
            service: ObjectName::new("shop", service),
            port: ServicePort::Name("http".into()),
        }
    }

    fn endpoint(last: u8) -> Endpoint {
        Endpoint {
            address: ([198, 18, 0, last], 8080).into(),
            pod: last.is_multiple_of(2).then(|| format!("pod-{last}").into()),
        }
    }

    fn rule(path: &str, regex: Option<PathRegex>, action: Action) -> Rule {
        let kind = if regex.is_some() {
            PathKind::Regex
        } else {
            PathKind::Prefix
        };
        Rule {
            source: Arc::new(ObjectRef::new(
                "Ingress",
                ObjectName::new("shop", "web"),
                "6ad5",
            )),
            path: PathPattern::new(kind, path).unwrap(),
            regex,
            conditions: Conditions {
                methods: ["GET".into()].into(),
                headers: [Condition {
                    name: "x-canary".into(),
                    value: "always".into(),
                }]
                .into(),
                query: Box::default(),
            },
            policy: Arc::new(RoutePolicy {
                rewrite_target: Some("/$1".into()),
                body_limit: None,
                ..RoutePolicy::default()
            }),
            action,
        }
    }

    /// An update with each form of each type.
    fn update() -> Update {
        let upstream = Arc::new(UpstreamKey {
            backend: backend("web"),
            policy: UpstreamPolicy::default(),
        });
        let target = |weight| Target {
            upstream: Arc::clone(&upstream),
            weight,
        };
        let split = Split::new([target(1), target(0)]).unwrap();
        let plain = HostRules {
            rules: vec![
                rule("/", None, Action::Forward(split)),
                rule("/gone", None, Action::Respond(410)),
                rule(
                    "/old",
                    None,
                    Action::Redirect(Redirect::new(308, "/new").unwrap()),
                ),
            ],
            fallbacks: vec![rule("/", None, Action::Deny("auth-url".into()))],
            policy: HostPolicy {
                tls: true,
                certificate: Some(ObjectName::new("shop", "tls")),
                ignores_wildcard: true,
            },
        };
        let regexes = HostRules {
            rules: vec![
                rule(
                    "/a/(.*)",
                    Some(PathRegex::new("/a/(.*)").unwrap()),
                    Action::Respond(204),
                ),
                rule("/b", Some(PathRegex::literal("/b")), Action::Respond(204)),
            ],
            ..HostRules::default()
        };
        let certificate = Certificate {
            secret: ObjectName::new("shop", "tls"),
            chain_pem: b"chain".to_vec(),
            key: PrivateKey::from_pem(b"key".to_vec()),
        };
        Update {
            epoch: 8,
            base: Some(7),
            endpoints: vec![
                (
                    backend("web"),
                    Some([endpoint(1), endpoint(2)].into_iter().collect()),
                ),
                (backend("gone"), None),
            ],
            certificates: vec![
                (ObjectName::new("shop", "tls"), Some(Arc::new(certificate))),
                (ObjectName::new("shop", "gone"), None),
            ],
            hosts: vec![
                ("shop.example".parse().unwrap(), Some(Arc::new(plain))),
                ("*.shop.example".parse().unwrap(), Some(Arc::new(regexes))),
                (HostPattern::Any, None),
            ],
        }
    }

    /// FNV-1a, 64 bits.
    fn digest(bytes: &[u8]) -> u64 {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |digest, byte| {
            (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// A proxy reads what another build has kept: bytes of one version must mean one thing. Where this
    /// fails, `VERSION` goes up by one, with the digest.
    #[test]
    fn a_version_has_one_format() {
        let digest = digest(&encode(&update()).unwrap());
        assert_eq!((VERSION, digest), (2, 0xe0fa_b78f_0508_bb87), "{digest:#x}");
    }

    fn decode(update: &Update) -> Result<Update, WireError> {
        Decoder::default().decode(&encode(update).unwrap())
    }

    #[test]
    fn an_update_comes_out_as_it_went_in() {
        assert_eq!(decode(&update()).unwrap(), update());
        let whole = Update {
            base: None,
            ..update()
        };
        assert_eq!(decode(&whole).unwrap(), whole);
    }

    #[test]
    fn a_compiled_regex_and_a_literal_stay_what_they_are() {
        let decoded = decode(&update()).unwrap();
        let rules = decoded.hosts[1].1.as_ref().unwrap();
        let literal = rules.rules.iter().map(|rule| rule.regex.as_ref().unwrap());
        let literal: Vec<_> = literal.map(PathRegex::is_literal).collect();
        assert_eq!(literal, [false, true]);
    }

    #[test]
    fn a_regex_is_compiled_once_and_forgotten_when_nothing_uses_it() {
        let mut decoder = Decoder::default();
        let bytes = encode(&update()).unwrap();
        let regex = |update: &Update| {
            let rules = update.hosts[1].1.as_ref().unwrap();
            rules.rules[0].regex.clone().unwrap()
        };
        let first = decoder.decode(&bytes).unwrap();
        let again = decoder.decode(&bytes).unwrap();
        assert!(regex(&first).as_str().as_ptr() == regex(&again).as_str().as_ptr());
        let empty = encode(&Update::default()).unwrap();
        for (used, known) in [(Some((first, again)), 1), (None, 0)] {
            for _ in 0..SOME {
                decoder.decode(&empty).unwrap();
            }
            assert_eq!(decoder.regexes.len(), known);
            drop(used);
        }
    }

    #[test]
    fn a_regex_that_nothing_uses_for_a_while_is_not_compiled_again() {
        let rule = |number: usize| {
            let path = format!("/{number}(/|$)(.*)");
            let regex = PathRegex::new(&path).unwrap();
            rule(&path, Some(regex), Action::Respond(204))
        };
        let rules = HostRules {
            rules: (0..400).map(rule).collect(),
            ..HostRules::default()
        };
        let update = Update {
            hosts: vec![(HostPattern::Any, Some(Arc::new(rules)))],
            ..Update::default()
        };
        let mut decoder = Decoder::default();
        decoder.decode(&encode(&update).unwrap()).unwrap();
        let empty = encode(&Update::default()).unwrap();
        for updates in 2..SOME {
            decoder.decode(&empty).unwrap();
            assert_eq!(decoder.regexes.len(), 400, "{updates} updates");
        }
        decoder.decode(&empty).unwrap();
        assert!(decoder.regexes.is_empty());
    }

    #[test]
    fn regexes_that_change_all_the_time_do_not_pile_up() {
        let host = |round: u32| {
            let path = |number| format!("/{round}/{number}/.{{0,500}}");
            let rule = |number| {
                let regex = PathRegex::new(&path(number)).unwrap();
                rule(&path(number), Some(regex), Action::Respond(204))
            };
            let rules = HostRules {
                rules: (0..400).map(rule).collect(),
                ..HostRules::default()
            };
            Update {
                hosts: vec![(HostPattern::Any, Some(Arc::new(rules)))],
                ..Update::default()
            }
        };
        let mut decoder = Decoder::default();
        for round in 0..4 {
            decoder.decode(&encode(&host(round)).unwrap()).unwrap();
        }
        let memory: usize = decoder.regexes.values().map(PathRegex::memory).sum();
        assert!(memory < 2 * MUCH, "{memory} bytes");
    }

    #[test]
    fn rules_of_one_ingress_share_what_they_have_in_common() {
        let decoded = decode(&update()).unwrap();
        let rules = &decoded.hosts[0].1.as_ref().unwrap().rules;
        assert!(Arc::ptr_eq(&rules[0].source, &rules[1].source));
        assert!(Arc::ptr_eq(&rules[0].policy, &rules[1].policy));
    }

    #[test]
    fn a_policy_that_thousands_of_rules_have_is_sent_once() {
        let mut update = update();
        let policy = |target: char| RoutePolicy {
            rewrite_target: Some(target.to_string().repeat(4096).into()),
            ..RoutePolicy::default()
        };
        // In turn, as the rules of two Ingresses may come.
        let policies = ['a', 'b'].map(|target| Arc::new(policy(target)));
        let rule = |number: usize| Rule {
            policy: Arc::clone(&policies[number % 2]),
            ..rule(&format!("/{number}"), None, Action::Respond(204))
        };
        let rules = HostRules {
            rules: (0..2000).map(rule).collect(),
            ..HostRules::default()
        };
        update.hosts = vec![
            ("a.example".parse().unwrap(), Some(Arc::new(rules.clone()))),
            ("b.example".parse().unwrap(), Some(Arc::new(rules))),
        ];
        let bytes = encode(&update).unwrap();
        assert!(
            bytes.len() < 2 * 2000 * 100 + 3 * 4096,
            "{} bytes",
            bytes.len()
        );
        let decoded = Decoder::default().decode(&bytes).unwrap();
        assert_eq!(decoded, update);
        let [one, other] = [0, 1].map(|host: usize| decoded.hosts[host].1.as_ref().unwrap());
        assert!(Arc::ptr_eq(&one.rules[0].policy, &other.rules[1998].policy));
    }

    #[test]
    fn bytes_that_are_cut_or_too_many_are_no_update() {
        let bytes = encode(&update()).unwrap();
        for end in 0..bytes.len() {
            let decoded = Decoder::default().decode(&bytes[..end]);
            assert!(decoded.is_err(), "the first {end} bytes");
        }
        let more = [&bytes[..], &[0]].concat();
        let decoded = Decoder::default().decode(&more);
        assert!(matches!(decoded, Err(WireError::Trailing(1))));
    }

    #[test]
    fn what_no_agent_says_is_refused() {
        let mut unsorted = update();
        unsorted.endpoints[0].1 = Some([endpoint(2), endpoint(1)].into_iter().collect());
        let mut doubled = update();
        doubled.endpoints[0].1 = Some([endpoint(1), endpoint(1)].into_iter().collect());
        let mut backends = update();
        backends.endpoints[1].0 = backend("web");
        let mut secrets = update();
        secrets.certificates[1].0 = ObjectName::new("shop", "tls");
        let mut hosts = update();
        hosts.hosts[2].0 = "shop.example".parse().unwrap();
        let older = Update {
            base: Some(8),
            ..update()
        };
        let mut mixed = update();
        let rules = mixed.hosts[1].1.as_mut().unwrap();
        Arc::make_mut(rules).rules[0].regex = None;
        for (update, error) in [
            (unsorted, "the endpoints of shop/web:http are not sorted"),
            (doubled, "the endpoints of shop/web:http are not sorted"),
            (backends, "shop/web:http occurs twice in one update"),
            (secrets, "shop/tls occurs twice in one update"),
            (hosts, "shop.example occurs twice in one update"),
            (older, "state 8 cannot come of state 8"),
            (mixed, "host *.shop.example is partly in regex mode"),
        ] {
            assert_eq!(decode(&update).unwrap_err().to_string(), error);
        }
    }

    /// `bytes` with the one place at which `text` stands saying `other`, of the same length.
    fn forged(text: &str, other: &str) -> Vec<u8> {
        let mut bytes = encode(&update()).unwrap().to_vec();
        let is_here = |at: &usize| bytes[*at..].starts_with(text.as_bytes());
        let places: Vec<_> = (0..bytes.len()).filter(is_here).collect();
        let [place] = places[..] else {
            panic!("{text:?} stands at {places:?}")
        };
        bytes[place..place + text.len()].copy_from_slice(other.as_bytes());
        bytes
    }

    #[test]
    fn what_a_constructor_refuses_is_refused_here() {
        for (text, other) in [
            ("*.shop.example", "*shop...xample"),
            ("/gone", " gone"),
            ("/new", "/n\r\n"),
            ("/old", "/o?d"),
        ] {
            let decoded = Decoder::default().decode(&forged(text, other));
            assert!(
                matches!(decoded, Err(WireError::Malformed(_))),
                "{other:?}: {decoded:?}"
            );
        }
    }
}

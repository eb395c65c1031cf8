//! Denies a whole host for a setting that nginx has once per server, such as client certificates.

use std::collections::BTreeMap;

use super::{claim::Claim, routes::Translated};
use ingress_model::{HostPattern, Problem, RouteAction};

/// Denies what shares a host with an Ingress that asks so.
///
/// In ingress-nginx any Ingress of a host can ask. Here one of another namespace cannot close a
/// host that an older Ingress serves: its owner never asked to have it protected.
pub(super) fn spread(ingresses: &mut [(&Claim<'_>, Translated)], problems: &mut Vec<Problem>) {
    let mut asked: BTreeMap<HostPattern, Vec<Asked<'_>>> = BTreeMap::new();
    for (claim, translated) in ingresses.iter() {
        let Some(reason) = &translated.denies_hosts else {
            continue;
        };
        for host in &translated.hosts {
            asked.entry(host.clone()).or_default().push(Asked {
                by: claim,
                reason: reason.clone(),
            });
        }
    }
    if asked.is_empty() {
        return;
    }
    for (claim, translated) in ingresses {
        for (route, _) in &mut translated.routes {
            let asked = asked.get(&route.host).map_or(&[][..], Vec::as_slice);
            if route.action != RouteAction::Forward || asked.is_empty() {
                continue;
            }
            let closes = |asked: &&Asked<'_>| {
                asked.by.name.namespace == claim.name.namespace
                    || asked.by.seniority() < claim.seniority()
            };
            if let Some(asked) = asked.iter().find(closes) {
                let message = format!(
                    "Ingress {} denies the whole host {}; requests get 503",
                    asked.by.name, route.host
                );
                problems.push(claim.subject().error("spec.rules", message));
                route.action = RouteAction::Deny(asked.reason.clone());
            } else {
                problems.extend(asked.iter().map(|asked| {
                    let message = format!(
                        "host {} is served without it by Ingress {}, which is older and in another namespace",
                        route.host, claim.name
                    );
                    asked.by.subject().warning("metadata.annotations", message)
                }));
            }
        }
    }
}

/// Who wants a host denied.
struct Asked<'a> {
    by: &'a Claim<'a>,
    reason: Box<str>,
}

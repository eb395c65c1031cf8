//! Looks up the names of ExternalName Services, again and again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use tokio::{
    net::lookup_host,
    sync::{mpsc, watch as channel},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::super::index::{Addresses, Event};

/// How long an answer is used: the resolver does not say what DNS allows.
const REFRESH: Duration = Duration::from_secs(10);
/// Between two tries at a name that is not found.
const RETRY: Duration = Duration::from_secs(2);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Look-ups at once: each holds a thread.
const AT_ONCE: usize = 8;

/// Looks up `wanted` names until the sources or whoever wants them are gone.
pub(crate) async fn follow(
    wanted: channel::Receiver<BTreeSet<Box<str>>>,
    events: mpsc::WeakSender<Event>,
) {
    follow_by(look_up, wanted, events).await;
}

async fn follow_by<F>(
    look_up: impl Fn(Box<str>) -> F,
    mut wanted: channel::Receiver<BTreeSet<Box<str>>>,
    events: mpsc::WeakSender<Event>,
) where
    F: Future<Output = Result<Vec<IpAddr>, String>> + Send + 'static,
{
    let mut names: BTreeMap<Box<str>, Known> = BTreeMap::new();
    let mut lookups = JoinSet::new();
    loop {
        let now = Instant::now();
        while lookups.len() < AT_ONCE {
            // Whoever waits longest comes first: names that are not answered are due again so soon that
            // they would keep all others out.
            let due = names.iter_mut().filter_map(|(name, known)| {
                let due = known.due.filter(|due| *due <= now)?;
                Some((due, name, known))
            });
            let Some((_, name, known)) = due.min_by_key(|(due, ..)| *due) else {
                break;
            };
            known.due = None;
            let name = name.clone();
            let found = look_up(name.clone());
            lookups.spawn(async move { (name, found.await) });
        }
        let next = names.values().filter_map(|known| known.due).min();
        let is_free = lookups.len() < AT_ONCE;
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                let wanted = wanted.borrow_and_update().clone();
                let gone = names.extract_if(.., |name, _| !wanted.contains(name));
                let gone: Vec<_> = gone.filter(|(_, known)| known.said.is_some()).collect();
                for name in wanted {
                    let known = Known { due: Some(now), said: None };
                    names.entry(name).or_insert(known);
                }
                for (name, _) in gone {
                    if say(&events, name, None).await.is_err() {
                        return;
                    }
                }
            }
            Some(Ok((name, found))) = lookups.join_next(), if !lookups.is_empty() => {
                let Some(known) = names.get_mut(&name) else { continue };
                let addresses = known.hear(found);
                if known.said.as_ref() != Some(&addresses) {
                    known.said = Some(addresses.clone());
                    if say(&events, name, Some(addresses)).await.is_err() {
                        return;
                    }
                }
            }
            () = sleep_until(next.unwrap_or(now)), if next.is_some() && is_free => {}
        }
    }
}

/// Fails once nobody listens any more.
async fn say(
    events: &mpsc::WeakSender<Event>,
    name: Box<str>,
    addresses: Option<Addresses>,
) -> Result<(), Gone> {
    let events = events.upgrade().ok_or(Gone)?;
    let said = events.send(Event::Addresses(name, addresses)).await;
    said.map_err(|_| Gone)
}

/// The sources or the index are gone.
struct Gone;

/// What is known of a name.
struct Known {
    /// When it is to be looked up again; `None` meanwhile.
    due: Option<Instant>,
    said: Option<Addresses>,
}

impl Known {
    /// Takes the result of a look-up. The last addresses stay while DNS does not answer.
    fn hear(&mut self, found: Result<Vec<IpAddr>, String>) -> Addresses {
        let pause = if found.is_ok() { REFRESH } else { RETRY };
        self.due = Some(Instant::now() + pause);
        match found {
            Ok(found) => Addresses {
                found,
                failure: None,
            },
            Err(failure) => Addresses {
                found: self.said.clone().unwrap_or_default().found,
                failure: Some(failure),
            },
        }
    }
}

/// The addresses of a name, sorted. It is a whole one (a dot is at its end), so that no search domain
/// makes another of it; only `/etc/hosts` writes names without the dot.
async fn look_up(name: Box<str>) -> Result<Vec<IpAddr>, String> {
    let whole = format!("{name}.");
    let found = match resolve(&whole).await {
        Err(_) if !name.contains('.') => resolve(&name).await,
        found => found,
    };
    let mut found = found?;
    found.sort();
    found.dedup();
    Ok(found)
}

async fn resolve(name: &str) -> Result<Vec<IpAddr>, String> {
    match timeout(PATIENCE, lookup_host((name, 0))).await {
        Ok(Ok(addresses)) => Ok(addresses.map(|address| address.ip()).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("DNS does not answer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::index_of, *};

    async fn next(inbox: &mut mpsc::Receiver<Event>) -> (Box<str>, Addresses) {
        let event = timeout(3 * PATIENCE, inbox.recv()).await.unwrap().unwrap();
        match event {
            Event::Addresses(name, Some(addresses)) => (name, addresses),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_wanted_name_is_looked_up_and_one_that_does_not_exist_says_why() {
        let (want, wanted) = channel::channel(BTreeSet::new());
        let (events, mut inbox) = mpsc::channel(4);
        tokio::spawn(follow(wanted, events.downgrade()));
        want.send_replace(["localhost".into()].into());
        let (name, addresses) = next(&mut inbox).await;
        assert_eq!((&*name, addresses.failure), ("localhost", None));
        assert!(addresses.found.iter().all(IpAddr::is_loopback));
        assert!(!addresses.found.is_empty());
        // RFC 6761: there is no such name.
        want.send_replace(["nothing.invalid".into()].into());
        let forgotten = timeout(PATIENCE, inbox.recv()).await.unwrap();
        assert!(
            matches!(&forgotten, Some(Event::Addresses(name, None)) if **name == *"localhost"),
            "{forgotten:?}"
        );
        let (name, addresses) = next(&mut inbox).await;
        assert_eq!((&*name, addresses.found.len()), ("nothing.invalid", 0));
        assert!(addresses.failure.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_gets_its_turn_however_many_others_are_not_answered() {
        let silent = |at: usize| format!("a{at:03}.test").into();
        let names: BTreeSet<Box<str>> = (0..3 * AT_ONCE).map(silent).collect();
        let good: Box<str> = "z.test".into();
        let (want, wanted) = channel::channel(BTreeSet::new());
        let (events, mut inbox) = mpsc::channel(4);
        let look_up = |name: Box<str>| async move {
            if *name == *"z.test" {
                return Ok(vec![[192, 0, 2, 1].into()]);
            }
            tokio::time::sleep(PATIENCE).await;
            Err("DNS does not answer".to_owned())
        };
        tokio::spawn(follow_by(look_up, wanted, events.downgrade()));
        want.send_replace(names.into_iter().chain([good.clone()]).collect());
        let all_others = 3 * PATIENCE;
        let heard = timeout(all_others + RETRY, async {
            while next(&mut inbox).await.0 != good {}
        });
        heard.await.expect("the last name is looked up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_keeps_its_addresses_until_it_is_seen_that_nobody_wants_it() {
        let name: Box<str> = "a.test".into();
        let names: BTreeSet<_> = [name.clone()].into();
        let (want, wanted) = channel::channel(BTreeSet::new());
        let (events, mut inbox) = mpsc::channel(4);
        let ip: IpAddr = [192, 0, 2, 1].into();
        let look_up = move |_| async move { Ok(vec![ip]) };
        tokio::spawn(follow_by(look_up, wanted, events.downgrade()));
        let service = "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {type: ExternalName, externalName: a.test}}";
        let mut index = index_of(service);
        want.send_replace(names.clone());
        index.apply(timeout(REFRESH, inbox.recv()).await.unwrap().unwrap());
        // The Service is deleted and made again, sooner than it is seen here.
        want.send_replace(BTreeSet::new());
        want.send_replace(names);
        for _ in 0..2 {
            while let Ok(event) = timeout(2 * REFRESH, inbox.recv()).await {
                index.apply(event.unwrap());
            }
            let known = index.addresses(&name).map(|known| known.found.clone());
            let expected = (!want.borrow().is_empty()).then(|| vec![ip]);
            assert_eq!(known, expected, "{:?}", want.borrow());
            // Now it stays away.
            want.send_replace(BTreeSet::new());
        }
    }

    #[test]
    fn addresses_stay_while_dns_does_not_answer() {
        let mut known = Known {
            due: None,
            said: None,
        };
        let ip: IpAddr = [192, 0, 2, 1].into();
        known.said = Some(known.hear(Ok(vec![ip])));
        let lost = known.hear(Err("it is gone".to_owned()));
        assert_eq!(lost.found, [ip]);
        assert_eq!(lost.failure.as_deref(), Some("it is gone"));
        known.said = Some(lost);
        assert_eq!(known.hear(Ok(Vec::new())), Addresses::default());
    }

    #[tokio::test]
    async fn it_ends_with_the_sources() {
        let (want, wanted) = channel::channel(BTreeSet::new());
        let (events, inbox) = mpsc::channel(4);
        let weak = events.downgrade();
        drop((events, inbox));
        let follow = tokio::spawn(follow(wanted, weak));
        want.send_replace(["localhost".into()].into());
        timeout(3 * PATIENCE, follow).await.unwrap().unwrap();
    }
}

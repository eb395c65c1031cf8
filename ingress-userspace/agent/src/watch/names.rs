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

use super::{
    super::index::{Addresses, Event},
    turns::Turns,
};

/// Names to be looked up, and the namespaces that want each.
pub(crate) type Names = BTreeMap<Box<str>, BTreeSet<String>>;

/// How long an answer is used: the resolver does not say what DNS allows.
const REFRESH: Duration = Duration::from_secs(10);
/// Between two tries at a name that is not found.
const RETRY: Duration = Duration::from_secs(2);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Addresses of one name that are used, the first in their order: DNS may say four thousand, of each of
/// the thousands of names that somebody has Services for.
const MOST: usize = 128;
/// Look-ups at once: each holds a thread.
const AT_ONCE: usize = 8;

/// Looks up `wanted` names until the sources or whoever wants them are gone.
pub(crate) async fn follow(wanted: channel::Receiver<Names>, events: mpsc::WeakSender<Event>) {
    follow_by(look_up, wanted, events).await;
}

async fn follow_by<F>(
    look_up: impl Fn(Box<str>) -> F,
    mut wanted: channel::Receiver<Names>,
    events: mpsc::WeakSender<Event>,
) where
    F: Future<Output = Result<Vec<IpAddr>, String>> + Send + 'static,
{
    let mut names: BTreeMap<Box<str>, Known> = BTreeMap::new();
    let mut lookups = JoinSet::new();
    let mut turns = Turns::default();
    loop {
        let now = Instant::now();
        while lookups.len() < AT_ONCE {
            let Some((name, known)) = turns.next(now).and_then(|name| names.get_key_value(name))
            else {
                break;
            };
            let (name, by) = (name.clone(), known.wanted_by.clone());
            turns.begin(&by);
            set_due(&mut turns, &mut names, &name, None);
            let found = look_up(name.clone());
            lookups.spawn(async move { (name, by, found.await) });
        }
        let next = turns.due();
        let is_free = lookups.len() < AT_ONCE;
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                let mut gone = Vec::new();
                {
                    let wanted = wanted.borrow_and_update();
                    for (name, known) in names.extract_if(.., |name, _| !wanted.contains_key(name)) {
                        if let Some(due) = known.due {
                            turns.remove(due, &name, &known.wanted_by);
                        }
                        if known.said.is_some() {
                            gone.push(name);
                        }
                    }
                    // Each change costs what it touches, as far as can be.
                    for (name, wanted_by) in wanted.iter() {
                        let before = names.get(name);
                        if before.is_some_and(|known| known.wanted_by == *wanted_by) {
                            continue;
                        }
                        let known = names.entry(name.clone()).or_insert(Known {
                            due: Some(now),
                            said: None,
                            wanted_by: BTreeSet::new(),
                        });
                        if let Some(due) = known.due {
                            turns.remove(due, name, &known.wanted_by);
                            turns.add(due, name, wanted_by);
                        }
                        known.wanted_by.clone_from(wanted_by);
                    }
                }
                for name in gone {
                    if say(&events, name, None).await.is_err() {
                        return;
                    }
                }
            }
            Some(Ok((name, by, found))) = lookups.join_next(), if !lookups.is_empty() => {
                turns.end(&by);
                let pause = if found.is_ok() { REFRESH } else { RETRY };
                set_due(&mut turns, &mut names, &name, Some(Instant::now() + pause));
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
    wanted_by: BTreeSet<String>,
}

/// Changes when a name is to be looked up.
fn set_due(
    turns: &mut Turns,
    names: &mut BTreeMap<Box<str>, Known>,
    name: &str,
    due: Option<Instant>,
) {
    let Some(known) = names.get_mut(name) else {
        return;
    };
    if let Some(due) = std::mem::replace(&mut known.due, due) {
        turns.remove(due, name, &known.wanted_by);
    }
    if let Some(due) = due {
        turns.add(due, name, &known.wanted_by);
    }
}

impl Known {
    /// Takes the result of a look-up. The last addresses stay while DNS does not answer.
    fn hear(&self, found: Result<Vec<IpAddr>, String>) -> Addresses {
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
    Ok(sorted(found?))
}

fn sorted(mut found: Vec<IpAddr>) -> Vec<IpAddr> {
    found.sort();
    found.dedup();
    found.truncate(MOST);
    // A list that was longer keeps its room.
    found.shrink_to_fit();
    found
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

    /// Of one namespace.
    fn names(names: impl IntoIterator<Item = impl Into<Box<str>>>) -> Names {
        let own = || BTreeSet::from(["default".to_owned()]);
        names.into_iter().map(|name| (name.into(), own())).collect()
    }

    async fn next(inbox: &mut mpsc::Receiver<Event>) -> (Box<str>, Addresses) {
        let event = timeout(3 * PATIENCE, inbox.recv()).await.unwrap().unwrap();
        match event {
            Event::Addresses(name, Some(addresses)) => (name, addresses),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_wanted_name_is_looked_up_and_one_that_does_not_exist_says_why() {
        let (want, wanted) = channel::channel(Names::new());
        let (events, mut inbox) = mpsc::channel(4);
        tokio::spawn(follow(wanted, events.downgrade()));
        want.send_replace(names(["localhost"]));
        let (name, addresses) = next(&mut inbox).await;
        assert_eq!((&*name, addresses.failure), ("localhost", None));
        assert!(addresses.found.iter().all(IpAddr::is_loopback));
        assert!(!addresses.found.is_empty());
        // RFC 6761: there is no such name.
        want.send_replace(names(["nothing.invalid"]));
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
        let silent = (0..3 * AT_ONCE).map(|at| format!("a{at:03}.test"));
        let good: Box<str> = "z.test".into();
        let (want, wanted) = channel::channel(Names::new());
        let (events, mut inbox) = mpsc::channel(4);
        let look_up = |name: Box<str>| async move {
            if *name == *"z.test" {
                return Ok(vec![[192, 0, 2, 1].into()]);
            }
            tokio::time::sleep(PATIENCE).await;
            Err("DNS does not answer".to_owned())
        };
        tokio::spawn(follow_by(look_up, wanted, events.downgrade()));
        want.send_replace(names(silent.chain([good.to_string()])));
        let all_others = 3 * PATIENCE;
        let heard = timeout(all_others + RETRY, async {
            while next(&mut inbox).await.0 != good {}
        });
        heard.await.expect("the last name is looked up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_waits_for_none_of_the_thousands_of_another() {
        let (want, wanted) = channel::channel(Names::new());
        let (events, mut inbox) = mpsc::channel(4);
        let look_up = |name: Box<str>| async move {
            if name.ends_with("good.test") {
                return Ok(vec![[192, 0, 2, 1].into()]);
            }
            tokio::time::sleep(PATIENCE).await;
            Err("DNS does not answer".to_owned())
        };
        tokio::spawn(follow_by(look_up, wanted, events.downgrade()));
        let mut all = names((0..2000).map(|at| format!("a{at:04}.test")));
        want.send_replace(all.clone());
        next(&mut inbox).await;
        all.insert("good.test".into(), ["modest".to_owned()].into());
        // The same name, of somebody who has many and of somebody who has one.
        let both = ["default".to_owned(), "other".to_owned()];
        all.insert("also.good.test".into(), both.clone().into());
        // It was waiting for its turn among many, and is wanted by somebody else, too.
        all.insert("z.good.test".into(), [both[0].clone()].into());
        want.send_replace(all.clone());
        tokio::task::yield_now().await;
        all.insert("z.good.test".into(), both.into());
        want.send_replace(all);
        let since = Instant::now();
        let mut heard = BTreeSet::new();
        while heard.len() < 3 {
            let (name, _) = next(&mut inbox).await;
            if name.ends_with("good.test") {
                heard.insert(name);
            }
        }
        assert!(since.elapsed() <= PATIENCE, "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_keeps_its_addresses_until_it_is_seen_that_nobody_wants_it() {
        let name: Box<str> = "a.test".into();
        let names = names([name.clone()]);
        let (want, wanted) = channel::channel(Names::new());
        let (events, mut inbox) = mpsc::channel(4);
        let ip: IpAddr = [192, 0, 2, 1].into();
        let look_up = move |_| async move { Ok(vec![ip]) };
        tokio::spawn(follow_by(look_up, wanted, events.downgrade()));
        let service = "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {type: ExternalName, externalName: a.test}}";
        let mut index = index_of(service);
        want.send_replace(names.clone());
        index.apply(timeout(REFRESH, inbox.recv()).await.unwrap().unwrap());
        // The Service is deleted and made again, sooner than it is seen here.
        want.send_replace(Names::new());
        want.send_replace(names);
        for _ in 0..2 {
            while let Ok(event) = timeout(2 * REFRESH, inbox.recv()).await {
                index.apply(event.unwrap());
            }
            let known = index.addresses(&name).map(|known| known.found.clone());
            let expected = (!want.borrow().is_empty()).then(|| vec![ip]);
            assert_eq!(known, expected, "{:?}", want.borrow());
            // Now it stays away.
            want.send_replace(Names::new());
        }
    }

    #[test]
    fn of_a_name_with_thousands_of_addresses_the_same_few_are_used() {
        let all = (0..4096_u32).map(|number| IpAddr::from((0x0A00_0000 + number).to_be_bytes()));
        let mut turned: Vec<_> = all.collect();
        turned.rotate_left(1000);
        let used = sorted(turned.clone());
        assert_eq!((used.len(), used.capacity()), (MOST, MOST));
        turned.reverse();
        assert_eq!(sorted(turned), used);
    }

    #[test]
    fn addresses_stay_while_dns_does_not_answer() {
        let mut known = Known {
            due: None,
            said: None,
            wanted_by: BTreeSet::new(),
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
        let (want, wanted) = channel::channel(Names::new());
        let (events, inbox) = mpsc::channel(4);
        let weak = events.downgrade();
        drop((events, inbox));
        let follow = tokio::spawn(follow(wanted, weak));
        want.send_replace(names(["localhost"]));
        timeout(3 * PATIENCE, follow).await.unwrap().unwrap();
    }
}

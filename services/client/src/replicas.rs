//! The replicas behind one address, and which of them is asked about an account.
//!
//! An account goes to the same replica as long as that answers, because what is decided from memory is there: the replica
//! whose hash with the account is the highest (rendezvous hashing, Thaler and Ravishankar 1996). Where a replica comes or
//! goes, only the accounts that it wins or had move.

use std::{
    fmt,
    hash::Hasher as _,
    net::SocketAddr,
    sync::{
        Arc, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use siphasher::sip::SipHasher13;
use tonic::transport::{Channel, Endpoint};

use crate::builder::endpoint_at;

/// How often a name is resolved again.
const RESOLVE: Duration = Duration::from_secs(5);
/// For how long a replica that did not answer is asked last.
const SUSPECTED: Duration = Duration::from_secs(1);

/// One replica, and the connection to it.
#[derive(Clone)]
pub(crate) struct Replica {
    /// What it is called in the hash: the same for every client.
    key: Arc<str>,
    pub(crate) connection: Channel,
    /// Until when it is asked last, in milliseconds after the client was made; 0 for never.
    suspected_until_ms: Arc<AtomicU64>,
}

impl Replica {
    fn new(key: &str, connection: Channel) -> Self {
        Self {
            key: key.into(),
            connection,
            suspected_until_ms: Arc::default(),
        }
    }

    fn score(&self, account: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new();
        hasher.write(self.key.as_bytes());
        hasher.write_u8(0);
        hasher.write(account);
        hasher.finish()
    }
}

/// All replicas behind one address.
pub(crate) struct Replicas {
    members: RwLock<Arc<[Replica]>>,
    /// Those at the addresses themselves, before any name was looked up.
    given: Arc<[Replica]>,
    next: AtomicU64,
    since: Instant,
}

impl fmt::Debug for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.now().iter().map(|one| one.key.clone()).collect();
        f.debug_tuple("Replicas").field(&keys).finish()
    }
}

impl Replicas {
    /// The replicas at these addresses, each of which is one. A single name may have many addresses: then each of these is
    /// one, as they are found from time to time for as long as anybody has the client.
    pub(crate) fn connect(endpoints: &[Endpoint]) -> Arc<Self> {
        let as_replica = |endpoint: &Endpoint| Replica::new(&key_of(endpoint), endpoint.connect_lazy());
        let given: Arc<[Replica]> = endpoints.iter().map(as_replica).collect();
        let replicas = Arc::new(Self {
            members: RwLock::new(given.clone()),
            given,
            next: AtomicU64::new(0),
            since: Instant::now(),
        });
        if let [endpoint] = endpoints
            && let Some(name) = Name::of(endpoint)
        {
            tokio::spawn(follow(Arc::downgrade(&replicas), name));
        }
        replicas
    }

    fn now(&self) -> Arc<[Replica]> {
        self.members
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.now().len()
    }

    /// Whom a call about `account` asks that was not `tried` before: the account's own replica, or the next in its order;
    /// those that do not answer come last. Calls about nobody take turns.
    pub(crate) fn choose(&self, account: Option<&[u8]>, tried: &[Replica]) -> Option<Replica> {
        let members = self.now();
        if let [only] = members.as_ref() {
            return Some(only.clone());
        }
        let now_ms = self.since_ms();
        let answers = |one: &Replica| one.suspected_until_ms.load(Ordering::Relaxed) <= now_ms;
        let is_new = |one: &Replica| tried.iter().all(|before| before.key != one.key);
        let place = self
            .next
            .fetch_add(u64::from(account.is_none()), Ordering::Relaxed);
        let rank = |(index, one): &(usize, &Replica)| {
            let score = match account {
                Some(account) => one.score(account),
                // The one whose turn it is has the highest.
                None => {
                    u64::MAX
                        - (*index as u64 + members.len() as u64 - place % members.len() as u64)
                            % members.len() as u64
                }
            };
            (is_new(one), answers(one), score)
        };
        members
            .iter()
            .enumerate()
            .max_by_key(rank)
            .map(|(_, one)| one.clone())
    }

    /// Notes that a replica did not answer: others are asked first for a while.
    pub(crate) fn suspect(&self, replica: &Replica) {
        let until_ms = self.since_ms() + u64::try_from(SUSPECTED.as_millis()).unwrap_or(u64::MAX);
        replica.suspected_until_ms.store(until_ms, Ordering::Relaxed);
    }

    fn since_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes the addresses of a name for the replicas from now on. Who stays keeps its connection. Behind a single address
    /// may be a load balancer, which the name is for; its connection looks the name up for itself.
    fn become_those(&self, name: &Name, found: &[SocketAddr]) {
        // Each replica of two families would be two.
        let one_family = |address: &&SocketAddr| address.is_ipv4() || found.iter().all(SocketAddr::is_ipv6);
        let mut addresses: Vec<SocketAddr> = found.iter().filter(one_family).copied().collect();
        addresses.sort_unstable();
        addresses.dedup();
        let before = self.now();
        let as_replica = |address: &SocketAddr| {
            let key = address.to_string();
            let known = before.iter().find(|one| *one.key == *key).cloned();
            known.or_else(|| Some(Replica::new(&key, name.connect(*address)?)))
        };
        let members: Arc<[Replica]> = match addresses.as_slice() {
            [] => return,
            [_] => self.given.clone(),
            _ => addresses.iter().filter_map(as_replica).collect(),
        };
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = members;
    }
}

/// A host that is a name and no address.
#[derive(Clone, Debug)]
struct Name {
    host: String,
    port: u16,
    scheme: &'static str,
}

impl Name {
    fn of(endpoint: &Endpoint) -> Option<Self> {
        let uri = endpoint.uri();
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        if host.parse::<std::net::IpAddr>().is_ok() {
            return None;
        }
        let (scheme, port) = match uri.scheme_str()? {
            // A certificate is for the name; who has one is a load balancer or a gateway.
            "http" => ("http", uri.port_u16().unwrap_or(80)),
            _ => return None,
        };
        Some(Self {
            host: host.to_owned(),
            port,
            scheme,
        })
    }

    /// A connection to one of its addresses.
    fn connect(&self, address: SocketAddr) -> Option<Channel> {
        let endpoint = endpoint_at(&format!("{}://{address}", self.scheme))?;
        Some(endpoint.connect_lazy())
    }
}

/// Resolves the name from time to time, until nobody has the replicas any more.
async fn follow(replicas: Weak<Replicas>, name: Name) {
    loop {
        let found = tokio::net::lookup_host((name.host.as_str(), name.port)).await;
        let Some(replicas) = replicas.upgrade() else {
            return;
        };
        // A name that cannot be resolved now leaves things as they are.
        if let Ok(found) = found {
            replicas.become_those(&name, &found.collect::<Vec<_>>());
        }
        drop(replicas);
        tokio::time::sleep(RESOLVE).await;
    }
}

fn key_of(endpoint: &Endpoint) -> String {
    let authority = endpoint.uri().authority();
    authority.map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn replicas(ports: std::ops::Range<u16>) -> Arc<Replicas> {
        let endpoints: Vec<Endpoint> = ports
            .map(|port| Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("an address"))
            .collect();
        Replicas::connect(&endpoints)
    }

    fn owners(replicas: &Replicas) -> Vec<Arc<str>> {
        let owner = |number: u32| {
            let account = format!("account-{number}");
            replicas
                .choose(Some(account.as_bytes()), &[])
                .expect("a replica")
                .key
        };
        (0..3_000).map(owner).collect()
    }

    #[tokio::test]
    async fn accounts_are_spread_and_each_stays_where_it_is() {
        let three = replicas(1..4);
        let before = owners(&three);
        assert_eq!(before, owners(&three));
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for owner in &before {
            *counts.entry(owner).or_default() += 1;
        }
        assert_eq!(counts.len(), 3);
        assert!(
            counts.values().all(|count| (800..1_200).contains(count)),
            "{counts:?}"
        );
    }

    #[tokio::test]
    async fn only_the_accounts_of_a_replica_that_goes_move() {
        let (before, after) = (owners(&replicas(1..4)), owners(&replicas(1..3)));
        for (before, after) in before.iter().zip(&after) {
            if **before != *"127.0.0.1:3" {
                assert_eq!(before, after);
            }
        }
    }

    #[tokio::test]
    async fn the_next_attempt_asks_another_replica_and_so_does_whoever_comes_after_a_failure() {
        let three = replicas(1..4);
        let after = |tried: &[Replica]| three.choose(Some(b"acme"), tried).expect("a replica");
        let first = after(&[]);
        let second = after(std::slice::from_ref(&first));
        let third = after(&[first.clone(), second.clone()]);
        assert!(first.key != second.key && second.key != third.key && first.key != third.key);
        let all = [first.clone(), second.clone(), third.clone()];
        assert_eq!(after(&all).key, first.key);
        three.suspect(&first);
        assert_eq!(after(&[]).key, second.key);
        // An attempt that found it silent does not go back to it.
        assert_eq!(after(std::slice::from_ref(&first)).key, second.key);
        assert_eq!(after(&[first.clone(), second]).key, third.key);
        assert_eq!(after(&[third]).key, after(&[]).key);
    }

    #[tokio::test]
    async fn calls_about_no_account_take_turns_among_those_that_answer() {
        let three = replicas(1..4);
        let turns = |count: usize| -> Vec<Arc<str>> {
            let mut keys: Vec<_> = (0..count)
                .map(|_| three.choose(None, &[]).expect("a replica").key)
                .collect();
            keys.sort();
            keys.dedup();
            keys
        };
        assert_eq!(turns(3).len(), 3);
        let silent = three.choose(None, &[]).expect("a replica");
        three.suspect(&silent);
        let others = turns(6);
        assert!(others.len() == 2 && !others.contains(&silent.key), "{others:?}");
    }

    #[tokio::test]
    async fn the_addresses_of_a_name_are_replicas_that_come_and_go() {
        let endpoint = Endpoint::from_static("http://quota.internal:8081");
        let name = Name::of(&endpoint).expect("a name");
        let replicas = Replicas::connect(std::slice::from_ref(&endpoint));
        let address = |last: u8| SocketAddr::from(([10, 0, 0, last], 8081));
        let keys = || -> Vec<String> { replicas.now().iter().map(|one| one.key.to_string()).collect() };
        replicas.become_those(&name, &[address(1)]);
        assert_eq!(keys(), ["quota.internal:8081"], "one address stays a name");
        replicas.become_those(&name, &[address(2), address(1), address(2)]);
        assert_eq!(keys(), ["10.0.0.1:8081", "10.0.0.2:8081"]);
        let first = replicas.now()[0].suspected_until_ms.clone();
        replicas.become_those(&name, &[address(1), address(3)]);
        assert_eq!(keys(), ["10.0.0.1:8081", "10.0.0.3:8081"]);
        assert!(
            Arc::ptr_eq(&first, &replicas.now()[0].suspected_until_ms),
            "it stays the same"
        );
        replicas.become_those(&name, &[]);
        assert_eq!(keys().len(), 2, "no answer is no news");
        // Which one it is may change again, and the name knows.
        replicas.become_those(&name, &[address(1)]);
        replicas.become_those(&name, &[address(4)]);
        assert_eq!(keys(), ["quota.internal:8081"]);
        let both = [SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 8081)), address(1)];
        replicas.become_those(&name, &both);
        assert_eq!(
            keys(),
            ["quota.internal:8081"],
            "a replica of two families is one"
        );
        for address in [
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "https://octroi.example.com",
        ] {
            assert!(Name::of(&Endpoint::from_static(address)).is_none(), "{address}");
        }
    }
}

//! Who listens to what, over the whole fleet.

use super::{Queue, SubscribeError};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// One queue and what it listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The queue's name, without the namespace.
    pub queue: &'static str,
    /// Its routing keys, without wildcards.
    pub routing_keys: &'static [&'static str],
}

/// Every queue of the fleet. A publisher sees to it that they exist before it publishes, and a message whose
/// routing key stands here is not sent before each of its queues has it. A routing key that nobody listens to
/// is sent all the same: programs outside of the fleet may hear it ([`super::rabbitmq`]).
#[derive(Clone, Debug)]
pub struct Topology {
    routes: Arc<[Route]>,
}

/// A topology that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// A queue's name or a routing key is not 1 to 128 of `[a-z0-9_.]`.
    #[error("{0:?} is not 1 to 128 of [a-z0-9_.]")]
    Name(&'static str),
    /// A queue's name is one that belongs to another's dead letters or delays.
    #[error("queue {0} must neither end in .dead nor have .delay. in its name")]
    Reserved(&'static str),
    /// Two queues of the same name.
    #[error("queue {0} is there twice")]
    Twice(&'static str),
    /// A queue that listens to nothing.
    #[error("queue {0} listens to nothing")]
    Deaf(&'static str),
}

impl Topology {
    /// From pairs of queue and routing keys, such as the contract's table.
    ///
    /// # Errors
    /// If a name is not well-formed or is reserved (a wildcard is not well-formed: an event must know who
    /// hears it), a queue is there twice, or listens to nothing.
    pub fn new(
        routes: impl IntoIterator<Item = (&'static str, &'static [&'static str])>,
    ) -> Result<Self, TopologyError> {
        let mut queues = BTreeSet::new();
        let routes: Arc<[Route]> = routes
            .into_iter()
            .map(|(queue, routing_keys)| Route { queue, routing_keys })
            .collect();
        for route in routes.iter() {
            if route.routing_keys.is_empty() {
                return Err(TopologyError::Deaf(route.queue));
            }
            if !queues.insert(route.queue) {
                return Err(TopologyError::Twice(route.queue));
            }
            if route.queue.ends_with(".dead") || route.queue.contains(".delay.") {
                return Err(TopologyError::Reserved(route.queue));
            }
            for name in std::iter::once(&route.queue).chain(route.routing_keys) {
                if !is_name(name) {
                    return Err(TopologyError::Name(name));
                }
            }
        }
        Ok(Self { routes })
    }

    /// Every queue, in the order given.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The queues that listen to a routing key.
    pub fn queues_of<'a>(&'a self, routing_key: &'a str) -> impl Iterator<Item = &'static str> + 'a {
        self.routes
            .iter()
            .filter(move |route| route.routing_keys.contains(&routing_key))
            .map(|route| route.queue)
    }

    /// Checks a consumer's own words against the fleet's.
    pub(super) fn check(&self, queue: &Queue) -> Result<(), SubscribeError> {
        let Some(route) = self.routes.iter().find(|route| route.queue == queue.name) else {
            return Err(SubscribeError::UnknownQueue(queue.name));
        };
        let keys = |keys: &[&'static str]| keys.iter().copied().collect::<BTreeSet<_>>();
        if keys(route.routing_keys) != keys(queue.routing_keys) {
            let (expected, actual) = (route.routing_keys, queue.routing_keys);
            return Err(SubscribeError::OtherKeys {
                queue: queue.name,
                expected,
                actual,
            });
        }
        let handling = Duration::from_secs(1)..=Duration::from_secs(600);
        let checks = [
            (
                (1..=Queue::CONCURRENCY_MAX).contains(&queue.concurrency),
                "concurrency",
            ),
            ((1..=100).contains(&queue.delivery_limit), "delivery_limit"),
            (handling.contains(&queue.handling_max), "handling_max"),
        ];
        match checks.into_iter().find(|(ok, _)| !ok) {
            Some((_, field)) => Err(SubscribeError::OutOfRange {
                queue: queue.name,
                field,
            }),
            None => Ok(()),
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: [(&str, &[&str]); 2] = [
        ("usage.rollups", &["usage.recorded"]),
        ("quota.usage", &["usage.recorded", "account.closed"]),
    ];

    #[test]
    fn a_topology_does_not_contradict_itself() {
        let check = |routes: &[(&'static str, &'static [&'static str])], expected| {
            assert_eq!(Topology::new(routes.iter().copied()).err(), expected);
        };
        check(&ROUTES, None);
        check(&[("a", &["x"]), ("a", &["y"])], Some(TopologyError::Twice("a")));
        check(&[("a", &[])], Some(TopologyError::Deaf("a")));
        check(&[("a", &["x.*"])], Some(TopologyError::Name("x.*")));
        check(&[("a", &["#"])], Some(TopologyError::Name("#")));
        check(&[("a.dead", &["x"])], Some(TopologyError::Reserved("a.dead")));
        check(
            &[("a.delay.1ms", &["x"])],
            Some(TopologyError::Reserved("a.delay.1ms")),
        );
        check(&[("", &["x"])], Some(TopologyError::Name("")));
    }

    #[test]
    fn every_listener_of_a_key_is_found() -> Result<(), TopologyError> {
        let topology = Topology::new(ROUTES)?;
        let found = |key| topology.queues_of(key).collect::<Vec<_>>();
        assert_eq!(found("usage.recorded"), ["usage.rollups", "quota.usage"]);
        assert_eq!(found("account.closed"), ["quota.usage"]);
        assert!(found("account.created").is_empty());
        Ok(())
    }

    #[test]
    fn a_consumer_agrees_with_the_fleet() -> Result<(), TopologyError> {
        let topology = Topology::new(ROUTES)?;
        let good = Queue::new("quota.usage", &["account.closed", "usage.recorded"]);
        assert_eq!(topology.check(&good), Ok(()));
        let refused = |queue: Queue| topology.check(&queue).is_err();
        assert!(refused(Queue::new("quota.other", &["usage.recorded"])));
        assert!(refused(Queue::new("quota.usage", &["usage.recorded"])));
        assert!(refused(Queue {
            concurrency: 0,
            ..good
        }));
        assert!(refused(Queue {
            concurrency: 33,
            ..good
        }));
        assert!(refused(Queue {
            delivery_limit: 0,
            ..good
        }));
        assert!(refused(Queue {
            handling_max: Duration::ZERO,
            ..good
        }));
        Ok(())
    }
}

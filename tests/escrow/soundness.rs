//! What the search itself relies on.

use std::collections::BTreeSet;

use crate::{
    check::nearby,
    config::{Config, EMPTY, Hints, buffered, consume, give_back, hold},
    search::states,
    state::State,
    symmetry::{Names, every_name},
};

#[test]
fn states_that_differ_in_names_only_have_the_same_future() {
    const WORLD: Config = Config {
        name: "one unit for two, a crash",
        limits: [1, 0, 0],
        wishes: &[consume(1), consume(1)],
        asks: 1,
        settlers: 2,
        crashes: 1,
        ..EMPTY
    };
    let first_name = |state: &State| {
        let names = every_name(&WORLD, state);
        names.iter().map(|other| WORLD.shape().write(other).0).min()
    };
    let of = |names| -> BTreeSet<_> { states(&WORLD, names).iter().map(first_name).collect() };
    let (sorted, kept) = (of(Names::Sorted), of(Names::Kept));
    println!("{} states under any name", kept.len());
    assert!(
        sorted == kept,
        "{} where names are sorted, {} where they are kept",
        sorted.len(),
        kept.len()
    );
}

#[test]
fn a_state_is_read_as_it_was_written() {
    const WORLDS: [Config; 2] = [
        Config {
            wishes: &[hold(1, 2), consume(1), buffered(1), give_back(1)],
            crashes: 1,
            lower_to: 1,
            raise_to: 3,
            direct: 1,
            ..EMPTY
        },
        Config {
            limits: [2, 1, 1],
            hours: true,
            wishes: &[consume(1), consume(2)],
            hints: Hints::Redis,
            redis_faults: 2,
            ..EMPTY
        },
    ];
    for world in WORLDS {
        for state in nearby(&world, 5) {
            let (words, length) = world.shape().write(&state);
            assert_eq!(world.shape().read(&words[..length]), state);
        }
    }
}

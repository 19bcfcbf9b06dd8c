//! What a test of a world looks at.

use crate::{
    config::Config,
    invariants::{self, Invariant},
    moves::Moves,
    rules::Rule,
    search::{Report, search},
    state::State,
    steps,
    symmetry::Names,
};

fn say(config: &Config, report: &Report, watched: &[Invariant]) {
    let megabytes = report.states * (report.words * 8 + 12) / 1_000_000;
    println!(
        "{}: {} states, {} steps, depth {}, {} MB, {:.1} s, {} sights",
        config.name,
        report.states,
        report.steps,
        report.depth,
        megabytes,
        report.took.as_secs_f64(),
        report.sights.count(),
    );
    for invariant in watched {
        println!("  held in each: {invariant}");
    }
}

/// Searches a world to its end: everything holds in every state, and what has to happen does.
pub fn everything_holds(config: &Config) {
    let report = search(config, invariants::ALL, Names::Sorted);
    if let Some((broken, _)) = &report.broken {
        let way = search(config, &[*broken], Names::Kept);
        panic!("{}: not so: {broken}\n{}", config.name, story(&way));
    }
    say(config, &report, invariants::ALL);
    assert!(
        report.states >= config.states_min,
        "{}: only {} states",
        config.name,
        report.states
    );
    for sight in config.sights {
        assert!(report.sights.has(*sight), "{}: nobody saw {sight}", config.name);
    }
}

/// Searches a world until the invariant is broken, because the rule does not hold in it; with the rule it is kept.
pub fn is_broken_without(rule: Rule, invariant: Invariant, config: &Config) {
    let with = search(config, &[invariant], Names::Sorted);
    assert!(
        with.broken.is_none(),
        "{}: not so, although {rule:?} holds: {invariant}",
        config.name
    );
    let without = search(&config.without(rule), &[invariant], Names::Kept);
    say(config, &with, &[invariant]);
    assert!(
        without.broken.is_some(),
        "{}: so without {rule:?} too: {invariant}",
        config.name
    );
    println!(
        "without {rule:?}, after {} states, not so: {invariant}\n{}",
        without.states,
        story(&without)
    );
}

/// The shortest way to what is broken, a step a line.
fn story(report: &Report) -> String {
    let steps = report.broken.iter().flat_map(|(_, way)| way);
    steps.map(|step| format!("  {step}\n")).collect()
}

/// Every state that is at most `depth` steps away, some more than once.
pub fn nearby(config: &Config, depth: usize) -> Vec<State> {
    let mut found = vec![config.first()];
    let mut last = found.clone();
    for _ in 0..depth {
        let mut moves = Moves::new(config);
        for state in &last {
            steps::gather(&mut moves, state);
        }
        last = moves.found.iter().map(|(_, state)| *state).collect();
        found.extend(&last);
    }
    found
}

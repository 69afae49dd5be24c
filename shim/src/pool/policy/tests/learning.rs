//! What the policy makes of launches that it has seen.

use std::time::Duration;

use super::super::config::{HOUR, MILLISECOND, MINUTE, SECOND};
use super::super::*;
use super::world::{MIB, World, spec};

const A: PoolId = PoolId(1);

/// Poisson arrivals from a generator that is the same everywhere.
struct Dice(u64);

impl Dice {
    fn exponential(&mut self, mean: Nanos) -> Nanos {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let uniform = (self.0 >> 11) as f64 / (1_u64 << 53) as f64;
        let seconds = -(1.0 - uniform).ln() * mean as f64 / SECOND as f64;
        Nanos::try_from(Duration::from_secs_f64(seconds).as_nanos()).unwrap()
    }
}

/// Claims at this rate for a minute, forks that take so long; the pool's target at the end.
fn target_for(rate: u64, fork: Nanos) -> u32 {
    let config = Config { max_forks: 64, stand_back: 0, ..Config::default() };
    let mut world = World::new(config);
    world.declare(A, spec(0, 1_000));
    let mut dice = Dice(7);
    let mut due = std::collections::VecDeque::new();
    let mut known = std::collections::BTreeSet::new();
    let end = world.now + MINUTE;
    let mut next = world.now;
    while next < end {
        while let Some((time, sandbox)) = due.front().copied().filter(|(time, _)| *time <= next) {
            due.pop_front();
            world.pass(time - world.now);
            world.finish_fork(sandbox, MIB);
            due.extend(world.forks.keys().filter(|one| known.insert(**one)).map(|one| (time + fork, *one)));
        }
        world.pass(next - world.now);
        world.claim(A, 1, false);
        world.release_all();
        for sandbox in world.dying.clone() {
            world.gone(sandbox);
        }
        due.extend(world.forks.keys().filter(|one| known.insert(**one)).map(|one| (next + fork, *one)));
        next += dice.exponential(SECOND / rate);
    }
    world.policy.pool(A).unwrap().target
}

#[test]
fn targets_scale_with_rate_times_refill_time() {
    for (rate, fork) in [(10, 10), (50, 20), (100, 50), (200, 100)] {
        let little = (rate * fork) as f64 / 1_000.0;
        let target = f64::from(target_for(rate, fork * MILLISECOND));
        let most = little + 6.0 * little.sqrt() + 4.0;
        assert!(
            target >= little && target <= most,
            "{rate}/s x {fork} ms: {target}, Little's law says {little}"
        );
    }
}

#[test]
fn a_burst_is_expected_again() {
    let mut world = World::new(Config::default());
    world.declare(A, spec(0, 100));
    let mut cold = Vec::new();
    for _ in 0..3 {
        (0..20).for_each(|_| world.claim(A, 1, false));
        world.release_all();
        world.pass(MINUTE);
        world.settle();
        cold.push(std::mem::take(&mut world.cold).len());
    }
    assert_eq!(cold, [20, 0, 0]);
}

#[test]
fn a_timer_is_met_and_not_waited_for() {
    let mut world = World::new(Config::default());
    world.declare(A, spec(0, 4));
    let mut parked = [0; 30];
    for minute in 0..300 {
        if minute % 30 == 0 {
            world.claim(A, 1, false);
            world.release_all();
        }
        world.settle();
        world.pass(30 * SECOND);
        if minute >= 270 {
            parked[minute - 270] = world.parked_of(A);
        }
        world.pass(30 * SECOND);
        world.settle();
    }
    assert_eq!(parked[2..20], [0; 18], "nothing is kept where it never comes: {parked:?}");
    assert_eq!(parked[29], 1, "one is there when it comes: {parked:?}");
    let late = &world.granted[world.granted.len() - 4..];
    assert_eq!(late.len(), 4, "and is granted");
}

#[test]
fn without_a_pattern_one_is_kept_for_a_while() {
    let mut world = World::new(Config::default());
    world.declare(A, spec(0, 4));
    world.claim(A, 1, false);
    world.release_all();
    world.pass(9 * MINUTE);
    world.settle();
    assert_eq!(world.parked_of(A), 1);
    world.pass(2 * MINUTE);
    assert_eq!(world.parked_of(A), 0);
}

#[test]
fn nothing_flaps() {
    let mut world = World::new(Config::default());
    world.declare(A, spec(1, 50));
    for round in 0..600 {
        let claims = if round % 2 == 0 { 1 } else { 8 };
        (0..claims).for_each(|_| world.claim(A, 1, false));
        world.release_all();
        world.settle();
        world.pass(3 * SECOND);
        world.settle();
    }
    let idle = world.destroyed_for.iter().filter(|why| **why != End::Used).count();
    assert!(idle <= 20, "{idle} were made for nothing in {} launches", world.granted.len());
}

#[test]
fn a_bundle_that_is_launched_often_is_learned_and_forgotten() {
    let mut world = World::new(Config { max_learned_pools: 1, ..Config::default() });
    let [first, second] = [BundleKey(1), BundleKey(2)];
    world.send(Event::Observed { bundle: first });
    world.send(Event::Observed { bundle: first });
    assert!(world.learned.is_empty());
    world.send(Event::Observed { bundle: first });
    world.send(Event::Observed { bundle: first });
    assert_eq!(world.learned, [first], "it is asked for once");
    world.declare(A, Pool { learned: Some(first), ..spec(0, 16) });
    world.settle();
    assert_eq!(world.parked_of(A), 4, "what was seen before the pool was there counts");

    (0..3).for_each(|_| world.send(Event::Observed { bundle: second }));
    assert_eq!((world.learned.len(), world.forgotten.len()), (1, 0), "there is no room, and it is in use");
    world.pass(11 * MINUTE);
    world.send(Event::Observed { bundle: second });
    assert_eq!(world.forgotten, [A]);
    world.send(Event::PoolDeleted { pool: A });
    world.send(Event::Observed { bundle: second });
    assert_eq!(world.learned, [first, second]);
}

#[test]
fn a_learned_pool_that_nobody_uses_is_given_up() {
    let mut world = World::new(Config::default());
    world.declare(A, Pool { learned: Some(BundleKey(1)), ..spec(0, 16) });
    world.pass(4 * HOUR + MINUTE);
    assert_eq!(world.forgotten, [A]);
}

#[test]
fn remembered_bundles_are_bounded() {
    let mut world = World::new(Config { max_learned_keys: 10, ..Config::default() });
    for bundle in 0..1_000 {
        world.send(Event::Observed { bundle: BundleKey(bundle % 500) });
        world.pass(MILLISECOND);
    }
    assert_eq!(world.policy.keys.len(), 10);
}

//! The policy against a model of the world outside ([`world`]): in any order of events ([`any_order`]), and what is
//! expected of it in particular.

mod any_order;
mod learning;
mod world;

use super::config::{MILLISECOND, MINUTE, SECOND};
use super::*;
use world::{MIB, World, spec};

const A: PoolId = PoolId(1);
const B: PoolId = PoolId(2);

/// Without learning: targets are the floors.
fn plain() -> Config {
    Config { learning: false, ..Config::default() }
}

#[test]
fn the_floor_is_filled_and_refilled() {
    let mut world = World::new(plain());
    world.declare(A, spec(3, 8));
    assert_eq!(world.forks.len(), 3);
    world.settle();
    assert_eq!(world.parked_of(A), 3);
    world.claim(A, 1, false);
    world.launch_all();
    assert_eq!((world.granted.len(), world.parked_of(A), world.forks.len()), (1, 2, 1));
}

#[test]
fn so_many_forks_at_a_time() {
    let mut world = World::new(Config { max_forks: 4, ..plain() });
    world.declare(A, spec(10, 10));
    assert_eq!(world.forks.len(), 4);
    world.finish_a_fork();
    assert_eq!(world.forks.len(), 4);
}

#[test]
fn an_empty_pool_means_cold_or_a_short_wait() {
    let mut world = World::new(plain());
    world.declare(A, spec(1, 1));
    world.claim(A, 1, false); // waits for the one that is being made
    world.claim(A, 1, false); // nothing is being made for it
    assert_eq!(world.cold, vec![Why::Empty]);
    world.finish_a_fork();
    assert_eq!(world.granted.len(), 1);
    world.claim(A, 1, false);
    world.pass(3 * MILLISECOND);
    assert_eq!(world.cold, vec![Why::Empty, Why::Late]);
}

#[test]
fn only_waits_longer_and_makes_the_pool_fork() {
    let mut world = World::new(plain());
    world.declare(A, spec(0, 2));
    (0..3).for_each(|_| world.claim(A, 1, true));
    assert_eq!(world.forks.len(), 2);
    world.pass(MILLISECOND * 900);
    world.finish_a_fork();
    assert_eq!(world.granted.len(), 1);
    world.pass(MILLISECOND * 100);
    assert_eq!(world.refused, vec![Why::Late, Why::Late]);
}

#[test]
fn callers_take_turns_in_the_queue() {
    let mut world = World::new(Config { max_forks: 1, ..plain() });
    world.declare(A, spec(0, 1));
    for caller in [1, 1, 1, 2, 3] {
        world.claim(A, caller, true);
    }
    (0..5).for_each(|_| world.finish_a_fork());
    assert_eq!(world.granted_to(), [1, 2, 3, 1, 1]);
}

#[test]
fn limits_of_a_caller_hold_and_are_told() {
    let limits = Config { max_leases_per_caller: 2, max_waiting_per_caller: 1, max_waiting: 2, ..plain() };
    let mut world = World::new(limits);
    world.declare(A, spec(2, 4));
    world.settle();
    (0..3).for_each(|_| world.claim(A, 1, false));
    assert_eq!((world.granted.len(), world.cold.as_slice()), (2, &[Why::CallerLimit][..]));
    world.release_one();
    world.declare(B, spec(0, 4));
    for (caller, why) in [(1, None), (2, None), (2, Some(Why::QueueFull)), (3, Some(Why::QueueFull))] {
        let before = world.refused.len();
        world.claim(B, caller, true);
        assert_eq!(world.refused.get(before).copied(), why, "caller {caller}");
    }
}

#[test]
fn a_changed_bundle_never_serves_an_old_sandbox() {
    let mut world = World::new(plain());
    world.declare(A, spec(2, 2));
    world.finish_a_fork();
    world.send(Event::GenerationChanged { pool: A, generation: Generation(9) });
    assert_eq!(world.destroyed_for, [End::Stale]);
    world.finish_a_fork(); // the old one that was on its way
    assert_eq!(world.destroyed_for, [End::Stale, End::Stale]);
    world.settle();
    assert_eq!(world.parked_of(A), 2); // the world checks whose generation they are
}

#[test]
fn failing_forks_are_tried_again_ever_more_slowly() {
    let mut world = World::new(plain());
    world.declare(A, spec(1, 1));
    let mut tries = 0;
    let end = world.now + MINUTE;
    while world.now < end {
        if let Some(sandbox) = world.forks.keys().next().copied() {
            world.fail_fork(sandbox);
            tries += 1;
        }
        world.pass(10 * MILLISECOND);
    }
    assert!((8..=12).contains(&tries), "{tries} tries in a minute");
    world.pass(MINUTE);
    world.settle();
    assert_eq!(world.parked_of(A), 1);
}

#[test]
fn a_busy_pool_starves_no_floor_and_no_target() {
    let mut world = World::new(Config { max_forks: 2, ..Config::default() });
    world.declare(A, spec(0, 64));
    world.declare(B, spec(40, 64));
    world.declare(PoolId(3), spec(2, 2));
    world.claim(A, 1, false); // desires one from now on
    for _ in 0..60 {
        world.claim(B, 2, true);
        world.finish_a_fork();
        world.pass(MILLISECOND);
    }
    assert!(world.parked_of(B) < 40, "the busy pool is still hungry");
    assert_eq!((world.parked_of(PoolId(3)), world.parked_of(A)), (2, 1));
}

#[test]
fn refill_stands_back_for_launches_but_not_for_long() {
    let mut world = World::new(plain());
    world.declare(A, spec(10, 10));
    world.settle();
    (0..3).for_each(|_| world.claim(A, 1, false));
    assert_eq!(world.forks.len(), 0);
    world.launch_all();
    assert_eq!(world.forks.len(), 3);
    world.settle();
    // A daemon that never says that they have started, and launches without an end.
    let mut forked = 0;
    for _ in 0..100 {
        world.claim(A, 1, false);
        forked += world.forks.len();
        world.finish_forks();
        world.pass(MILLISECOND);
    }
    assert!(forked >= 90, "{forked} forks for 100 claims");
}

#[test]
fn the_budget_is_shared_by_value_after_the_floors() {
    let mut world = World::new(Config { budget: 10 * MIB, ..Config::default() });
    world.declare(A, spec(2, 20));
    world.declare(B, spec(2, 20));
    for _ in 0..50 {
        (0..12).for_each(|_| world.claim(A, 1, false));
        if world.now.is_multiple_of(10 * SECOND) {
            (0..12).for_each(|_| world.claim(B, 1, false));
        }
        world.release_all();
        world.settle();
        world.pass(2 * SECOND);
    }
    world.settle();
    assert_eq!((world.parked_of(A), world.parked_of(B)), (8, 2));
}

#[test]
fn too_small_a_budget_is_shared_among_the_floors() {
    let mut world = World::new(Config { budget: 6 * MIB, ..plain() });
    for pool in 1..=3 {
        world.declare(PoolId(pool), spec(10, 10));
    }
    world.settle();
    world.pass(10 * SECOND);
    world.settle();
    assert_eq!([1, 2, 3].map(|pool| world.parked_of(PoolId(pool))), [2, 2, 2]);
}

#[test]
fn pressure_evicts_the_least_valuable_and_lets_go_slowly() {
    let mut world = World::new(Config { budget: 64 * MIB, keep_available: 100 * MIB, ..Config::default() });
    world.declare(A, spec(2, 10));
    world.declare(B, spec(0, 10));
    (0..10).for_each(|_| world.claim(B, 1, false));
    world.pass(5 * MINUTE);
    (0..10).for_each(|_| world.claim(A, 1, false));
    world.release_all();
    world.settle();
    assert_eq!((world.parked_of(A), world.parked_of(B)), (10, 10));

    world.send(Event::Pressure { available: 95 * MIB, some: 0.0, full: 0.0 });
    assert_eq!((world.parked_of(A), world.parked_of(B)), (10, 5), "five sandboxes too many");
    assert!(world.destroyed_for.ends_with(&[End::Evicted; 5]));
    world.settle();
    for _ in 0..30 {
        world.send(Event::Pressure { available: 1000 * MIB, some: 60.0, full: 0.0 });
        world.settle();
        world.pass(SECOND);
    }
    assert_eq!((world.parked_of(A), world.parked_of(B)), (2, 0), "the floor stays");
    world.send(Event::Pressure { available: 1000 * MIB, some: 60.0, full: 30.0 });
    world.settle();
    assert_eq!(world.parked_of(A), 1, "where all stand still, the floor goes too");
    world.send(Event::Pressure { available: 110 * MIB, some: 0.0, full: 0.0 });
    assert_eq!(world.forks.len(), 0, "not yet");
    for _ in 0..30 {
        world.send(Event::Pressure { available: 1000 * MIB, some: 0.0, full: 0.0 });
        world.settle();
        world.pass(SECOND);
    }
    assert_eq!((world.parked_of(A), world.parked_of(B)), (10, 10));
}

#[test]
fn parked_ones_of_an_old_daemon_are_adopted_or_destroyed() {
    let mut world = World::new(plain());
    world.declare(A, Pool { generation: Generation(5), ..spec(2, 2) });
    let forked = world.forks.len();
    world.find_parked(SandboxId(70), A, Generation(5));
    world.find_parked(SandboxId(71), A, Generation(4));
    world.find_parked(SandboxId(72), B, Generation(5));
    world.find_running(SandboxId(80), 1);
    assert_eq!((forked, world.parked_of(A)), (2, 0), "two were on their way already");
    assert_eq!(world.destroyed_for, [End::Drained, End::Stale, End::Drained]);
    world.settle();
    world.claim(A, 1, false);
    assert!(world.forks.keys().all(|sandbox| sandbox.0 > 80), "no name is used twice");
    world.release_all();
    world.settle();
}

#[test]
fn a_drained_pool_is_emptied_at_once_and_stays_empty() {
    let mut world = World::new(Config { budget: 500 * MIB, ..plain() });
    world.declare(A, spec(500, 500));
    world.settle();
    world.send(Event::PoolDrained { pool: A });
    assert_eq!((world.parked_of(A), world.dying.len()), (0, 500));
    world.settle();
    world.claim(A, 1, false);
    world.pass(MINUTE);
    assert_eq!((world.forks.len(), world.cold.as_slice()), (0, &[Why::Draining][..]));
    world.send(Event::PoolResized { pool: A, min: 1, max: 1 });
    assert_eq!(world.forks.len(), 1);
}

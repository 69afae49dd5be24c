//! Any order of events. The world checks each action; here is what must hold in the end.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::config::{HOUR, MILLISECOND, MINUTE, SECOND};
use super::super::*;
use super::world::{MIB, World};

#[derive(Debug, Clone)]
enum Step {
    Declare(u32, u32, u32, u64, u64),
    Resize(u32, u32, u32),
    Drain(u32),
    Delete(u32),
    Generation(u32, u64),
    Claim(u32, u32, bool),
    Cancel(Index),
    Launched(Index),
    Ready(Index, u64),
    ForkFailed(Index),
    Died(Index),
    Released(Index),
    Destroyed(Index),
    Pressure(u64, f32, f32),
    Observed(u128),
    FoundParked(u32, u64),
    FoundRunning(u32),
    Nonsense(u64),
    Pass(Nanos),
    Leap(Nanos),
}

fn step() -> impl Strategy<Value = Step> {
    let pool = || 0..4_u32;
    let which = any::<Index>;
    prop_oneof![
        2 => (pool(), 0..6_u32, 0..10_u32, 1..5_u64, 0..3_u64).prop_map(|(pool, min, max, cost, generation)| Step::Declare(pool, min, max, cost, generation)),
        1 => (pool(), 0..6_u32, 0..10_u32).prop_map(|(pool, min, max)| Step::Resize(pool, min, max)),
        1 => pool().prop_map(Step::Drain),
        1 => pool().prop_map(Step::Delete),
        1 => (pool(), 0..3_u64).prop_map(|(pool, generation)| Step::Generation(pool, generation)),
        12 => (pool(), 0..3_u32, any::<bool>()).prop_map(|(pool, caller, only)| Step::Claim(pool, caller, only)),
        2 => which().prop_map(Step::Cancel),
        4 => which().prop_map(Step::Launched),
        16 => (which(), 1..6_u64).prop_map(|(which, cost)| Step::Ready(which, cost)),
        2 => which().prop_map(Step::ForkFailed),
        2 => which().prop_map(Step::Died),
        6 => which().prop_map(Step::Released),
        8 => which().prop_map(Step::Destroyed),
        2 => (0..80_u64, 0.0..100_f32, 0.0..20_f32).prop_map(|(available, some, full)| Step::Pressure(available, some, full)),
        3 => (0..6_u128).prop_map(Step::Observed),
        1 => (pool(), 0..3_u64).prop_map(|(pool, generation)| Step::FoundParked(pool, generation)),
        1 => (0..3_u32).prop_map(Step::FoundRunning),
        1 => (0..200_u64).prop_map(Step::Nonsense),
        8 => prop_oneof![0..5 * MILLISECOND, 0..2 * SECOND].prop_map(Step::Pass),
        2 => prop_oneof![0..20 * MINUTE, Just(5 * HOUR)].prop_map(Step::Leap),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    (0..40_u64, 1..5_u32, 4..40_u32, any::<bool>(), 1..6_u32).prop_map(
        |(budget, max_forks, max_sandboxes, learning, few)| Config {
            budget: budget * MIB,
            keep_available: 16 * MIB,
            max_sandboxes,
            max_forks,
            learning,
            max_waiting: few,
            max_waiting_per_caller: few,
            max_leases_per_caller: few * 2,
            max_learned_keys: 3,
            max_learned_pools: 2,
            ..Config::default()
        },
    )
}

fn pick<T: Copy>(which: Index, among: impl Iterator<Item = T>) -> Option<T> {
    let all: Vec<T> = among.collect();
    (!all.is_empty()).then(|| *which.get(&all))
}

/// A name that was never used.
fn found(world: &World) -> SandboxId {
    SandboxId(world.ever.last().map_or(0, |last| last.0) + 10)
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Declare(pool, min, max, cost, generation) => {
            let spec = Pool { min, max, cost: cost * MIB, generation: Generation(generation), learned: None };
            world.declare(PoolId(pool), spec);
        }
        Step::Resize(pool, min, max) => world.send(Event::PoolResized { pool: PoolId(pool), min, max }),
        Step::Drain(pool) => world.send(Event::PoolDrained { pool: PoolId(pool) }),
        Step::Delete(pool) => world.send(Event::PoolDeleted { pool: PoolId(pool) }),
        Step::Generation(pool, generation) => {
            world.send(Event::GenerationChanged { pool: PoolId(pool), generation: Generation(generation) });
        }
        Step::Claim(pool, caller, only) => world.claim(PoolId(pool), caller, only),
        Step::Pressure(available, some, full) => {
            world.send(Event::Pressure { available: available * MIB, some, full });
        }
        Step::Observed(bundle) => world.send(Event::Observed { bundle: BundleKey(bundle) }),
        Step::FoundRunning(caller) => world.find_running(found(world), caller),
        Step::FoundParked(pool, generation) => {
            world.find_parked(found(world), PoolId(pool), Generation(generation));
        }
        Step::Nonsense(id) => nonsense(world, id),
        Step::Pass(span) => world.pass(span),
        Step::Leap(span) => world.leap(span),
        answer => take_answer(world, answer),
    }
    // The daemon does as it is asked about learned pools.
    for bundle in std::mem::take(&mut world.learned) {
        let pool = PoolId(100 + u32::try_from(bundle.0).unwrap());
        let spec = Pool { min: 0, max: 4, cost: MIB, generation: Generation(1), learned: Some(bundle) };
        world.declare(pool, spec);
    }
    for pool in std::mem::take(&mut world.forgotten) {
        world.send(Event::PoolDeleted { pool });
    }
}

fn take_answer(world: &mut World, step: Step) {
    let (which, state) = match step {
        Step::Cancel(which) => {
            if let Some(request) = pick(which, world.open.keys().copied()) {
                world.cancel(request);
            }
            return;
        }
        Step::Ready(which, _) | Step::ForkFailed(which) => (which, world.forks.keys().copied().collect()),
        Step::Launched(which) | Step::Released(which) => (which, world.leased.keys().copied().collect()),
        Step::Destroyed(which) => (which, world.dying.iter().copied().collect()),
        Step::Died(which) => {
            let alive = world.forks.keys().chain(world.parked.keys()).chain(world.leased.keys());
            (which, alive.copied().collect::<Vec<_>>())
        }
        other => unreachable!("{other:?} is no answer"),
    };
    let Some(sandbox) = pick(which, state.into_iter()) else { return };
    match step {
        Step::Ready(_, cost) => world.finish_fork(sandbox, cost * MIB),
        Step::ForkFailed(_) => world.fail_fork(sandbox),
        Step::Launched(_) => world.send(Event::Launched { sandbox }),
        Step::Released(_) => world.send(Event::Released { sandbox }),
        Step::Destroyed(_) => world.gone(sandbox),
        _ => world.die(sandbox),
    }
}

/// Events about what is not there, or not in that state.
fn nonsense(world: &mut World, id: u64) {
    let sandbox = SandboxId(id);
    if !world.forks.contains_key(&sandbox) {
        world.send(Event::Ready { sandbox, cost: MIB });
        world.send(Event::ForkFailed { sandbox });
    }
    if !world.leased.contains_key(&sandbox) {
        world.send(Event::Released { sandbox });
        world.send(Event::Launched { sandbox });
    }
    if !world.dying.contains(&sandbox) {
        world.send(Event::Destroyed { sandbox });
    }
    world.send(Event::PoolDeleted { pool: PoolId(999) });
}

/// Everything calms down: whatever is wanted can be had.
fn calm_down(world: &mut World) {
    world.release_all();
    for _ in 0..40 {
        world.settle();
        world.send(Event::Pressure { available: 1 << 40, some: 0.0, full: 0.0 });
        world.settle();
        world.pass(SECOND);
        world.release_all();
    }
}

fn floors_are_kept(world: &World) {
    let views: Vec<(PoolId, View)> = world.policy.pools().filter(|(_, view)| !view.draining).collect();
    let (count, bytes) = views.iter().fold((0, 0), |(count, bytes), (_, view)| {
        (count + view.target.max(view.spec.min), bytes + u64::from(view.spec.min) * view.spec.cost)
    });
    let config = world.policy.config();
    if bytes <= config.budget && count <= config.max_sandboxes {
        for (pool, view) in views {
            assert!(view.parked >= view.spec.min, "{pool:?} is below its floor: {view:?}");
        }
    }
}

fn nothing_is_left(world: &mut World) {
    let pools: Vec<PoolId> = world.policy.pools().map(|(pool, _)| pool).collect();
    for pool in pools {
        world.send(Event::PoolDeleted { pool });
    }
    world.settle();
    assert!(world.parked.is_empty() && world.leased.is_empty() && world.open.is_empty());
    let policy = &world.policy;
    assert!(policy.slots.is_empty() && policy.needy.is_empty() && policy.callers.is_empty());
    assert!(policy.requests.is_empty() && policy.deadlines.is_empty());
    assert_eq!((policy.memory.live, policy.memory.dying, policy.forks, policy.starting), (0, 0, 0, 0));
    assert!(policy.keys.len() <= policy.config.max_learned_keys as usize);
}

proptest! {
    #[test]
    fn nothing_forbidden_happens_and_nothing_is_left(config in config(), steps in vec(step(), 1..200)) {
        let mut world = World::new(config);
        for step in steps {
            take(&mut world, step);
        }
        calm_down(&mut world);
        floors_are_kept(&world);
        nothing_is_left(&mut world);
    }

    #[test]
    fn the_same_events_give_the_same_actions(config in config(), steps in vec(step(), 1..60)) {
        let run = || {
            let mut world = World::new(config);
            steps.iter().for_each(|step| take(&mut world, step.clone()));
            world.log
        };
        prop_assert_eq!(run(), run());
    }
}

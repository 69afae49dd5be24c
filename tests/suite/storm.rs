//! Many at once, and killed at any moment: nothing is left, and nothing is stuck.
//!
//! `HEARTH_TEST_LONG=1`: 20 rounds of 100 containers, 1,000 kills. `HEARTH_TEST_SEED` repeats a run of kills, as far as
//! the machine's timing lets it.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hearth_tests::context::eventually;
use hearth_tests::leaks::Before;
use hearth_tests::{Container, Ctx, Running, cases};
use rustix::process::{Pid, Signal, kill_process};

cases! {
    settled:
        containers_that_live_and_die_at_once_leave_nothing;
    hearth:
        commands_and_inits_killed_at_random_leave_nothing;
}

/// One container's life. A killed init may take a moment to be gone.
const LIFE: &str = r#"
    set -e
    run() { "$RUNTIME" --root "$ROOT" "$@" </dev/null >/dev/null; }
    run create --bundle "$BUNDLE" "$ID"
    run start "$ID"
    [ "$("$RUNTIME" --root "$ROOT" exec "$ID" echo from "$ID")" = "from $ID" ]
    run kill "$ID" KILL
    for _ in $(seq 200); do
        case $("$RUNTIME" --root "$ROOT" state "$ID") in *'"stopped"'*) run delete "$ID"; exit ;; esac
        sleep 0.05
    done
    echo "$ID does not stop" >&2
    exit 1
"#;

fn containers_that_live_and_die_at_once_leave_nothing(t: &Ctx) {
    let (rounds, count) = if t.long() { (20, 100) } else { (2, 16) };
    let first = t.sleeper();
    let before = Before::look();
    for round in 1..=rounds {
        let lives: Vec<Running> = (0..count)
            .map(|_| {
                let life = t.host_command("sh", &["-c", LIFE]);
                let life = life.env("RUNTIME", &t.runtime.path).env("ROOT", t.root());
                life.env("BUNDLE", &first.bundle).env("ID", t.id()).spawn()
            })
            .collect();
        for life in lives {
            life.finish().ok();
        }
        let leaks = t.leaks_since(&before);
        assert!(leaks.is_empty(), "round {round}: {leaks:#?}");
    }
}

/// What is killed on its way, with what has to be there before.
#[derive(Debug, Clone, Copy)]
struct Victim {
    verb: &'static str,
    flags: &'static [&'static str],
    rest: &'static [&'static str],
    needs: Needs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Created,
    Running,
}

const VICTIMS: &[Victim] = &[
    Victim { verb: "create", flags: &[], rest: &[], needs: Needs::Nothing },
    Victim { verb: "create", flags: &["--init"], rest: &[], needs: Needs::Nothing },
    Victim { verb: "run", flags: &[], rest: &[], needs: Needs::Nothing },
    Victim { verb: "run", flags: &["--init"], rest: &[], needs: Needs::Nothing },
    Victim { verb: "run", flags: &["--detach"], rest: &[], needs: Needs::Nothing },
    Victim { verb: "start", flags: &[], rest: &[], needs: Needs::Created },
    Victim { verb: "exec", flags: &[], rest: &["true"], needs: Needs::Running },
    Victim { verb: "delete", flags: &["--force"], rest: &[], needs: Needs::Running },
    Victim { verb: "update", flags: &["--pids-limit", "100"], rest: &[], needs: Needs::Running },
    Victim { verb: "pause", flags: &[], rest: &[], needs: Needs::Running },
];

/// Whom the signal takes: the command, the youngest of its children, or both.
const TARGETS: &[(bool, bool)] = &[(true, false), (false, true), (true, true)];

/// The commands of a container that runs `sleep` take no longer than this.
const SPAN: Duration = Duration::from_millis(30);

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(value).expect("31 bits") % limit
    }
}

fn seed() -> u64 {
    let given = std::env::var("HEARTH_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| u64::from(now.subsec_nanos()));
    given.unwrap_or_else(now).max(1)
}

fn commands_and_inits_killed_at_random_leave_nothing(t: &Ctx) {
    let seed = seed();
    let mut random = Random(seed);
    let lasting = t.sleeper();
    // For a `run` that is killed too late.
    let brief = t.container(|c| c.args(&["sleep", "0.5"]));
    let before = Before::look();
    for number in 1..=if t.long() { 1000 } else { 60 } {
        let victim = VICTIMS[random.below(VICTIMS.len())];
        let target = TARGETS[random.below(TARGETS.len())];
        let delay = SPAN * u32::try_from(random.below(1000)).expect("small") / 1000;
        let c = if victim.verb == "run" { brief.sibling() } else { lasting.sibling() };
        prepare(&c, victim.needs);
        strike(&c, victim, target, delay);
        repair(t, &c, victim);
        let leaks = t.leaks_since(&before);
        assert!(
            leaks.is_empty(),
            "seed {seed}, kill {number}, {victim:?} {target:?} after {delay:?}: {leaks:#?}"
        );
    }
}

fn prepare(c: &Container<'_>, needs: Needs) {
    if needs != Needs::Nothing {
        c.create().ok();
    }
    if needs == Needs::Running {
        c.start().ok();
    }
}

fn strike(c: &Container<'_>, victim: Victim, (command, child): (bool, bool), delay: Duration) {
    let mut run = match victim.needs {
        Needs::Nothing => c.launch(victim.verb, victim.flags),
        _ => c.verb(victim.verb, victim.flags, victim.rest),
    }
    .spawn();
    let started = Instant::now();
    while started.elapsed() < delay {
        std::hint::spin_loop();
    }
    let youngest = child.then(|| youngest_child(run.pid())).flatten();
    // Either may have ended by itself.
    if let Some(child) = youngest {
        let _ = kill_process(child, Signal::KILL);
    }
    if command && !run.is_over() {
        let _ = kill_process(run.pid(), Signal::KILL);
    }
    // Whoever was not killed comes to an end: no command waits for ever.
    run.finish();
}

fn youngest_child(pid: Pid) -> Option<Pid> {
    let pid = pid.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().last()?.parse().ok()?)
}

/// What is still there works as if nothing had happened, and can be deleted.
fn repair(t: &Ctx, c: &Container<'_>, victim: Victim) {
    if victim.verb == "pause" && c.verb("state", &[], &[]).run().stdout.contains("\"paused\"") {
        c.verb("resume", &[], &[]).run().ok();
    }
    if matches!(victim.verb, "exec" | "update" | "pause") {
        c.exec(&["true"]).ok();
        if t.has_controller("pids") {
            c.verb("update", &["--pids-limit", "200"], &[]).run().ok();
        }
    }
    eventually(&format!("{} to be deleted", c.id), || {
        (c.verb("delete", &["--force"], &[]).run().code == 0).then_some(())
    });
}

//! Launches: at what time, of which bundle.

use std::fmt::Write;

use hearth_shim::pool::policy::Nanos;
use hearth_shim::pool::policy::config::{HOUR, MILLISECOND, MINUTE, SECOND};

pub const NAMES: [&str; 4] = ["poisson", "bursts", "diurnal", "azure"];

#[derive(Debug)]
pub struct Trace {
    pub name: &'static str,
    pub about: String,
    pub bundles: u32,
    pub length: Nanos,
    /// In order of time.
    pub launches: Vec<(Nanos, u32)>,
}

impl Trace {
    /// `table` is that of the trace `azure`.
    pub fn named(name: &str, table: Option<&str>) -> Result<Self, String> {
        let mut dice = Dice::new(20_251_125);
        match name {
            "poisson" => Ok(poisson(&mut dice)),
            "bursts" => Ok(bursts(&mut dice)),
            "diurnal" => Ok(diurnal(&mut dice)),
            _ => from_table(table.unwrap_or_default(), &mut dice),
        }
    }

    fn new(
        name: &'static str,
        about: &str,
        bundles: u32,
        length: Nanos,
        mut launches: Vec<(Nanos, u32)>,
    ) -> Self {
        launches.retain(|(time, _)| *time < length);
        launches.sort_unstable();
        Self { name, about: about.into(), bundles, length, launches }
    }

    pub fn hours(&self) -> f64 {
        self.length as f64 / HOUR as f64
    }
}

fn poisson(dice: &mut Dice) -> Trace {
    let (rates, length) = ([50.0, 10.0, 2.0, 0.5, 0.1, 0.01], 20 * MINUTE);
    let mut launches = Vec::new();
    for (bundle, rate) in (0..).zip(rates) {
        let mut time = dice.wait(rate);
        while time < length {
            launches.push((time, bundle));
            time += dice.wait(rate);
        }
    }
    Trace::new("poisson", "Poisson arrivals, 50 to 0.01 a second", 6, length, launches)
}

/// Each bundle is quiet for a time and then launched many times within a tenth of a second.
fn bursts(dice: &mut Dice) -> Trace {
    let (sizes, length) = ([4, 8, 16, 32], 2 * HOUR);
    let mut launches = Vec::new();
    for (bundle, size) in (0..).zip(sizes) {
        let mut time = dice.wait(1.0 / 90.0);
        while time < length {
            for _ in 0..size / 2 + dice.below(size) {
                launches.push((time + dice.below(100) * MILLISECOND, bundle));
            }
            time += dice.wait(1.0 / 90.0);
        }
    }
    Trace::new("bursts", "Bursts of 4 to 32 launches, a minute and a half apart", 4, length, launches)
}

/// A day of ten bundles, their rates going up and down by a factor of 25, by thinning.
fn diurnal(dice: &mut Dice) -> Trace {
    let length = 24 * HOUR;
    let mut launches = Vec::new();
    for bundle in 0..10 {
        let most = 0.4 / f64::from(bundle + 1);
        let mut time = dice.wait(most);
        while time < length {
            let share = (time as f64 / length as f64 * std::f64::consts::TAU).cos().mul_add(-0.48, 0.52);
            if dice.share() < share {
                launches.push((time, bundle));
            }
            time += dice.wait(most);
        }
    }
    Trace::new("diurnal", "A day, quiet at night", 10, length, launches)
}

/// A line a bundle: its trigger, then MINUTE:COUNT for each minute with launches.
fn from_table(table: &str, dice: &mut Dice) -> Result<Trace, String> {
    let wrong =
        |line: &str| format!("the table of launches: expected TRIGGER,MINUTE:COUNT,..., not {line:?}");
    let (mut launches, mut bundles, mut length) = (Vec::new(), 0, 0);
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let (trigger, counts) = line.split_once(',').ok_or_else(|| wrong(line))?;
        for item in counts.split(',') {
            let (minute, count) = item.split_once(':').ok_or_else(|| wrong(item))?;
            let minute: u64 = minute.parse().map_err(|_| wrong(item))?;
            let count: u64 = count.parse().map_err(|_| wrong(item))?;
            length = length.max((minute + 1) * MINUTE);
            let queued = dice.below(55) * SECOND;
            for at in 0..count {
                let within = match trigger {
                    "timer" => at * MINUTE / count + dice.below(100) * MILLISECOND,
                    "queue" => queued + dice.below(5_000) * MILLISECOND,
                    _ => dice.below(60_000) * MILLISECOND,
                };
                launches.push((minute * MINUTE + within, bundles));
            }
        }
        bundles += 1;
    }
    Ok(Trace::new("azure", "Shaped like the Azure Functions trace", bundles, length, launches))
}

/// The committed table. Its shape is that which "Serverless in the Wild" (ATC'20) published of Azure Functions: about
/// 45 % of the applications are launched at most once an hour on the average, 81 % at most once a minute, and the
/// rest does nearly all launches; one in six is a timer, which comes at exact intervals; rates follow the day.
pub fn make_table() -> String {
    const BUNDLES: u64 = 60;
    const MINUTES: u64 = 8 * 60;
    let mut dice = Dice::new(1);
    let mut table = String::from(
        "# Launches a minute of 60 made-up bundles in 8 hours: TRIGGER,MINUTE:COUNT,... Made by `pool-sim --make-table`\n\
         # after the shape that \"Serverless in the Wild\" (ATC'20) published; no line is of a real application.\n",
    );
    for at in 0..BUNDLES {
        let rank = (at as f64 + dice.share()) / BUNDLES as f64;
        // Launches a minute: up to one an hour, up to one a minute, up to forty.
        let rate = match rank {
            rank if rank < 0.45 => 10_f64.powf(-2.6 + rank / 0.45 * 0.82),
            rank if rank < 0.81 => 10_f64.powf(-1.78 + (rank - 0.45) / 0.36 * 1.78),
            rank => 10_f64.powf((rank - 0.81) / 0.19 * 1.6),
        };
        let trigger = if at % 6 == 2 {
            "timer"
        } else if at % 6 == 4 {
            "queue"
        } else {
            "http"
        };
        let counts = if trigger == "timer" {
            timer(rate, MINUTES, &mut dice)
        } else {
            drawn(rate, MINUTES, &mut dice)
        };
        if !counts.is_empty() {
            let _ = write!(table, "{trigger}");
            for (minute, count) in counts {
                let _ = write!(table, ",{minute}:{count}");
            }
            table.push('\n');
        }
    }
    table
}

/// Once in one of the usual intervals, or several times a minute.
fn timer(rate: f64, minutes: u64, dice: &mut Dice) -> Vec<(u64, u64)> {
    const USUAL: [u64; 8] = [1, 5, 10, 15, 30, 60, 120, 240];
    let every = USUAL.into_iter().find(|every| 1.0 / *every as f64 <= rate).unwrap_or(240);
    let from = dice.below(every);
    (from..minutes).step_by(usize::try_from(every).unwrap_or(1)).map(|minute| (minute, 1)).collect()
}

/// Poisson counts; the rate swings by half over the hours.
fn drawn(rate: f64, minutes: u64, dice: &mut Dice) -> Vec<(u64, u64)> {
    let mut counts = Vec::new();
    for minute in 0..minutes {
        let swing = (minute as f64 / minutes as f64 * std::f64::consts::TAU).sin().mul_add(0.5, 1.0);
        let (mut left, mut count) = (-(rate * swing), 0);
        loop {
            left += dice.exponential();
            if left > 0.0 {
                break;
            }
            count += 1;
        }
        if count > 0 {
            counts.push((minute, count));
        }
    }
    counts
}

/// Random numbers that are the same everywhere (SplitMix64).
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// From 0 up to 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self) -> f64 {
        -(1.0 - self.share()).ln()
    }

    /// Until the next of so many a second.
    fn wait(&mut self, rate: f64) -> Nanos {
        nanos(self.exponential() / rate)
    }
}

fn nanos(seconds: f64) -> Nanos {
    let span = std::time::Duration::try_from_secs_f64(seconds).unwrap_or(std::time::Duration::MAX);
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

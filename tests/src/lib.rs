//! The harness of Hearth's black-box suite. It knows an OCI runtime by its command line only, so that every case
//! can be proven on runc before it judges `hearth`.
//!
//! How a run is built, outermost first:
//! - [`runner`]: `suite` starts workers, each PID 1 of its own PID and mount namespaces (`unshare(1)` makes them),
//!   and hands them the names of cases. Whatever a case leaves behind is therefore its own: no other work on the
//!   machine shows up in a worker's namespaces.
//! - [`leaks`]: after every case the worker compares mounts, processes, cgroups and files with those before.
//! - [`context`]: what a case gets: a directory, unique ids, the runtime; [`invoke`] runs commands, [`container`]
//!   wraps one id, [`bundle`] makes bundles, [`terminal`] speaks to consoles, [`program`] makes tiny executables,
//!   [`user`] is an ordinary user to run the runtime as.
//!
//! [`mod@bench`] is the benchmark `hearth-bench`, which shares the bundles and tiny executables; [`sim`] is `pool-sim`,
//! which shares its tables and pictures.
//!
//! A new case goes into the file of `tests/suite/` that names its behaviour, and into that file's `cases!` table.

pub mod bench;
pub mod bundle;
pub mod container;
pub mod context;
pub mod invoke;
pub mod leaks;
pub mod pool;
pub mod program;
pub mod runner;
pub mod runtime;
pub mod sim;
pub mod terminal;
pub mod user;

pub use bundle::Config;
pub use container::Container;
pub use context::{Case, Ctx, Side};
pub use invoke::{Out, Running};
pub use serde_json::{Value, json};

/// Declares a file's cases: `cases! { settled: a, b; newer: c; hearth: d; }`.
///
/// `settled` cases hold for every OCI runtime, `newer` ones for runc from 1.5 on (and for hearth), `hearth` ones for
/// hearth only. `leaking` ones test the harness: they pass where the leak check objects.
#[macro_export]
macro_rules! cases {
    ($($side:ident: $($name:ident),+ $(,)?;)+) => {
        pub(crate) const CASES: &[$crate::Case] = &[$($(
            $crate::Case {
                name: concat!(module_path!(), "::", stringify!($name)),
                side: $crate::cases!(@side $side),
                run: $name,
            },
        )+)+];
    };
    (@side settled) => { $crate::Side::Settled };
    (@side newer) => { $crate::Side::Newer };
    (@side hearth) => { $crate::Side::Hearth };
    (@side leaking) => { $crate::Side::Leaking };
}

//! The warm pool's policy: which sandboxes are made, granted and destroyed, and when.
//!
//! PURE: events go in, actions come out, nothing else. The time is an argument; the same events at the same times
//! give the same actions.
//!
//! - [`words`]: identifiers, events, actions. [`config`]: the settings.

pub mod config;
pub mod words;

pub use config::{Config, Nanos};
pub use words::{Action, BundleKey, Caller, End, Event, Generation, Pool, PoolId, RequestId, SandboxId, Why};

/// The policy's state. So far it has no pools: every claim is answered, and every sandbox destroyed.
#[derive(Debug)]
pub struct Policy {
    config: Config,
}

impl Policy {
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes an event, and appends what is to be done to `actions`.
    pub fn on(&mut self, _now: Nanos, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Claim { request, only: true, .. } => {
                actions.push(Action::Refuse { request, why: Why::NoPool });
            }
            Event::Claim { request, only: false, .. } => {
                actions.push(Action::Cold { request, why: Why::NoPool });
            }
            Event::FoundParked { sandbox, .. } => {
                actions.push(Action::Destroy { sandbox, why: End::Drained });
            }
            Event::Released { sandbox } => actions.push(Action::Destroy { sandbox, why: End::Used }),
            _ => {}
        }
    }
}

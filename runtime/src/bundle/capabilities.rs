//! Capability names and sets as bit masks.

use std::str::FromStr;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The five sets of a process, a bit per capability.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sets {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

impl Sets {
    pub fn from_spec(spec: &LinuxCapabilities) -> Self {
        let mask = |set: &Option<Capabilities>| set.iter().flatten().map(|cap| bit(*cap)).sum();
        Self {
            bounding: mask(spec.bounding()),
            effective: mask(spec.effective()),
            inheritable: mask(spec.inheritable()),
            permitted: mask(spec.permitted()),
            ambient: mask(spec.ambient()),
        }
    }

    /// What of this a process with the capabilities `have` cannot be given: to be warned of, as the spec asks for
    /// and partly in runc's words.
    pub fn warnings(&self, have: u64) -> impl Iterator<Item = String> {
        let all = self.bounding | self.effective | self.inheritable | self.permitted | self.ambient;
        let (missing, refused) = (all & !have, self.ambient & !(self.permitted & self.inheritable));
        caps::all().into_iter().filter_map(move |cap| match 1_u64 << cap.index() {
            bit if missing & bit != 0 => {
                Some(format!("can't grant {cap}: the runtime has not got it itself"))
            }
            bit if refused & bit != 0 => Some(format!(
                "can't raise ambient capability {cap}: it is not both permitted and inheritable"
            )),
            _ => None,
        })
    }

    /// What `exec --cap NAME` adds, as runc does it: to bounding, effective and permitted; to ambient where the
    /// inheritable set allows it.
    pub fn add(&mut self, mask: u64) {
        self.bounding |= mask;
        self.effective |= mask;
        self.permitted |= mask;
        self.ambient |= mask & self.inheritable;
    }
}

/// The mask of one name as it is given on a command line.
pub fn parse(name: &str) -> Result<u64> {
    caps::Capability::from_str(&name.to_ascii_uppercase())
        .map(|cap| 1 << cap.index())
        .map_err(|_| Error::invalid("--cap", name, "the name of a capability, such as CAP_NET_ADMIN"))
}

fn bit(cap: Capability) -> u64 {
    // The two crates name the same kernel constants; the test below proves it for every one.
    let name = cap.to_string();
    let name = if name.starts_with("CAP_") { name } else { format!("CAP_{name}") };
    caps::Capability::from_str(&name).map_or(0, |cap| 1 << cap.index())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_of_the_kernel_is_known_to_both_crates() {
        for cap in caps::all() {
            let name = cap.to_string();
            let spec: Capability = serde_json::from_value(name.clone().into()).unwrap();
            assert_eq!(bit(spec), 1 << cap.index(), "{name}");
        }
    }
}

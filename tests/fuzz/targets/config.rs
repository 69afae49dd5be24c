//! config.json, from the file to the plan: whatever it says, it is refused or planned, and init understands the plan.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use hearth::bundle::{load, plan};
use hearth::isolate::{cgroup, intel_rdt};
use libfuzzer_sys::fuzz_target;

static BUNDLE: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = PathBuf::from("/dev/shm/hearth-fuzz");
    fs::create_dir_all(&dir).unwrap();
    dir
});

fuzz_target!(|text: &[u8]| {
    fs::write(BUNDLE.join("config.json"), text).unwrap();
    let Ok(bundle) = load::bundle(&BUNDLE) else { return };
    let Ok(plan) = plan::plan("fuzz", &bundle) else { return };
    let declared = bundle.spec.linux().as_ref().and_then(|linux| linux.devices().as_deref());
    let _ = cgroup::device_rules(plan.host.resources.as_ref(), declared.unwrap_or_default());
    let _ = plan.host.intel_rdt.as_ref().map(|rdt| intel_rdt::plan(rdt, "fuzz"));
    plan::runtime_hooks(&bundle.spec).expect("the plan has them already");
    let sent = postcard::to_stdvec(&plan.init).unwrap();
    assert_eq!(postcard::from_bytes::<plan::Init>(&sent).unwrap(), plan.init);
});

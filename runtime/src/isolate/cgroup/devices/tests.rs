use proptest::prelude::*;

use super::*;

/// The definition that everything else is held against: each kind of access is decided by the last rule that
/// names it for this device.
pub(in super::super) fn allows(
    rules: &[DeviceRule],
    kind: Kind,
    major: u32,
    minor: u32,
    wanted: Access,
) -> bool {
    let device = Devices { kind: Some(kind), major: Some(major), minor: Some(minor) };
    [Access::MKNOD, Access::READ, Access::WRITE].into_iter().filter(|bit| wanted.contains(*bit)).all(|bit| {
        let speaks = |rule: &&DeviceRule| rule.access.contains(bit) && rule.devices.covers(device);
        rules.iter().rev().find(speaks).is_some_and(|rule| rule.allow)
    })
}

fn number() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![1 => Just(None), 3 => (0_u32..4).prop_map(Some)]
}

pub(in super::super) fn rule() -> impl Strategy<Value = DeviceRule> {
    let kind = prop_oneof![Just(None), Just(Some(Kind::Char)), Just(Some(Kind::Block))];
    (any::<bool>(), kind, number(), number(), 1_u8..8).prop_map(|(allow, kind, major, minor, access)| {
        DeviceRule { allow, devices: Devices { kind, major, minor }, access: Access(access) }
    })
}

/// What the v1 controller makes of the writes: a default and a flat list of exceptions to it.
fn v1_allows(writes: &[V1Write], kind: Kind, major: u32, minor: u32, wanted: Access) -> bool {
    let device = format!("{} ", if kind == Kind::Char { "c" } else { "b" });
    let mut default = true;
    let mut exceptions = Vec::new();
    for write in writes {
        if write.value == "a" {
            default = write.file == "devices.allow";
            exceptions.clear();
        } else {
            assert_eq!(write.file == "devices.allow", !default, "only exceptions to the default are written");
            exceptions.push(write.value.clone());
        }
    }
    let is_excepted = exceptions.iter().any(|line| {
        let Some((numbers, access)) = line.strip_prefix(&device).and_then(|rest| rest.split_once(' ')) else {
            return false;
        };
        let (a, b) = numbers.split_once(':').unwrap();
        let is = |text: &str, n: u32| text == "*" || text == n.to_string();
        is(a, major) && is(b, minor) && access.contains(&wanted.to_string())
    });
    default != is_excepted
}

fn probes() -> impl Iterator<Item = (Kind, u32, u32, Access)> {
    let access = || [Access::MKNOD, Access::READ, Access::WRITE].into_iter();
    [Kind::Char, Kind::Block].into_iter().flat_map(move |kind| {
        (0..5).flat_map(move |major| {
            (0..5).flat_map(move |minor| access().map(move |a| (kind, major, minor, a)))
        })
    })
}

proptest! {
    #[test]
    fn simplifying_changes_no_verdict(rules in prop::collection::vec(rule(), 0..8)) {
        let (mut asked, otherwise) = simplify(&rules);
        asked.push(DeviceRule { allow: otherwise, devices: Devices::EVERY, access: Access::ALL });
        asked.reverse();
        for (kind, major, minor, access) in probes() {
            prop_assert_eq!(
                allows(&asked, kind, major, minor, access),
                allows(&rules, kind, major, minor, access)
            );
        }
    }

    #[test]
    fn v1_writes_mean_what_the_rules_mean_or_are_refused(rules in prop::collection::vec(rule(), 0..6)) {
        if let Ok(writes) = v1_writes(&rules) {
            for (kind, major, minor, access) in probes() {
                prop_assert_eq!(
                    v1_allows(&writes, kind, major, minor, access),
                    allows(&rules, kind, major, minor, access),
                    "{:?} {}:{} {} {:?}", kind, major, minor, access, writes
                );
            }
        }
    }
}

fn parsed(json: serde_json::Value) -> Result<Vec<DeviceRule>> {
    let resources: LinuxResources = serde_json::from_value(serde_json::json!({ "devices": json })).unwrap();
    rules(Some(&resources), &[])
}

#[test]
fn dockers_rules_cost_one_write_for_each_device_and_one_to_close() {
    let docker = serde_json::json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm" },
        { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" },
        { "allow": true, "type": "c", "major": -1, "minor": -1, "access": "m" },
        { "allow": false, "type": "c", "major": 10, "minor": 229, "access": "rwm" },
    ]);
    let writes = v1_writes(&parsed(docker).unwrap()).unwrap();
    assert_eq!(writes[0], V1Write { file: "devices.deny", value: "a".to_owned() });
    assert_eq!(writes.len(), 1 + DEFAULTS.len(), "{writes:?}");
}

#[test]
fn a_hole_in_a_wider_exception_is_refused_on_v1() {
    let holed = serde_json::json!([
        { "allow": true, "type": "b", "major": 8, "access": "rw" },
        { "allow": false, "type": "b", "major": 8, "minor": 1, "access": "w" },
    ]);
    let error = v1_writes(&parsed(holed).unwrap()).unwrap_err().to_string();
    assert!(error.contains("b 8:1 w") && error.contains("b 8:* rw"), "{error}");
}

#[test]
fn a_declared_device_follows_the_configs_rules() {
    let null: LinuxDevice = serde_json::from_value(
        serde_json::json!({ "path": "/dev/null", "type": "c", "major": 1, "minor": 3 }),
    )
    .unwrap();
    let rules = rules(None, &[null]).unwrap();
    assert!(!allows(&rules, Kind::Char, 1, 3, Access::READ));
    assert!(allows(&rules, Kind::Char, 1, 5, Access::READ));
}

#[test]
fn bad_rules_are_refused_by_name() {
    for (rule, part) in [
        (serde_json::json!({ "allow": true, "type": "p", "access": "r" }), "devices[0].type: p"),
        (
            serde_json::json!({ "allow": true, "type": "c", "major": -2, "access": "r" }),
            "devices[0].major: -2",
        ),
        (
            serde_json::json!({ "allow": true, "type": "c", "minor": 1_u64 << 32, "access": "r" }),
            "devices[0].minor: 4294967296",
        ),
        (serde_json::json!({ "allow": true, "type": "c", "access": "rx" }), "devices[0].access: \"rx\""),
        (serde_json::json!({ "allow": true, "type": "c" }), "devices[0].access: \"\""),
    ] {
        let error = parsed(serde_json::json!([rule])).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

use serde_json::{Value, json};

use super::*;

fn resources(json: Value) -> LinuxResources {
    serde_json::from_value(json).unwrap()
}

fn lines(settings: &[Setting]) -> Vec<String> {
    settings.iter().map(|s| format!("{}={}", s.file, s.value)).collect()
}

fn in_v1(json: Value) -> Result<Vec<String>> {
    let resources = resources(json);
    let mut all = Vec::new();
    for controller in needed(&resources) {
        all.extend(lines(&v1(controller, &resources)?));
    }
    Ok(all)
}

fn in_v2(json: Value) -> Result<Vec<String>> {
    let resources = resources(json);
    let mut all = Vec::new();
    for controller in needed(&resources) {
        all.extend(lines(&v2(controller, &resources, &Current::default())?));
    }
    Ok(all)
}

#[test]
fn memory_and_swap_are_one_sum_in_v1_and_two_numbers_in_v2() {
    for (memory, v1, v2) in [
        (json!({ "limit": 100 }), vec!["memory.limit_in_bytes=100"], vec!["memory.max=100"]),
        (
            json!({ "limit": 100, "swap": 150 }),
            vec!["memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=150"],
            vec!["memory.swap.max=50", "memory.max=100"],
        ),
        (
            json!({ "limit": 100, "swap": 100 }),
            vec!["memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=100"],
            vec!["memory.swap.max=0", "memory.max=100"],
        ),
        (
            json!({ "limit": 100, "swap": -1 }),
            vec!["memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=-1"],
            vec!["memory.swap.max=max", "memory.max=100"],
        ),
        (
            json!({ "limit": -1 }),
            vec!["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"],
            vec!["memory.swap.max=max", "memory.max=max"],
        ),
        (
            json!({ "limit": -1, "swap": 70 }),
            vec!["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=70"],
            vec!["memory.swap.max=70", "memory.max=max"],
        ),
        (json!({ "reservation": 70 }), vec!["memory.soft_limit_in_bytes=70"], vec!["memory.low=70"]),
        (json!({ "limit": 0, "swap": 0, "kernel": 5, "useHierarchy": true }), vec![], vec![]),
        (
            json!({ "swappiness": 7, "disableOOMKiller": true }),
            vec!["memory.oom_control=1", "memory.swappiness=7"],
            vec![],
        ),
        (json!({ "swappiness": u64::MAX }), vec![], vec![]),
    ] {
        let json = json!({ "memory": memory });
        assert_eq!(in_v1(json.clone()).unwrap(), v1, "{json}");
        assert_eq!(in_v2(json.clone()).unwrap(), v2, "{json}");
    }
}

#[test]
fn cpu_pids_and_cpusets_are_translated() {
    let cpu = json!({ "cpu": { "shares": 1024, "quota": 50000, "period": 100_000, "burst": 1000, "idle": 0, "cpus": "0-1", "mems": "0" },
        "pids": { "limit": 0 } });
    let v1 = [
        "cpu.shares=1024",
        "cpu.cfs_period_us=100000",
        "cpu.cfs_quota_us=50000",
        "cpu.cfs_burst_us=1000",
        "cpu.idle=0",
    ];
    let both = ["cpuset.cpus=0-1", "cpuset.mems=0", "pids.max=1"];
    assert_eq!(in_v1(cpu.clone()).unwrap(), [&v1[..], &both[..]].concat());
    let v2 = ["cpu.weight=100", "cpu.idle=0", "cpu.max=50000 100000", "cpu.max.burst=1000"];
    assert_eq!(in_v2(cpu).unwrap(), [&v2[..], &both[..]].concat());

    let none = json!({ "cpu": { "quota": -1, "realtimeRuntime": 0 }, "pids": { "limit": -1 } });
    assert_eq!(in_v1(none.clone()).unwrap(), ["cpu.cfs_quota_us=-1", "pids.max=max"]);
    assert_eq!(in_v2(none).unwrap(), ["cpu.max=max 100000", "pids.max=max"]);
    let realtime = json!({ "cpu": { "realtimeRuntime": 5000, "realtimePeriod": 100_000 } });
    assert_eq!(in_v1(realtime.clone()).unwrap(), ["cpu.rt_period_us=100000", "cpu.rt_runtime_us=5000"]);
    assert!(in_v2(realtime).unwrap_err().to_string().contains("cgroup v2 has no realtime limits"));
}

#[test]
fn an_update_of_half_a_pair_keeps_the_other_half() {
    let current = Current { cpu_max: Some("20000 50000\n".to_owned()) };
    for (cpu, expected) in [
        (json!({ "period": 70_000 }), "cpu.max=20000 70000"),
        (json!({ "quota": 30_000 }), "cpu.max=30000 50000"),
        (json!({ "quota": -1 }), "cpu.max=max 50000"),
    ] {
        let settings = v2(Controller::Cpu, &resources(json!({ "cpu": cpu })), &current).unwrap();
        assert_eq!(lines(&settings), [expected]);
    }
}

#[test]
fn block_io_is_translated() {
    let io = json!({ "blockIO": { "weight": 1000, "weightDevice": [{ "major": 8, "minor": 0, "weight": 10 }],
        "throttleReadBpsDevice": [{ "major": 8, "minor": 0, "rate": 600 }],
        "throttleWriteIOPSDevice": [{ "major": 8, "minor": 16, "rate": 0 }] } });
    let v1 = [
        "blkio.weight=1000",
        "blkio.weight_device=8:0 10",
        "blkio.throttle.read_bps_device=8:0 600",
        "blkio.throttle.write_iops_device=8:16 0",
    ];
    assert_eq!(in_v1(io.clone()).unwrap(), v1);
    let v2 = ["io.bfq.weight=1000", "io.bfq.weight=8:0 10", "io.max=8:0 rbps=600", "io.max=8:16 wiops=max"];
    assert_eq!(in_v2(io.clone()).unwrap(), v2);
    let alternatives: Vec<_> = super::v2(Controller::Blkio, &resources(io), &Current::default())
        .unwrap()
        .into_iter()
        .filter_map(|setting| match setting.missing {
            Missing::Instead(other) => Some(format!("{}={}", other.file, other.value)),
            _ => None,
        })
        .collect();
    assert_eq!(alternatives, ["io.weight=10000", "io.weight=8:0 1"]);
}

#[test]
fn hugepages_rdma_and_network_are_translated() {
    let all = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4096 }, { "pageSize": "1GB", "limit": -1 }],
        "rdma": { "mlx5_1": { "hcaHandles": 3 }, "mlx4_0": { "hcaHandles": 1, "hcaObjects": 2 } },
        "network": { "classID": 1_048_577, "priorities": [{ "name": "eth0", "priority": 5 }] } });
    let rdma = ["rdma.max=mlx4_0 hca_handle=1 hca_object=2", "rdma.max=mlx5_1 hca_handle=3"];
    let v1 = [
        "hugetlb.2MB.limit_in_bytes=4096",
        "hugetlb.2MB.rsvd.limit_in_bytes=4096",
        "hugetlb.1GB.limit_in_bytes=-1",
        "hugetlb.1GB.rsvd.limit_in_bytes=-1",
    ];
    let network = ["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 5"];
    assert_eq!(in_v1(all.clone()).unwrap(), [&v1[..], &rdma[..], &network[..]].concat());
    let v2 = [
        "hugetlb.2MB.max=4096",
        "hugetlb.2MB.rsvd.max=4096",
        "hugetlb.1GB.max=max",
        "hugetlb.1GB.rsvd.max=max",
    ];
    assert_eq!(in_v2(all).unwrap(), [&v2[..], &rdma[..]].concat());
}

#[test]
fn bad_values_are_refused_by_field_in_both_versions() {
    for (json, field) in [
        (json!({ "memory": { "limit": -2 } }), "linux.resources.memory.limit: -2"),
        (json!({ "memory": { "limit": 100, "swap": 99 } }), "linux.resources.memory.swap: 99"),
        (json!({ "memory": { "reservation": -7 } }), "linux.resources.memory.reservation: -7"),
        (json!({ "cpu": { "idle": 2 } }), "linux.resources.cpu.idle: 2"),
        (json!({ "cpu": { "cpus": "0\n1" } }), "linux.resources.cpu.cpus: \"0\\n1\""),
        (json!({ "cpu": { "mems": "all" } }), "linux.resources.cpu.mems: \"all\""),
        (json!({ "blockIO": { "weight": 9 } }), "linux.resources.blockIO.weight: 9"),
        (json!({ "blockIO": { "weight": 1001 } }), "linux.resources.blockIO.weight: 1001"),
        (
            json!({ "blockIO": { "throttleReadBpsDevice": [{ "major": -1, "minor": 0, "rate": 1 }] } }),
            "throttleReadBpsDevice: -1:0",
        ),
        (
            json!({ "hugepageLimits": [{ "pageSize": "../2MB", "limit": 1 }] }),
            "linux.resources.hugepageLimits[0].pageSize",
        ),
        (
            json!({ "hugepageLimits": [{ "pageSize": "MB", "limit": 1 }] }),
            "linux.resources.hugepageLimits[0].pageSize",
        ),
        (
            json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": -9 }] }),
            "linux.resources.hugepageLimits[0].limit: -9",
        ),
        (json!({ "rdma": { "a b": { "hcaHandles": 1 } } }), "linux.resources.rdma: \"a b\""),
        (json!({ "rdma": { "mlx": {} } }), "linux.resources.rdma.mlx"),
    ] {
        for error in [in_v1(json.clone()).unwrap_err(), in_v2(json.clone()).unwrap_err()] {
            assert!(error.to_string().contains(field), "{error} for {json}");
        }
    }
    for (json, field) in [
        (json!({ "cpu": { "shares": 1 } }), "linux.resources.cpu.shares: 1"),
        (json!({ "memory": { "swappiness": 101 } }), "linux.resources.memory.swappiness: 101"),
        (
            json!({ "network": { "priorities": [{ "name": "eth 0", "priority": 5 }] } }),
            "linux.resources.network.priorities",
        ),
    ] {
        let error = in_v1(json).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
    let error = in_v2(json!({ "memory": { "swap": 100 } })).unwrap_err().to_string();
    assert!(error.contains("linux.resources.memory.swap: 100"), "{error}");
}

#[test]
fn unified_keys_are_names_of_settings_only() {
    let map = |json: Value| resources(json!({ "unified": json })).unified().clone().unwrap();
    let settings =
        unified(&map(json!({ "pids.max": "5", "io.max": "8:0 rbps=1\n8:16 rbps=2", "memory.high": "1G" })))
            .unwrap();
    let shown: Vec<_> =
        settings.iter().map(|(s, controller)| format!("{controller}: {}={}", s.file, s.value)).collect();
    assert_eq!(
        shown,
        ["io: io.max=8:0 rbps=1", "io: io.max=8:16 rbps=2", "memory: memory.high=1G", "pids: pids.max=5"]
    );
    for key in [
        "",
        ".",
        "..",
        "../x.max",
        "a/b.c",
        "memory",
        "memory.",
        ".max",
        "a\0.b",
        "a b.c",
        "cgroup.procs",
        "cgroup.threads",
        "cgroup.kill",
    ] {
        let error = unified(&map(json!({ key: "1" }))).unwrap_err().to_string();
        assert!(error.contains("linux.resources.unified"), "{error}");
    }
    assert!(unified(&map(json!({ "io.max": "x".repeat(5000) }))).is_err());
}

#[test]
fn what_is_passed_over_is_told() {
    let all = resources(
        json!({ "memory": { "kernel": 5, "kernelTCP": 6, "swappiness": 7, "disableOOMKiller": true },
        "network": { "classID": 3 }, "blockIO": { "leafWeight": 10 } }),
    );
    let fields = |is_v2: bool| -> Vec<String> {
        let notes = notes(&all, |_| is_v2);
        notes
            .iter()
            .map(|note| note.split(':').next().unwrap().trim_start_matches("linux.resources.").to_owned())
            .collect()
    };
    assert_eq!(fields(false), ["memory.kernel", "memory.kernelTCP"]);
    assert_eq!(
        fields(true),
        [
            "memory.kernel",
            "memory.kernelTCP",
            "memory.swappiness",
            "memory.disableOOMKiller",
            "network",
            "blockIO leafWeight"
        ]
    );
}

#[test]
fn an_empty_config_needs_nothing() {
    for json in [
        json!({}),
        json!({ "memory": {}, "cpu": {}, "blockIO": {}, "network": {}, "rdma": {}, "hugepageLimits": [] }),
    ] {
        assert_eq!(needed(&resources(json)), []);
    }
}

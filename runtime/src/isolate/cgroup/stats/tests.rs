use super::v1::{parse_entries, parse_list};
use super::v2::parse_pressure;
use super::*;

/// The names are those of runc 1.5's types/events.go; a tool that reads one must be able to read the other.
#[test]
fn the_json_has_runcs_names() {
    let entry = MemoryEntry { limit: 1, usage: 2, max: 3, failcnt: 4 };
    let io = vec![BlkioEntry { major: 8, minor: 1, op: "Read".to_owned(), value: 5 }];
    let data = PsiData { avg10: 0.5, avg60: 0.25, avg300: 0.0, total: 9 };
    let psi = Some(Psi { some: data, full: PsiData::default() });
    let stats = Stats {
        cpu: Cpu {
            usage: CpuUsage {
                total: 1,
                percpu: vec![1],
                percpu_kernel: vec![2],
                percpu_user: vec![3],
                kernel: 4,
                user: 5,
            },
            throttling: Throttling { periods: 1, throttled_periods: 2, throttled_time: 3 },
            psi: psi.clone(),
        },
        cpuset: Cpuset { cpus: vec![0, 1], ..Cpuset::default() },
        memory: Memory {
            cache: 1,
            usage: entry.clone(),
            kernel_tcp: entry,
            psi: psi.clone(),
            ..Memory::default()
        },
        pids: Pids { current: 2, limit: 0 },
        blkio: Blkio {
            io_service_bytes_recursive: io.clone(),
            io_queue_recursive: io,
            psi,
            ..Blkio::default()
        },
        hugetlb: [("2MB".to_owned(), Hugetlb { usage: 0, max: 1, failcnt: 0 })].into(),
    };
    let psi = r#"{"some":{"avg10":0.5,"avg60":0.25,"avg300":0.0,"total":9}}"#;
    let memory = r#"{"limit":1,"usage":2,"max":3,"failcnt":4}"#;
    let io = r#"[{"major":8,"minor":1,"op":"Read","value":5}]"#;
    let expected = [
        r#"{"cpu":{"usage":{"total":1,"percpu":[1],"percpu_kernel":[2],"percpu_user":[3],"kernel":4,"user":5},"#,
        r#""throttling":{"periods":1,"throttledPeriods":2,"throttledTime":3},"psi":"#,
        psi,
        r#"},"cpuset":{"cpus":[0,1],"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"#,
        r#""memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"#,
        r#""sched_relax_domain_level":0},"memory":{"cache":1,"usage":"#,
        memory,
        r#","kernelTCP":"#,
        memory,
        r#","psi":"#,
        psi,
        r#"},"pids":{"current":2},"blkio":{"ioServiceBytesRecursive":"#,
        io,
        r#","ioQueueRecursive":"#,
        io,
        r#","psi":"#,
        psi,
        r#"},"hugetlb":{"2MB":{"max":1,"failcnt":0}}}"#,
    ]
    .concat();
    let json = serde_json::to_string(&stats).unwrap();
    assert_eq!(json, expected);
    assert_eq!(serde_json::from_str::<Stats>(&json).unwrap(), stats);
}

#[test]
fn texts_of_the_kernel_are_read() {
    let entries = parse_entries("8:0 Read 124\n8:16 Total 3\n253:1 77\nTotal 228\nnonsense\n");
    let short: Vec<_> = entries.iter().map(|e| (e.major, e.minor, e.op.as_str(), e.value)).collect();
    assert_eq!(short, [(8, 0, "Read", 124), (8, 16, "Total", 3), (253, 1, "", 77)]);
    assert_eq!(parse_list("0-2,5"), [0, 1, 2, 5]);
    assert_eq!(parse_list(""), [] as [u16; 0]);
    let psi = parse_pressure("some avg10=1.50 avg60=0.00 avg300=0.25 total=12\nfull avg10=0.00 total=7\n");
    assert_eq!((psi.some.avg10, psi.some.avg300, psi.some.total, psi.full.total), (1.5, 0.25, 12, 7));
}

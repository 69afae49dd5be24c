/* The floor: what the kernel alone charges for a container with the default spec of `runc spec`.
 *
 *   floor run v2|hybrid|v1 NAME ROOTFS PROGRAM   makes one container, waits for its end, exits as the program did
 *   floor rusage PROGRAM ARG...                  runs it and prints its largest resident set in KiB
 *
 * It makes the namespaces, cgroup, device rules, mounts, nodes, masks and rights of that spec, and the two execs
 * (a static init from a read-only clone of its own file, then the program), all known beforehand: nothing is parsed,
 * recorded, logged, locked, passed over a socket or waited for that the kernel does not insist on. There is no C
 * library in it either: starting glibc costs 0.35 ms in a virtual machine, where every CPUID is an exit to the
 * hypervisor. A runtime cannot beat it without doing less. Any call that fails ends it with 125, so a floor that
 * does less is not measured.
 *
 * For x86-64: cc -static -nostdlib -ffreestanding -fno-stack-protector -O2 floor.c
 */
#include <asm/unistd.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/sched.h>
#include <linux/sockios.h>
#include <linux/stat.h>
#include <stddef.h>
#include <stdint.h>

/* What only the C library's own headers name. */
#define PRIVATE (1 << 18)
#define DETACH 2
#define SIGCHLD 17
#define INET 2
#define DATAGRAM_CLOEXEC (2 | 02000000)
#define LEN(a) (sizeof(a) / sizeof *(a))
#define RO MOUNT_ATTR_RDONLY
#define NSUID MOUNT_ATTR_NOSUID
#define NDEV MOUNT_ATTR_NODEV
#define NEXEC MOUNT_ATTR_NOEXEC

static inline __attribute__((always_inline)) long raw(long n, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
/* A system call with up to six arguments; the result is -errno if it fails. */
#define CALL6(name, a, b, c, d, e, f, ...) \
    raw(__NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define CALL(name, ...) CALL6(name, __VA_ARGS__, 0, 0, 0, 0, 0, 0)
/* One that must work. */
#define DO(name, ...) need(CALL(name, __VA_ARGS__), #name)
#define close(fd) CALL(close, fd)

/* The compiler calls these two by itself. */
void *memset(void *to, int byte, size_t size) {
    for (char *at = to; size--; at++)
        *at = byte;
    return to;
}
void *memcpy(void *to, const void *from, size_t size) {
    for (char *at = to; size--;)
        *at++ = *(const char *)from++;
    return to;
}

static size_t length(const char *text) {
    size_t size = 0;
    while (text[size])
        size++;
    return size;
}

static char *append(char *end, const char *text) {
    size_t size = length(text);
    memcpy(end, text, size + 1);
    return end + size;
}

static char *append_number(char *end, long number) {
    char digits[24], *at = digits + sizeof digits;
    *--at = 0;
    do
        *--at = '0' + number % 10;
    while (number /= 10);
    return append(end, at);
}

static int is(const char *a, const char *b) {
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static void tell(int fd, const char *text) {
    CALL(write, fd, text, length(text));
}

static long need(long result, const char *what) {
    if (result < 0) {
        char line[128];
        append(append_number(append(append(append(line, "floor: "), what), ": errno "), -result), "\n");
        tell(2, line);
        CALL(exit_group, 125);
    }
    return result;
}

static void put(const char *dir, const char *file, const char *text) {
    char path[512];
    append(append(append(path, dir), "/"), file);
    int fd = DO(open, path, O_WRONLY | O_CLOEXEC);
    DO(write, fd, text, length(text));
    close(fd);
}

static void set_attr(int dir, const char *path, int flags, struct mount_attr attr) {
    DO(mount_setattr, dir, path, flags, &attr, sizeof attr);
}

/* ---- the container's side, after the first exec ---- */

static const char *const PROC[] = {"source", "proc", 0};
static const char *const DEV[] = {"source", "tmpfs", "mode", "755", "size", "65536k", 0};
static const char *const PTS[] = {"source", "devpts", "ptmxmode", "0666", "mode", "0620", "gid", "5", 0};
static const char *const SHM[] = {"source", "shm", "mode", "1777", "size", "65536k", 0};
static const char *const MQUEUE[] = {"source", "mqueue", 0};
static const char *const SYS[] = {"source", "sysfs", 0};
static const char *const CGROUP[] = {"source", "cgroup", 0};
static const char *const VIEW[] = {"source", "tmpfs", "mode", "755", 0};
static const char *const EMPTY[] = {"source", "tmpfs", "mode", "755", "nr_blocks", "1", 0};

static const struct mount {
    const char *type, *on, *flag;
    const char *const *options;
    unsigned attr;
    int make; /* the mount point is not there yet */
} MOUNTS[] = {
    {"proc", "proc", 0, PROC, 0, 0},
    {"tmpfs", "dev", 0, DEV, NSUID | MOUNT_ATTR_STRICTATIME, 0},
    {"devpts", "dev/pts", "newinstance", PTS, NSUID | NEXEC, 1},
    {"tmpfs", "dev/shm", 0, SHM, NSUID | NEXEC | NDEV, 1},
    {"mqueue", "dev/mqueue", 0, MQUEUE, NSUID | NEXEC | NDEV, 1},
    {"sysfs", "sys", 0, SYS, NSUID | NEXEC | NDEV | RO, 0},
};

static const struct { const char *name; unsigned major, minor; } NODES[] = {
    {"null", 1, 3}, {"random", 1, 8}, {"full", 1, 7}, {"tty", 5, 0}, {"zero", 1, 5}, {"urandom", 1, 9},
};
static const char *const LINKS[][2] = {
    {"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
    {"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"},
};
static const char *const MASKED[] = {
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
};
static const char *const READONLY[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};

static int new_mount(const char *type, const char *const *options, const char *flag, unsigned attr) {
    int fs = DO(fsopen, type, FSOPEN_CLOEXEC);
    for (; *options; options += 2)
        DO(fsconfig, fs, FSCONFIG_SET_STRING, options[0], options[1], 0);
    if (flag)
        DO(fsconfig, fs, FSCONFIG_SET_FLAG, flag, 0, 0);
    DO(fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0);
    int made = DO(fsmount, fs, FSMOUNT_CLOEXEC, attr);
    close(fs);
    return made;
}

/* By a path resolved inside the root, as whatever handles an untrusted image has to. */
static void attach_in(int root, int mount, const char *on) {
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    int target = DO(openat2, root, on, &how, sizeof how);
    DO(move_mount, mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
    close(target);
}

static int clone_of(const char *path, int flags) {
    return DO(open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags);
}

/* What the mount of type `cgroup` shows: the whole of v2 from a namespace's root, else the container's own groups. */
static void show_cgroups(int root, char mode, char *const *leaves) {
    const unsigned attr = NSUID | NEXEC | NDEV | RO;
    if (mode == '2') {
        int made = new_mount("cgroup2", CGROUP, 0, attr);
        attach_in(root, made, "sys/fs/cgroup");
        close(made);
        return;
    }
    int top = new_mount("tmpfs", VIEW, 0, attr & ~RO);
    attach_in(root, top, "sys/fs/cgroup");
    for (; *leaves; leaves++) {
        /* /sys/fs/cgroup/HIERARCHY/NAME */
        char name[256], *end = name;
        append(name, *leaves + sizeof "/sys/fs/cgroup/" - 1);
        while (*end != '/')
            end++;
        *end = 0;
        DO(mkdirat, top, name, 0755);
        int leaf = clone_of(*leaves, 0);
        set_attr(leaf, "", AT_EMPTY_PATH, (struct mount_attr){.attr_set = attr});
        DO(move_mount, leaf, "", top, name, MOVE_MOUNT_F_EMPTY_PATH);
        close(leaf);
    }
    set_attr(top, "", AT_EMPTY_PATH, (struct mount_attr){.attr_set = RO});
    close(top);
}

static void all_mounts(int root, char mode, char *const *leaves) {
    for (const struct mount *m = MOUNTS; m < MOUNTS + LEN(MOUNTS); m++) {
        int made = new_mount(m->type, m->options, m->flag, m->attr);
        if (m->make)
            DO(mkdirat, root, m->on, 0755);
        attach_in(root, made, m->on);
        close(made);
    }
    show_cgroups(root, mode, leaves);
    DO(umask, 0);
    int dev = DO(openat, root, "dev", O_PATH | O_CLOEXEC, 0);
    for (size_t i = 0; i < LEN(NODES); i++)
        DO(mknodat, dev, NODES[i].name, S_IFCHR | 0666, NODES[i].major << 8 | NODES[i].minor);
    for (size_t i = 0; i < LEN(LINKS); i++)
        DO(symlinkat, LINKS[i][0], dev, LINKS[i][1]);
    close(dev);
    DO(umask, 022);
}

/* The first use attaches the mount, later ones a clone of it. A clone that is made and not attached costs a grace
 * period when it is closed, so nothing is cloned for a path that is not there. */
static void cover(int mount, int *attached, const char *path) {
    int copy = *attached ? (int)DO(open_tree, mount, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH) : mount;
    DO(move_mount, copy, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH);
    if (copy != mount)
        close(copy);
    *attached = 1;
}

static void paths(int null) {
    int null_used = 0, empty = -1, empty_used = 0;
    for (size_t i = 0; i < LEN(MASKED); i++) {
        struct statx found;
        if (CALL(statx, AT_FDCWD, MASKED[i], 0, STATX_TYPE, &found) < 0)
            continue;
        if (!S_ISDIR(found.stx_mode)) {
            cover(null, &null_used, MASKED[i]);
            continue;
        }
        if (empty < 0)
            empty = new_mount("tmpfs", EMPTY, "ro", RO | NSUID | NDEV | NEXEC);
        cover(empty, &empty_used, MASKED[i]);
    }
    for (size_t i = 0; i < LEN(READONLY); i++) {
        int copy = CALL(open_tree, AT_FDCWD, READONLY[i], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
        if (copy == -ENOENT)
            continue;
        need(copy, "open_tree");
        set_attr(copy, "", AT_EMPTY_PATH | AT_RECURSIVE, (struct mount_attr){.attr_set = RO});
        DO(move_mount, copy, "", AT_FDCWD, READONLY[i], MOVE_MOUNT_F_EMPTY_PATH);
        close(copy);
    }
}

static void rights(void) {
    const struct rlimit64 files = {1024, 1024};
    const unsigned keep = 1u << CAP_KILL | 1u << CAP_NET_BIND_SERVICE | 1u << CAP_AUDIT_WRITE;
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{keep, keep, 0}, {0, 0, 0}};
    DO(prlimit64, 0, RLIMIT_NOFILE, &files, 0);
    DO(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    for (int cap = 0; cap < 64; cap++)
        if ((cap > 31 || !(keep & 1u << cap)) && CALL(prctl, PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            break; /* beyond the last one */
    DO(setgroups, 0, 0);
    DO(setresgid, 0, 0, 0);
    DO(setresuid, 0, 0, 0);
    DO(capset, &header, data);
}

static int number(const char *text) {
    int value = 0;
    while (*text)
        value = value * 10 + *text++ - '0';
    return value;
}

/* argv: floor init MODE ROOT-FD SELF-FD NAME PROGRAM LEAF... */
static void init(char **argv) {
    char mode = argv[2][0] == 'v' ? argv[2][1] : 'h';
    int root = number(argv[3]), self = number(argv[4]);
    const struct { void *handler; unsigned long flags; void *restorer; uint64_t mask; } by_default = {0};
    for (int sig = 1; sig < 65; sig++)
        CALL(rt_sigaction, sig, &by_default, 0, 8); /* KILL and STOP refuse */
    DO(prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
    DO(setsid, 0);
    DO(keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, argv[5], 0, 0, 0);
    if (mode == '2')
        DO(unshare, CLONE_NEWCGROUP);
    DO(sethostname, "runc", 4);
    const struct { char name[16]; short flags; char rest[22]; } lo = {"lo", 1 | 1 << 6 /* up, running */, {0}};
    int net = DO(socket, INET, DATAGRAM_CLOEXEC, 0);
    DO(ioctl, net, SIOCSIFFLAGS, &lo);
    close(net);
    set_attr(AT_FDCWD, "/", AT_RECURSIVE, (struct mount_attr){.propagation = PRIVATE});
    DO(move_mount, root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH);
    /* Anywhere in the old tree: a clone that is closed before it was attached costs a grace period of its own, this
     * one goes with the tree. */
    DO(move_mount, self, "", AT_FDCWD, "/dev/full", MOVE_MOUNT_F_EMPTY_PATH);
    all_mounts(root, mode, argv + 7);
    int null = clone_of("/dev/null", 0);
    set_attr(null, "", AT_EMPTY_PATH, (struct mount_attr){.attr_set = RO | NSUID | NEXEC});
    DO(fchdir, root);
    DO(pivot_root, ".", ".");
    DO(umount2, ".", DETACH);
    DO(chdir, "/");
    paths(null);
    set_attr(root, "", AT_EMPTY_PATH, (struct mount_attr){.attr_set = RO});
    rights();
    DO(close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC);
    char *args[] = {argv[6], 0};
    char *env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", "HOME=/root", 0};
    DO(execve, argv[6], args, env);
}

/* ---- the runtime's side ---- */

static struct bpf_insn code[256];
static int count;

static void emit(int op, int dst, int src, int off, int imm) {
    code[count++] = (struct bpf_insn){.code = op, .dst_reg = dst, .src_reg = src, .off = off, .imm = imm};
}
static void load(int reg, uint64_t value) {
    emit(BPF_LD | BPF_DW | BPF_IMM, reg, 0, 0, (int)value);
    emit(0, 0, 0, 0, (int)(value >> 32));
}
#define ALU(op, reg, imm) emit(BPF_ALU64 | BPF_K | (op), reg, 0, 0, imm)
#define ALUX(op, dst, src) emit(BPF_ALU64 | BPF_X | (op), dst, src, 0, 0)

/* kind << 32 | major << 20 | minor; which bits count; the accesses granted: 1 mknod, 2 read, 4 write */
#define DEVICE(kind, major, minor) ((uint64_t)(kind) << 32 | (major) << 20 | (minor))
static const struct { uint64_t number, mask; int access; const char *v1; } RULES[] = {
    {DEVICE(2, 0, 0), 3ull << 32, 1, "c *:* m"},   {DEVICE(1, 0, 0), 3ull << 32, 1, "b *:* m"},
    {DEVICE(2, 1, 3), 0, 7, "c 1:3 rwm"},          {DEVICE(2, 1, 8), 0, 7, "c 1:8 rwm"},
    {DEVICE(2, 1, 7), 0, 7, "c 1:7 rwm"},          {DEVICE(2, 5, 0), 0, 7, "c 5:0 rwm"},
    {DEVICE(2, 1, 5), 0, 7, "c 1:5 rwm"},          {DEVICE(2, 1, 9), 0, 7, "c 1:9 rwm"},
    {DEVICE(2, 136, 0), 0x3fff00000ull, 7, "c 136:* rwm"}, {DEVICE(2, 5, 2), 0, 7, "c 5:2 rwm"},
    {DEVICE(2, 10, 200), 0, 7, "c 10:200 rwm"},
};

/* Straight code: the verifier's time, which is what loading costs, grows with every branch. */
static void restrict_devices(int leaf) {
    emit(BPF_LDX | BPF_MEM | BPF_W, 3, 1, 0, 0);
    ALUX(BPF_MOV, 4, 3);
    ALU(BPF_RSH, 4, 16);
    ALU(BPF_AND, 3, 0xffff);
    for (int part = 0; part < 2; part++) {
        ALU(BPF_LSH, 3, part ? 20 : 12);
        emit(BPF_LDX | BPF_MEM | BPF_W, 2, 1, part ? 8 : 4, 0);
        ALUX(BPF_OR, 3, 2);
    }
    ALU(BPF_MOV, 5, 0);
    for (size_t i = 0; i < LEN(RULES); i++) {
        load(1, RULES[i].number);
        ALUX(BPF_XOR, 1, 3);
        if (RULES[i].mask) {
            load(2, RULES[i].mask);
            ALUX(BPF_AND, 1, 2);
        }
        ALU(BPF_ADD, 1, -1);
        ALU(BPF_RSH, 1, 63); /* 1 where the numbers are equal */
        ALU(BPF_MUL, 1, RULES[i].access);
        ALUX(BPF_OR, 5, 1);
    }
    ALUX(BPF_MOV, 0, 5);
    ALU(BPF_XOR, 0, 7);
    ALUX(BPF_AND, 0, 4);
    ALU(BPF_ADD, 0, -1);
    ALU(BPF_RSH, 0, 63);
    emit(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    union bpf_attr program = {.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insn_cnt = count,
                              .insns = (uintptr_t)code, .license = (uintptr_t) "Apache-2.0"};
    int fd = DO(bpf, BPF_PROG_LOAD, &program, sizeof program);
    union bpf_attr attach = {.target_fd = leaf, .attach_bpf_fd = fd, .attach_type = BPF_CGROUP_DEVICE,
                             .attach_flags = BPF_F_ALLOW_MULTI};
    DO(bpf, BPF_PROG_ATTACH, &attach, sizeof attach);
    close(fd);
}

static int exit_code(int status) {
    return status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff;
}

/* argv: floor run MODE NAME ROOTFS PROGRAM */
static int run(char **argv) {
    const char *const hybrid[] = {"unified", 0}, *const v1[] = {"devices", "freezer", 0}, *const v2[] = {"", 0};
    char mode = argv[2][0] == 'v' ? argv[2][1] : 'h';
    char leaves[2][256], root_fd[12], self_fd[12];
    char *init_argv[11] = {"floor", "init", argv[2], root_fd, self_fd, argv[3], argv[5]};
    int tasks[2], used = 0, leaf = -1;
    int root = DO(open_tree, AT_FDCWD, argv[4], OPEN_TREE_CLONE | AT_RECURSIVE);
    append_number(root_fd, root);
    for (const char *const *h = mode == '2' ? v2 : mode == '1' ? v1 : hybrid; *h; h++, used++) {
        append(append(append(append(append(leaves[used], "/sys/fs/cgroup"), **h ? "/" : ""), *h), "/"), argv[3]);
        DO(mkdir, leaves[used], 0755);
        init_argv[7 + used] = leaves[used];
        if (mode == '1') {
            char path[300];
            append(append(path, leaves[used]), "/tasks");
            tasks[used] = DO(open, path, O_WRONLY | O_CLOEXEC, 0);
        }
    }
    if (mode == '1') {
        put(leaves[0], "devices.deny", "a");
        for (size_t i = 0; i < LEN(RULES); i++)
            put(leaves[0], "devices.allow", RULES[i].v1);
    } else {
        leaf = DO(open, leaves[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
        restrict_devices(leaf);
    }
    int self = DO(open_tree, AT_FDCWD, "/proc/self/exe", OPEN_TREE_CLONE);
    append_number(self_fd, self);
    set_attr(self, "", AT_EMPTY_PATH, (struct mount_attr){.attr_set = RO | NSUID});
    struct clone_args args = {
        .flags = CLONE_VM | CLONE_VFORK | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNS | CLONE_NEWNET
                 | (leaf >= 0 ? CLONE_INTO_CGROUP : 0),
        .exit_signal = SIGCHLD,
        .cgroup = leaf >= 0 ? leaf : 0,
    };
    char *none[] = {0};
    /* On this very stack, as vfork does it: the call is inline, and nothing returns before the exec. */
    long pid = CALL(clone3, &args, sizeof args);
    if (pid == 0) {
        for (int i = 0; mode == '1' && i < used; i++)
            DO(write, tasks[i], "0", 1);
        DO(execveat, self, "", init_argv, none, AT_EMPTY_PATH);
    }
    need(pid, "clone3");
    int status;
    DO(wait4, pid, &status, 0, 0);
    while (used--)
        DO(rmdir, leaves[used]);
    return exit_code(status);
}

/* From a process as small as this one, for a process inherits the largest resident set of whoever starts it. */
static int rusage(char **argv, char **env) {
    struct rusage usage;
    struct clone_args args = {.flags = CLONE_VM | CLONE_VFORK, .exit_signal = SIGCHLD};
    int status;
    char line[32];
    long pid = CALL(clone3, &args, sizeof args);
    if (pid == 0) {
        DO(dup2, DO(open, "/dev/null", O_WRONLY | O_CLOEXEC), 1);
        DO(execve, argv[2], argv + 2, env);
    }
    need(pid, "clone3");
    DO(wait4, pid, &status, 0, &usage);
    append(append_number(line, usage.ru_maxrss), "\n");
    tell(1, line);
    return exit_code(status);
}

/* The stack as the kernel leaves it: argc, argv, null, environment. */
__attribute__((used)) static void begin(long *stack) {
    long argc = *stack;
    char **argv = (char **)(stack + 1);
    int code = 125;
    if (argc == 6 && is(argv[1], "run"))
        code = run(argv);
    else if (argc > 7 && is(argv[1], "init"))
        init(argv);
    else if (argc > 2 && is(argv[1], "rusage"))
        code = rusage(argv, argv + argc + 1);
    else
        tell(2, "usage: floor run v2|hybrid|v1 NAME ROOTFS PROGRAM | floor rusage PROGRAM ARG...\n");
    CALL(exit_group, code);
}
__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");

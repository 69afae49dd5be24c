/* The floor: what the kernel alone charges for a container with the default spec of `runc spec`.
 *
 *   floor run v2|hybrid|v1 NAME ROOTFS PROGRAM   makes one container, waits for its end, exits as the program did;
 *                                                with FLOOR_TIME set, tells on stderr what passed inside, in ns
 *   floor rusage PROGRAM ARG...                  runs it and prints its largest resident set in KiB
 *
 * It makes the namespaces, cgroup, device rules, mounts, nodes, masks and rights of that spec, and the two execs
 * (a static init from a read-only clone of its own file, then the program), all known beforehand: nothing is parsed,
 * recorded, logged, locked, passed over a socket or waited for that the kernel does not insist on. A runtime cannot
 * beat it without doing less. Any call that fails ends it with 125, so a floor that does less is not measured.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <net/if.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* <sys/mount.h> and <linux/mount.h> do not go together; these two are all that is missed. */
#define PRIVATE (1 << 18)
#define DETACH 2
#define LEN(a) (sizeof(a) / sizeof *(a))
#define RO MOUNT_ATTR_RDONLY
#define NSUID MOUNT_ATTR_NOSUID
#define NDEV MOUNT_ATTR_NODEV
#define NEXEC MOUNT_ATTR_NOEXEC

static long need(long result, const char *what) {
    if (result < 0) {
        dprintf(2, "floor: %s: %s\n", what, strerror(errno));
        _exit(125);
    }
    return result;
}
/* A raw system call that must work. */
#define DO(call, ...) need(syscall(SYS_##call, __VA_ARGS__), #call)

static void put(const char *dir, const char *file, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    int fd = DO(open, path, O_WRONLY | O_CLOEXEC, 0);
    DO(write, fd, text, strlen(text));
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
        char name[64];
        snprintf(name, sizeof name, "%s", *leaves + strlen("/sys/fs/cgroup/"));
        *strchr(name, '/') = 0;
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
        DO(mknodat, dev, NODES[i].name, S_IFCHR | 0666, makedev(NODES[i].major, NODES[i].minor));
    for (size_t i = 0; i < LEN(LINKS); i++)
        DO(symlinkat, LINKS[i][0], dev, LINKS[i][1]);
    close(dev);
    DO(umask, 022);
}

/* 0 if covered; otherwise what move_mount said. The first use attaches the mount, later ones a clone of it. */
static int cover(int mount, int *attached, const char *path) {
    int copy = *attached ? (int)DO(open_tree, mount, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH) : mount;
    int bad = syscall(SYS_move_mount, copy, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? errno : 0;
    if (copy != mount)
        close(copy);
    *attached |= !bad;
    return bad;
}

static void paths(int null) {
    int null_used = 0, empty = -1, empty_used = 0;
    for (size_t i = 0; i < LEN(MASKED); i++) {
        int bad = cover(null, &null_used, MASKED[i]);
        if (bad == EINVAL || bad == ENOTDIR) {
            if (empty < 0)
                empty = new_mount("tmpfs", EMPTY, "ro", RO | NSUID | NDEV | NEXEC);
            bad = cover(empty, &empty_used, MASKED[i]);
        }
        errno = bad;
        need(bad && bad != ENOENT ? -1 : 0, "mask");
    }
    for (size_t i = 0; i < LEN(READONLY); i++) {
        int copy = syscall(SYS_open_tree, AT_FDCWD, READONLY[i], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
        if (copy < 0 && errno == ENOENT)
            continue;
        need(copy, "open_tree");
        set_attr(copy, "", AT_EMPTY_PATH | AT_RECURSIVE, (struct mount_attr){.attr_set = RO});
        DO(move_mount, copy, "", AT_FDCWD, READONLY[i], MOVE_MOUNT_F_EMPTY_PATH);
        close(copy);
    }
}

static void rights(void) {
    const struct rlimit files = {1024, 1024};
    const unsigned keep = 1u << CAP_KILL | 1u << CAP_NET_BIND_SERVICE | 1u << CAP_AUDIT_WRITE;
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{keep, keep, 0}, {0, 0, 0}};
    DO(prlimit64, 0, RLIMIT_NOFILE, &files, 0);
    DO(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    for (int cap = 0; cap < 64; cap++)
        if ((cap > 31 || !(keep & 1u << cap)) && syscall(SYS_prctl, PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            break; /* beyond the last one */
    DO(setgroups, 0, 0);
    DO(setresgid, 0, 0, 0);
    DO(setresuid, 0, 0, 0);
    DO(capset, &header, data);
}

/* argv: floor init MODE ROOT-FD NAME PROGRAM LEAF... */
static void init(char **argv) {
    char mode = argv[2][0] == 'v' ? argv[2][1] : 'h';
    int root = atoi(argv[3]);
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    for (int sig = 1; sig < 65; sig++)
        syscall(SYS_rt_sigaction, sig, &dfl, 0, 8); /* KILL and STOP refuse */
    DO(prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
    DO(setsid, 0);
    DO(keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, argv[4], 0, 0, 0);
    if (mode == '2')
        DO(unshare, CLONE_NEWCGROUP);
    DO(sethostname, "runc", 4);
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int net = DO(socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    DO(ioctl, net, SIOCSIFFLAGS, &lo);
    close(net);
    set_attr(AT_FDCWD, "/", AT_RECURSIVE, (struct mount_attr){.propagation = PRIVATE});
    DO(move_mount, root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH);
    all_mounts(root, mode, argv + 6);
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
    char *args[] = {argv[5], 0};
    char *env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", "HOME=/root", 0};
    DO(execve, argv[5], args, env);
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

/* clone3 with the caller's stack, as vfork does it: inline, for the child must not return from a function. */
static inline __attribute__((always_inline)) long clone3(struct clone_args *args) {
    long pid;
    __asm__ volatile("syscall"
                     : "=a"(pid)
                     : "a"(SYS_clone3), "D"(args), "S"(sizeof *args)
                     : "rcx", "r11", "memory");
    errno = pid < 0 ? -pid : 0;
    return pid;
}

static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000l + t.tv_nsec;
}

/* argv: floor run MODE NAME ROOTFS PROGRAM */
static int run(char **argv) {
    long begin = now();
    const char *const hybrid[] = {"unified", 0}, *const v1[] = {"devices", "freezer", 0}, *const v2[] = {"", 0};
    char mode = argv[2][0] == 'v' ? argv[2][1] : 'h';
    char leaves[2][256], root_fd[12];
    char *init_argv[10] = {"floor", "init", argv[2], root_fd, argv[3], argv[5]};
    int tasks[2], used = 0, leaf = -1;
    int root = DO(open_tree, AT_FDCWD, argv[4], OPEN_TREE_CLONE | AT_RECURSIVE);
    snprintf(root_fd, sizeof root_fd, "%d", root);
    for (const char *const *h = mode == '2' ? v2 : mode == '1' ? v1 : hybrid; *h; h++, used++) {
        snprintf(leaves[used], sizeof *leaves, "/sys/fs/cgroup%s%s/%s", **h ? "/" : "", *h, argv[3]);
        DO(mkdir, leaves[used], 0755);
        init_argv[6 + used] = leaves[used];
        if (mode == '1') {
            char path[300];
            snprintf(path, sizeof path, "%s/tasks", leaves[used]);
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
    int self = clone_of("/proc/self/exe", 0);
    set_attr(self, "", AT_EMPTY_PATH, (struct mount_attr){.attr_set = RO | NSUID});
    struct clone_args args = {
        .flags = CLONE_VM | CLONE_VFORK | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNS | CLONE_NEWNET
                 | (leaf >= 0 ? CLONE_INTO_CGROUP : 0),
        .exit_signal = SIGCHLD,
        .cgroup = leaf >= 0 ? leaf : 0,
    };
    char *none[] = {0};
    long pid = clone3(&args);
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
    if (getenv("FLOOR_TIME"))
        dprintf(2, "%ld\n", now() - begin);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* From a process as small as this one, for a process inherits the largest resident set of whoever starts it. */
static int rusage(char **argv) {
    struct rusage usage;
    int status;
    pid_t pid = vfork();
    if (pid == 0) {
        dup2(open("/dev/null", O_WRONLY), 1);
        execv(argv[2], argv + 2);
        _exit(125);
    }
    need(pid, "vfork");
    need(wait4(pid, &status, 0, &usage), "wait4");
    printf("%ld\n", usage.ru_maxrss);
    fflush(stdout);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv) {
    if (argc == 6 && !strcmp(argv[1], "run"))
        return run(argv);
    if (argc > 6 && !strcmp(argv[1], "init"))
        init(argv);
    if (argc > 2 && !strcmp(argv[1], "rusage"))
        return rusage(argv);
    fputs("usage: floor run v2|hybrid|v1 NAME ROOTFS PROGRAM | floor rusage PROGRAM ARG...\n", stderr);
    return 125;
}

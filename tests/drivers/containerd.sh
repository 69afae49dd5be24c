#!/bin/bash
# containerd, driven by ctr: its containerd-shim-runc-v2 calls the runtime. CONTAINERD names a directory with another
# containerd, ctr and containerd-shim-runc-v2 than Debian's. See common.sh.
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/common.sh"

isolate
make_image
[ -z "${CONTAINERD:-}" ] || PATH=$CONTAINERD:$PATH
cat >"$WORK/config.toml" <<CONF
version = 2
root = "$WORK/root"
state = "$WORK/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.internal.v1.opt"]
[grpc]
address = "$WORK/containerd.sock"
CONF
ENGINE=(ctr --address "$WORK/containerd.sock" --namespace "$TAG")

start_daemon() {
    containerd --config "$WORK/config.toml" >>"$WORK/containerd.log" 2>&1 &
    echo $! >"$WORK/daemon.pid"
    disown
    await 'engine version'
}
restart_daemon() { # SIGNAL
    kill "-$1" "$(cat "$WORK/daemon.pid")"
    await '! pgrep -x containerd'
    start_daemon
}
use() {
    RUN=(--runc-binary "$RUNC")
    [ "$1" = runc ] || RUN=(--runc-binary "$HEARTH")
}
state_directories() { echo /run/containerd/runc/"$TAG"; }

# run FLAGS COMMAND...: a container that goes when it ends. up: one in the background, named $C.
run() {
    local flags=$1
    shift
    # shellcheck disable=SC2086
    engine run "${RUN[@]}" --rm $flags "$IMAGE" "$C" "$@"
}
up() {
    local flags=$1
    shift
    # shellcheck disable=SC2086
    engine run "${RUN[@]}" -d $flags "$IMAGE" "$C" "$@"
}
sleeper() { up "${1:---null-io}" sleep 1000; }
inside() { engine task exec --exec-id "e$RANDOM$RANDOM" "$C" "$@"; }
status() { engine task ls | awk -v c="$C" '$1 == c { print $3 }'; }
cleanup() {
    engine task kill -s KILL --all "$C"
    engine task rm -f "$C"
    engine container rm "$C"
}
terminal() { script -qefc "stty rows 33 cols 99; ${ENGINE[*]} $*" /dev/null; }

start_daemon || { tail "$WORK/containerd.log"; exit 1; }
engine image import "$WORK/image/oci.tar" >"$WORK/load.log" 2>&1 || { cat "$WORK/image.log" "$WORK/load.log"; exit 1; }
step 'run' '^hello exit 0$' 'run "" echo hello'
step 'exit code' '^exit 42$' 'run "" sh -c "exit 42"'
step 'no such program' 'executable file not found|no such file' 'run "" /nonexistent 2>&1 | grep -oE "executable file not found|no such file or directory"'
step 'stdin' '^through exit 0$' 'echo through | run "" head -n 1'
step 'env and directory' '^b /tmp exit 0$' 'run "--env A=b --cwd /tmp" sh -c "echo \$A; pwd"'
step 'mount' '^kept exit 0$' 'run "--mount type=bind,src=$WORK/tmp,dst=/data,options=rbind:rw" sh -c "echo kept >/data/$C"; cat $WORK/tmp/$C'
step 'read-only rootfs' '^exit 1$' 'run "--read-only" touch /x 2>/dev/null'
step 'mounts' '/proc/sys.*/sys .* exit 0' 'run "" sh -c "cut -d\" \" -f2,4 /proc/mounts | grep -vE \"^/ |^/sys/fs/cgroup/unified|^/proc/(acpi|keys|timer_list|interrupts|scsi)|^/sys/firmware\" | sort"'
step 'capabilities' 'CapEff.*exit 0' 'run "" grep Cap /proc/self/status'
step 'cap-add, cap-drop' 'CapEff: 00000000a804.5fb.*CapEff: 00000000a80425fa exit 0' 'run "--cap-add CAP_NET_ADMIN" grep Cap /proc/self/status; run "--cap-drop CAP_CHOWN" grep CapEff /proc/self/status'
step 'privileged' 'CapEff: 000001' 'run "--privileged" sh -c "grep CapEff /proc/self/status; ls /dev | wc -l"'
step 'seccomp, default' 'Seccomp: 2 .*exit 1' 'run "--seccomp" sh -c "grep Seccomp: /proc/self/status; unshare -m true" 2>/dev/null'
step 'no new privileges' 'NoNewPrivs: [01]' 'run "" grep NoNewPrivs /proc/self/status; run "--allow-new-privs" grep NoNewPrivs /proc/self/status'
step 'memory limit, v1' '^67108864 exit 0$' 'sleeper "--null-io --memory-limit 67108864"; cat /sys/fs/cgroup/memory/$TAG/$C/memory.limit_in_bytes'
step 'cpu limit, v1' '^20000 100000 exit 0$' 'sleeper "--null-io --cpu-quota 20000 --cpu-period 100000"; cat /sys/fs/cgroup/cpu/$TAG/$C/cpu.cfs_quota_us /sys/fs/cgroup/cpu/$TAG/$C/cpu.cfs_period_us'
step 'controllers joined, v1' 'memory.*exit 0' 'sleeper; p=$(engine task ls | awk -v c=$C "\$1 == c {print \$2}"); grep -E "cpu|memory|pids|devices|freezer|blkio" /proc/$p/cgroup | cut -d: -f2- | sort'
step 'device rules' 'not permitted exit 1$' 'run "--cap-add CAP_MKNOD" sh -c "mknod /tmp/x c 1 1 && head -c1 /tmp/x" 2>&1'
step 'out of memory' '^137 exit 0$' 'engine run "${RUN[@]}" --rm --memory-limit 16777216 $IMAGE $C sh -c "exec tail /dev/zero"; echo $?'
step 'oom event' '^/tasks/oom exit 0$' 'engine events >$WORK/events 2>&1 & sleep 0.5; run "--memory-limit 16777216" tail /dev/zero; await "grep -a /tasks/oom $WORK/events"; kill $!; grep -ao "/tasks/oom" $WORK/events | sort -u'
step 'events' '^/tasks/create /tasks/exit /tasks/start exit 0$' 'engine events >$WORK/events 2>&1 & sleep 0.5; run "" true; await "grep -a /tasks/exit $WORK/events"; kill $!; grep -aoE "/tasks/(create|start|exit)" $WORK/events | sort -u'
step 'exec' '^hi exit 3$' 'sleeper; inside sh -c "echo hi; exit 3"'
step 'exec, no such program' 'executable file not found|no such file' 'sleeper; inside /nonexistent 2>&1 | grep -oE "executable file not found|no such file or directory"'
step 'exec with options' '^/tmp 1000 exit 0$' 'sleeper; engine task exec --exec-id e --cwd /tmp --user 1000 $C sh -c "pwd; id -u"'
step 'exec, stdin' '^7 exit 0$' 'sleeper; printf 1234567 | inside head -c 7 | wc -c'
step 'exec, 20 in a row' '^20 exit 0$' 'sleeper; for _ in $(seq 20); do inside echo again; done | grep -c again'
step 'exec, 8 at once' '^8 exit 0$' 'sleeper; for i in $(seq 8); do engine task exec --exec-id p$i $C echo again & done | grep -c again; wait'
step 'exec, detached' '^done exit 0$' 'sleeper; engine task exec -d --exec-id d $C sh -c "echo done >/tmp/x; sleep 100"; await "inside test -s /tmp/x"; inside cat /tmp/x'
step 'list' '^RUNNING exit 0$' 'sleeper; status'
step 'ps' '^[1-9] exit 0$' 'sleeper; engine task ps $C | grep -cE "^[0-9]+"'
step 'metrics' 'memory.usage_in_bytes.*pids.current +1' 'sleeper; engine task metrics $C | awk "/pids.current/ {print \$1, \$2} /memory.usage_in_bytes/ && \$2 > 0 {print \$1}" | sort'
step 'pause, resume' '^PAUSED RUNNING in exit 0$' 'sleeper; engine task pause $C; status; engine task resume $C; status; inside echo in'
step 'pause, kernel' '^FROZEN THAWED exit 0$' 'sleeper; f=/sys/fs/cgroup/freezer/$TAG/$C/freezer.state; u=/sys/fs/cgroup/unified/$TAG/$C/cgroup.freeze; frozen() { grep -qsx FROZEN $f || grep -qsx 1 $u; }; engine task pause $C; frozen && echo FROZEN; engine task resume $C; frozen || echo THAWED'
step 'exec while paused' 'paused' 'sleeper; engine task pause $C; inside true 2>&1 | grep -o paused | head -1'
step 'kill' '^STOPPED 137 exit 0$' 'sleeper; engine task kill -s KILL $C; await "[ \"\$(status)\" = STOPPED ]"; status; engine task rm $C 2>&1 | grep -oE "13[0-9]" || engine task rm -f $C >/dev/null 2>&1; true'
step 'kill, a handled signal' '^got exit 7$' '{ sleep 2; engine task kill -s USR1 $C; } & run "" sh -c "trap \"echo got; exit 7\" USR1; while :; do sleep 0.1; done"'
step 'kill of all' '^0 exit 0$' 'sleeper; engine task exec -d --exec-id d $C sleep 2000; engine task kill -s KILL --all $C; await "[ \"\$(status)\" = STOPPED ]"; pgrep -fc "sleep 2000"; true'
step 'kill of a stopped one' 'already finished|not found|not running' 'sleeper; engine task kill -s KILL $C; await "[ \"\$(status)\" = STOPPED ]"; engine task kill $C 2>&1 | grep -oE "already finished|not found|not running"'
step 'restart of the task' '^RUNNING RUNNING exit 0$' 'sleeper; status; engine task kill -s KILL $C; await "[ \"\$(status)\" = STOPPED ]"; engine task rm $C >/dev/null 2>&1; engine task start -d $C; status'
step 'rm of a running one' 'cannot delete|must be stopped' 'sleeper; engine task rm $C 2>&1 | grep -oE "cannot delete|must be stopped"'
step 'shared namespace' '^same exit 0$' 'sleeper; p=$(engine task ls | awk -v c=$C "\$1 == c {print \$2}"); a=$(readlink /proc/$p/ns/net); b=$(engine run "${RUN[@]}" --rm --with-ns network:/proc/$p/ns/net $IMAGE $C-2 readlink /proc/self/ns/net); [ "$a" = "$b" ] && echo same'
step 'host network' '^same exit 0$' '[ "$(run --net-host readlink /proc/self/ns/net)" = "$(readlink /proc/self/ns/net)" ] && echo same'
step 'user namespace' '100000 65536' 'run "--snapshotter native --uidmap 0:100000:65536 --gidmap 0:100000:65536" cat /proc/self/uid_map'
step 'another root of state' '^1 exit 0$' 'sleeper "--null-io --runc-root $WORK/runc-root"; ls $WORK/runc-root/$TAG | wc -l'
step 'systemd cgroups' 'exit 1$' 'run "--runc-systemd-cgroup --cgroup system.slice:test:x" true >/dev/null 2>&1'
step 'pid file' '^1 exit 0$' 'sleeper "--null-io --pid-file $WORK/tmp/$C.pid"; pgrep -f "sleep 1000" | grep -cx "$(cat $WORK/tmp/$C.pid)"'
step 'checkpoint' 'exit 1$' 'sleeper; engine task checkpoint $C >/dev/null 2>&1'
step 'terminal' '^/dev/pts/0 33 99 exit 6$' 'terminal run "${RUN[@]}" --rm -t $IMAGE $C "sh -c \"tty; sleep 1; stty size; exit 6\""'
step 'terminal, typed' '^1 exit 0$' '{ for key in "echo \$((6*7))" exit; do sleep 1.5; echo "$key"; done; } | terminal run "${RUN[@]}" --rm -t $IMAGE $C sh | grep -cw 42'
step 'terminal, exec' '^/dev/pts/[01] .*exit 6$' 'sleeper; terminal task exec -t --exec-id t $C "sh -c \"tty; sleep 0.5; exit 6\""'
step 'daemon restarts' '^RUNNING in exit 0$' 'sleeper; restart_daemon TERM; status; inside echo in'
step 'daemon killed' '^RUNNING in exit 0$' 'sleeper; restart_daemon KILL; status; inside echo in'
step '12 at once' '^12 12 exit 0$' 'for i in $(seq 12); do engine run "${RUN[@]}" -d --null-io $IMAGE $C-$i sleep 1000 & done; wait; engine task ls | grep -c "$C-.*RUNNING"; for i in $(seq 12); do engine task exec --exec-id e $C-$i echo here; done | grep -c here; for i in $(seq 12); do engine task kill -s KILL $C-$i; engine task rm -f $C-$i; engine container rm $C-$i; done >/dev/null 2>&1'
report

#!/bin/bash
# Kubernetes' way: crictl talks to containerd's CRI plugin, whose runtime class names the runtime as BinaryName of
# io.containerd.runc.v2. CONTAINERD names a directory with another containerd than Debian's. See common.sh.
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/common.sh"

isolate
make_image
[ -z "${CONTAINERD:-}" ] || PATH=$CONTAINERD:$PATH
SOCKET=$WORK/containerd.sock
mkdir -p "$WORK"/{cni,logs}
echo '{"cniVersion":"0.4.0","name":"pods","plugins":[{"type":"bridge","bridge":"pods0","ipam":{"type":"host-local",
    "dataDir":"'"$WORK"'/ipam","ranges":[[{"subnet":"10.99.0.0/16"}]]}}]}' >"$WORK/cni/pods.conflist"
cat >"$WORK/config.toml" <<CONF
version = 2
root = "$WORK/root"
state = "$WORK/state"
[grpc]
address = "$SOCKET"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:latest"
restrict_oom_score_adj = true
disable_tcp_service = true
[plugins."io.containerd.grpc.v1.cri".cni]
conf_dir = "$WORK/cni"
bin_dir = "/usr/lib/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "$RUNC"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.hearth]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.hearth.options]
BinaryName = "$HEARTH"
CONF
printf 'runtime-endpoint: unix://%s\nimage-endpoint: unix://%s\ntimeout: 50\n' "$SOCKET" "$SOCKET" >"$WORK/crictl.yaml"
ENGINE=("$CRICTL" --config "$WORK/crictl.yaml")

start_daemon() {
    containerd --config "$WORK/config.toml" >>"$WORK/containerd.log" 2>&1 &
    echo $! >"$WORK/daemon.pid"
    disown
    await 'engine pods' # the CRI plugin comes last
}
use() { HANDLER=$1; }
state_directories() { echo /run/containerd/runc/k8s.io; }
OWN='[0-9a-f-]{36}'

# pod [JQ]: makes the pod named $C and prints its id; JQ changes its configuration.
pod() {
    jq -n --arg c "$C" --arg parent "/$TAG" --arg logs "$WORK/logs/$C" '{metadata: {name: $c, namespace: "d", uid: $c},
        hostname: $c, log_directory: $logs, linux: {cgroup_parent: $parent}} | '"${1:-.}" >"$WORK/pod-$C.json"
    engine runp --runtime "$HANDLER" "$WORK/pod-$C.json"
}
# box POD JQ COMMAND...: starts a container in a pod and prints its id.
box() {
    local pod=$1 change=$2 name=c$RANDOM
    shift 2
    printf '%s\n' "$@" | jq -Rs --arg name "$name" --arg image "$IMAGE" '{metadata: {name: $name},
        image: {image: $image}, command: split("\n")[:-1], log_path: ($name + ".log"), linux: {}} | '"$change" \
        >"$WORK/$name.json"
    box=$(engine create "$pod" "$WORK/$name.json" "$WORK/pod-$C.json") && engine start "$box" >/dev/null && echo "$box"
}
# one JQ COMMAND...: a container in a pod of its own until its end: what it printed, and its status.
one() {
    local id
    id=$(box "$(pod "$POD")" "$@") || return
    await "engine inspect $id | jq -e '.status.state == \"CONTAINER_EXITED\"'"
    engine logs "$id"
    return "$(field "$id" .status.exitCode)"
}
sleeper() { box=$(box "$(pod "$POD")" "${1:-.}" sleep 1000); }
inside() { engine exec "$box" "$@"; }
field() { engine inspect "$1" | jq -r "$2"; }
cleanup() {
    engine rmp -f $(engine pods -q --name "$C")
    rm -f "$WORK"/*.json
}
POD=.

start_daemon || { tail "$WORK/containerd.log"; exit 1; }
# The pod's own process is a program that waits.
skopeo --insecure-policy copy "oci:$WORK/image/layout:box" "oci:$WORK/image/layout:pause" >/dev/null 2>&1
umoci config --image "$WORK/image/layout:pause" --config.cmd sleep --config.cmd 100000 >/dev/null 2>&1
skopeo --insecure-policy copy "oci:$WORK/image/layout:pause" "oci-archive:$WORK/image/pause.tar:localhost/pause:latest" >/dev/null 2>&1
for image in oci pause; do
    ctr --address "$SOCKET" --namespace k8s.io image import "$WORK/image/$image.tar" >>"$WORK/load.log" 2>&1 ||
        { cat "$WORK/image.log" "$WORK/load.log"; exit 1; }
done

step 'pod' '^SANDBOX_READY exit 0$' 'p=$(pod); engine inspectp $p | jq -r .status.state'
step 'pod network' '^10.99 lo eth0 exit 0$' 'sleeper; p=$(engine pods -q --name $C); engine inspectp $p | jq -r .status.network.ip | cut -c1-5; inside sh -c "ls /sys/class/net | sort -r"'
step 'run, logs' '^hello exit 0$' 'one . echo hello'
step 'exit code' '^exit 42$' 'one . sh -c "exit 42"'
step 'no such program' 'executable file not found|no such file' 'one . /nonexistent 2>&1 | grep -oE "executable file not found|no such file or directory" | head -1'
step 'env and directory' '^b /tmp exit 0$' 'one ".envs = [{key: \"A\", value: \"b\"}] | .working_dir = \"/tmp\"" sh -c "echo \$A; pwd"'
step 'hostname' '^NAME exit 0$' 'one . hostname'
step 'user and groups' '^1000 1000 777 .*exit 0$' 'one ".linux.security_context = {run_as_user: {value: 1000}, run_as_group: {value: 1000}, supplemental_groups: [777]}" sh -c "id -u; id -G"'
step 'read-only rootfs' '^exit 1$' 'one ".linux.security_context.readonly_rootfs = true" touch /x 2>/dev/null'
step 'mount' '^kept exit 0$' 'one ".mounts = [{host_path: \"$WORK/tmp\", container_path: \"/v\"}]" sh -c "echo kept >/v/$C"; cat $WORK/tmp/$C'
step 'mount, read-only' '^exit 1$' 'one ".mounts = [{host_path: \"$WORK/tmp\", container_path: \"/v\", readonly: true}]" touch /v/x 2>/dev/null'
step 'capabilities' 'CapEff: 0000000000001000' 'one ".linux.security_context.capabilities = {add_capabilities: [\"NET_ADMIN\"], drop_capabilities: [\"ALL\"]}" grep Cap /proc/self/status'
step 'seccomp, default' 'Seccomp: 2 .*exit 1' 'one ".linux.security_context.seccomp = {profile_type: 0}" sh -c "grep Seccomp: /proc/self/status; unshare -m true 2>/dev/null"'
step 'no new privileges' 'NoNewPrivs: 1' 'one ".linux.security_context.no_new_privs = true" grep NoNewPrivs /proc/self/status'
step 'privileged' 'CapEff: 000001' 'POD=".linux.security_context.privileged = true"; one ".linux.security_context.privileged = true" grep CapEff /proc/self/status'
step 'sysctl' '^99 exit 0$' 'POD=".linux.sysctls = {\"net.core.somaxconn\": \"99\"}"; one . cat /proc/sys/net/core/somaxconn'
step 'mounts' '/dev/shm .*/proc .*/sys .*exit 0' 'one . sh -c "cut -d\" \" -f2,4 /proc/mounts | grep -vE \"^/ |^/sys/fs/cgroup|^/proc/(acpi|keys|timer_list|interrupts|scsi)|^/sys/(firmware|devices)|^/etc\" | sort"'
step 'limits, v1' '^67108864 20000 100000 512 exit 0$' 'one ".linux.resources = {memory_limit_in_bytes: 67108864, cpu_quota: 20000, cpu_period: 100000, cpu_shares: 512}" sh -c "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpu/cpu.shares"'
step 'update' '^50331648 exit 0$' 'sleeper ".linux.resources = {memory_limit_in_bytes: 67108864}"; engine update --memory 50331648 $box >/dev/null; inside cat /sys/fs/cgroup/memory/memory.limit_in_bytes'
step 'out of memory' '^OOMKilled 137 exit 0$' 'id=$(box "$(pod)" ".linux.resources = {memory_limit_in_bytes: 16777216}" tail /dev/zero); await "engine inspect $id | jq -e \".status.state == \\\"CONTAINER_EXITED\\\"\""; sleep 1; field $id ".status.reason, .status.exitCode"'
step 'exec' '^hi .*exit [1-9][0-9]*$' 'sleeper; inside sh -c "echo hi; exit 3" 2>/dev/null'
step 'exec, in one answer' '^hi exit 0$' 'sleeper; engine exec -s $box echo hi'
step 'exec, stdin' '^7 exit 0$' 'sleeper; printf 1234567 | engine exec -i $box wc -c'
step 'exec as probe, 20 in a row' '^20 exit 0$' 'sleeper; for _ in $(seq 20); do engine exec -s $box echo again; done | grep -c again'
step 'exec, no such program' 'executable file not found|no such file' 'sleeper; engine exec -s $box /nonexistent 2>&1 | grep -oE "executable file not found|no such file or directory" | head -1'
step 'exec, too slow' 'DeadlineExceeded|timeout .* exceeded' 'sleeper; engine exec -s --timeout 1 $box sleep 30 2>&1 | grep -oE "DeadlineExceeded|timeout [0-9a-z]+ exceeded" | head -1'
step 'terminal, exec' '^/dev/pts/0 .*exit 0$' 'sleeper; script -qefc "${ENGINE[*]} exec -it $box tty" /dev/null'
step 'stats' '^true true exit 0$' 'sleeper; await "engine stats -o json --id $box | jq -e .stats[0].memory.workingSetBytes"; engine stats -o json --id $box | jq ".stats[0] | (.memory.workingSetBytes.value | tonumber > 0), (.cpu.usageCoreNanoSeconds.value | tonumber > 0)"'
step 'stop, handled' '^3 exit 0$' 'id=$(box "$(pod)" . sh -c "trap \"exit 3\" TERM; echo ready; while :; do sleep 0.1; done"); await "engine logs $id | grep ready"; engine stop --timeout 20 $id >/dev/null; field $id .status.exitCode'
step 'stop, not handled' '^137 exit 0$' 'box=$(box "$(pod)" . sh -c "trap : TERM; while :; do sleep 0.1; done"); engine stop --timeout 1 $box >/dev/null; field $box .status.exitCode'
step 'restart in the pod' '^CONTAINER_RUNNING exit 0$' 'p=$(pod); a=$(box $p . true); await "engine inspect $a | jq -e \".status.state == \\\"CONTAINER_EXITED\\\"\""; engine rm $a >/dev/null; b=$(box $p . sleep 1000); field $b .status.state'
step 'pod shares net and ipc' '^same exit 0$' 'p=$(pod); names="readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts"; a=$(box $p . sleep 1000); b=$(box $p . sleep 1000); x=$(engine exec $a sh -c "$names"); y=$(engine exec $b sh -c "$names"); [ -n "$x" ] && [ "$x" = "$y" ] && echo same'
step 'pod shares pids' '^[1-9] exit 0$' 'shared=".linux.security_context.namespace_options = {pid: 0}"; p=$(pod "$shared"); a=$(box $p "$shared" sleep 2000); b=$(box $p "$shared" sleep 3000); engine exec $b ps | grep -c "sleep 2000"'
step 'host namespaces' '^same exit 0$' 'POD="del(.hostname) | .linux.security_context.namespace_options = {network: 2, ipc: 2, pid: 2}"; a=$(one ".linux.security_context.namespace_options = {network: 2, ipc: 2, pid: 2}" sh -c "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; readlink /proc/self/ns/pid"); [ "$a" = "$(readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; readlink /proc/self/ns/pid)" ] && echo same'
step 'user namespace' '^0 100000 65536 exit 0$' 'POD=".linux.security_context.namespace_options.userns_options = {mode: 0, uids: [{host_id: 100000, container_id: 0, length: 65536}], gids: [{host_id: 100000, container_id: 0, length: 65536}]}"; one "$POD" cat /proc/self/uid_map'
step 'daemon restarts' '^CONTAINER_RUNNING in exit 0$' 'sleeper; kill -9 "$(cat "$WORK/daemon.pid")"; await "! pgrep -x containerd"; start_daemon; field $box .status.state; inside echo in'
step '6 pods at once' '^6 6 exit 0$' 'base=$C; for i in $(seq 6); do (C=$base-$i; box "$(pod)" . sleep 1000) & done | wc -l; for id in $(engine ps -q); do engine exec -s $id echo here; done | grep -c here'
report

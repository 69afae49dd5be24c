#!/bin/bash
# Podman: each container's conmon calls the runtime, and so does podman itself. See common.sh.
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/common.sh"
. "$HERE/cli.sh"

isolate
make_image
cat >"$WORK/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
netns = "none"
log_driver = "k8s-file"
init_path = "/usr/bin/tini-static"
cgroups = "enabled"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime_supports_json = ["runc", "hearth", "crun"]
CONF
export CONTAINERS_CONF=$WORK/containers.conf
# Podman knows a driver by the executable's name.
for driver in runc crun; do
    mkdir -p "$WORK/as-$driver"
    ln -s "$HEARTH" "$WORK/as-$driver/$driver"
done
PODMAN=(podman --root "$WORK/root" --runroot "$WORK/runroot" --tmpdir "$WORK/libpod" --storage-driver overlay
    --cgroup-manager cgroupfs)
RUN=(--cgroup-parent "/$TAG")
OWN='conmon|[0-9a-f]{64}' # of pods
FORCE=(-f -t 0)

use() {
    local path=$RUNC
    [ "$1" = hearth ] && path=$HEARTH
    ENGINE=("${PODMAN[@]}" --runtime "$path")
}
state_directories() { echo /run/runc /run/hearth; }
# hearth behind the name of the driver that podman knows, and runc as it is.
named() { [ "${ENGINE[-1]}" = "$RUNC" ] || ENGINE=("${PODMAN[@]}" --runtime "$WORK/as-$1/$1"); }

"${PODMAN[@]}" load -qi "$WORK/image/docker.tar" >"$WORK/load.log" 2>&1 || { cat "$WORK/image.log" "$WORK/load.log"; exit 1; }
run_steps
limit_steps
life_steps
step 'under the name runc' '^named exit 9$' 'named runc; run "" sh -c "echo named; exit 9"'
step 'under the name crun' '^named exit 9$' 'named crun; run "" sh -c "echo named; exit 9"'
step 'exec under the name crun' '^in exit 0$' 'named crun; sleeper; inside echo in'
step 'healthcheck' '^1 0 exit 0$' 'engine run "${RUN[@]}" -d --name $C --health-cmd "test -e /tmp/ok" --health-interval disable $IMAGE sleep 1000 >/dev/null; engine healthcheck run $C >/dev/null 2>&1; echo $?; inside touch /tmp/ok; engine healthcheck run $C >/dev/null; echo $?'
step 'pod' '^same exit 0$' 'engine pod create --name $C-pod --infra-image $IMAGE --infra-command "sleep 1000" --cgroup-parent /$TAG --share net,ipc,uts >/dev/null; a=$(engine run --rm --pod $C-pod $IMAGE readlink /proc/self/ns/net); b=$(engine run --rm --pod $C-pod $IMAGE readlink /proc/self/ns/net); engine pod rm -f -t 0 $C-pod >/dev/null; [ -n "$a" ] && [ "$a" = "$b" ] && echo same'
step 'user namespace' '0 100000 65536 0 exit 0' 'run "--uidmap 0:100000:65536 --gidmap 0:100000:65536" sh -c "cat /proc/self/uid_map; id -u"'
step 'rootfs directory' '^plain exit 0$' 'mkdir -p $WORK/plain; tar -C $WORK/image/bundle/rootfs -c . | tar -C $WORK/plain -x; engine run "${RUN[@]}" --rm --rootfs $WORK/plain echo plain'
step 'descriptors, run' '^kept exit 0$' 'echo kept >$WORK/tmp/fd; run "--preserve-fds 1" cat /proc/self/fd/3 3<$WORK/tmp/fd'
step 'descriptors, exec' '^kept exit 0$' 'sleeper; echo kept >$WORK/tmp/fd; engine exec --preserve-fds 1 $C cat /proc/self/fd/3 3<$WORK/tmp/fd'
step 'cgroup namespace' '/ exit 0' 'run "--cgroupns private" sh -c "cut -d: -f3 /proc/self/cgroup | sort -u"'
step 'systemd mode' '^1 exit 0$' 'run "--systemd always" sh -c "grep -c \" /run tmpfs\" /proc/mounts"'
step 'no cgroups' '^none exit 0$' 'named crun; RUN=(); run "--cgroups disabled" echo none'
step 'split cgroups' '^split exit 0$' 'RUN=(); run "--cgroups split" echo split'
step 'systemd cgroup manager' '^exit 12[56]$' 'engine --cgroup-manager systemd run --rm $IMAGE true >/dev/null 2>&1'
step 'runtime flags' '^flagged exit 0$' 'engine --runtime-flag debug --runtime-flag log=$WORK/tmp/log run --rm $IMAGE echo flagged 2>/dev/null'
step 'log level debug' '^debugged exit 0$' 'engine --log-level debug run "${RUN[@]}" --rm $IMAGE echo debugged 2>/dev/null'
step 'sdnotify' '^0 exit 0$' 'NOTIFY_SOCKET= up "--sdnotify conmon" sleep 5; echo $?'
step 'restart policy' '^2 exit 0$' 'up "--restart on-failure:2" false; await "[ \$(engine inspect --format {{.RestartCount}} $C) = 2 ]"; show "{{.RestartCount}}"'
UNCALLED=yes step 'info' '^[a-z]+ version [0-9.]+ exit 0$' 'engine info --format "{{.Host.OCIRuntime.Version}}" | sed -n "1{s/+.*//; s/^[a-z]*/name/; s/[0-9.]*\$/1.0/; p}"'
step 'play kube' '^Running exit 0$' 'printf "apiVersion: v1\nkind: Pod\nmetadata: {name: $C-kube}\nspec:\n  containers:\n  - {name: a, image: $IMAGE, command: [sleep, \"1000\"]}\n" >$WORK/tmp/pod.yaml; engine play kube $WORK/tmp/pod.yaml 2>&1 | grep Error; engine pod inspect --format "{{.State}}" $C-kube; engine pod rm -f -t 0 $C-kube >/dev/null'
report

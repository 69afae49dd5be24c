#!/bin/bash
# Docker: dockerd and its containerd, whose containerd-shim-runc-v2 calls the runtime. See common.sh.
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/common.sh"
. "$HERE/cli.sh"

isolate
make_image
mkdir -p /etc/docker
mount -t tmpfs tmpfs /etc/docker # its key
ln -s "$RUNC" "$WORK/bin/runc"
printf '{"runtimes": {"hearth": {"path": "%s"}}}\n' "$HEARTH" >"$WORK/daemon.json"
HOST=unix://$WORK/docker.sock
DOCKER=(/usr/bin/docker --host "$HOST")
ENGINE=("${DOCKER[@]}")

start_daemon() {
    /usr/sbin/dockerd --host "$HOST" --data-root "$WORK/data" --exec-root "$WORK/exec" --pidfile "$WORK/docker.pid" \
        --config-file "$WORK/daemon.json" --iptables=false --ip6tables=false --bridge=none --live-restore \
        --cgroup-parent "/$TAG" >>"$WORK/dockerd.log" 2>&1 &
    disown
    await 'engine version'
}
restart_daemon() {
    kill "$(cat "$WORK/docker.pid")"
    await '! pgrep -x dockerd'
    start_daemon
}
use() { RUN=(--runtime "$1"); }
state_directories() { echo /run/docker/runtime-*/moby "$WORK/exec"/runtime-*/moby; }

start_daemon || { tail "$WORK/dockerd.log"; exit 1; }
engine load -qi "$WORK/image/docker.tar" >"$WORK/load.log" 2>&1 || { cat "$WORK/image.log" "$WORK/load.log"; exit 1; }
run_steps
limit_steps
life_steps
step 'healthcheck' '^healthy unhealthy exit 0$' 'engine run "${RUN[@]}" -d --name $C --health-cmd "test -e /tmp/ok" --health-interval 1s --health-retries 1 --health-start-period 0s $IMAGE sh -c "touch /tmp/ok; exec sleep 1000" >/dev/null; await "engine inspect --format {{.State.Health.Status}} $C | grep -x healthy"; show "{{.State.Health.Status}}"; inside rm /tmp/ok; await "engine inspect --format {{.State.Health.Status}} $C | grep unhealthy"; show "{{.State.Health.Status}}"'
step 'restart policy' '^2 exit 0$' 'up "--restart on-failure:2" false; await "[ \$(engine inspect --format {{.RestartCount}} $C) = 2 ]"; show "{{.RestartCount}}"'
step 'daemon restarts' '^running 0 137 exit 0$' 'sleeper; restart_daemon; show "{{.State.Status}}"; inside true; echo $?; engine kill $C >/dev/null; engine wait $C'
step 'daemon killed' '^running 0 exit 0$' 'sleeper; kill -9 $(cat "$WORK/docker.pid"); await "! pgrep -x dockerd"; rm -f "$WORK/docker.pid"; start_daemon; show "{{.State.Status}}"; inside true; echo $?'
step 'runtime killed by -9' '^137 exited exit 0$' 'sleeper; kill -9 $(show "{{.State.Pid}}"); engine wait $C; show "{{.State.Status}}"'
step 'one more device rule' '^1 exit 0$' 'engine run "${RUN[@]}" --rm --cap-add MKNOD --device-cgroup-rule "c 1:11 rwm" $IMAGE sh -c "mknod /tmp/x c 1 11 && (exec 3>/tmp/x) && echo 1"'
step 'seccomp, own profile' '^exit 1$' 'echo "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"mkdir\",\"mkdirat\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":1}]}" >$WORK/tmp/profile.json; run "--security-opt seccomp=$WORK/tmp/profile.json" mkdir /tmp/x 2>/dev/null'
step 'error of the runtime' 'no such file or directory|not found' 'run "" /nonexistent 2>&1 | grep -oiE "no such file or directory|not found" | head -1'
step 'build' '^built exit 0$' 'mkdir -p $WORK/build; printf "FROM $IMAGE\nRUN echo built >/made\n" >$WORK/build/Dockerfile; DOCKER_BUILDKIT=0 engine build -q --network none -t built $WORK/build >/dev/null 2>&1; engine run "${RUN[@]}" --rm built cat /made'
step 'events' 'create die oom start' 'up "-m 16m --memory-swap 16m" tail /dev/zero; engine wait $C >/dev/null; seen() { engine events --since 5m --until "$(date +%s)" --filter "container=$C" --format "{{.Action}}" | sort -u; }; await "seen | grep die"; seen'
report

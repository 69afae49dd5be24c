# What Docker's command line and Podman's have in common. `run FLAGS COMMAND...` is a container that goes when it
# ends, `up FLAGS COMMAND...` one that stays, in the background, named $C. FLAGS is one word, split at blanks.
run() {
    local flags=$1
    shift
    # shellcheck disable=SC2086
    engine run "${RUN[@]}" --rm $flags "$IMAGE" "$@"
}

up() {
    local flags=$1
    shift
    # shellcheck disable=SC2086
    engine run "${RUN[@]}" -d --name "$C" $flags "$IMAGE" "$@" >/dev/null
}

sleeper() { up "${1:-}" sleep 1000; }
inside() { engine exec "$C" "$@"; }
show() { engine inspect --format "$1" "$C"; }
cleanup() { engine rm "${FORCE[@]:--f}" "$C"; }
# terminal COMMAND...: run by the engine on a terminal of 33 rows and 99 columns, keys from standard input.
terminal() { script -qefc "stty rows 33 cols 99; ${ENGINE[*]} $*" /dev/null; }
NAMES='readlink /proc/self/ns/net; readlink /proc/self/ns/ipc'
PIDNS='readlink /proc/self/ns/pid; readlink /proc/self/ns/uts'
keys() { for key; do sleep 1.5; echo "$key"; done; }

run_steps() {
    step 'run' '^hello exit 0$' 'run "" echo hello'
    step 'exit code' '^exit 42$' 'run "" sh -c "exit 42"'
    step 'end by a signal' '^exit 143$' 'run "--init" sh -c "kill -TERM \$\$; sleep 9"'
    step 'no such program' '^exit 127$' 'run "" /nonexistent 2>/dev/null'
    step 'not executable' '^exit 126$' 'run "" /etc/passwd 2>/dev/null'
    step 'no such directory' 'exit (126|0)$' 'run "-w /made/by/engine" pwd'
    step 'stdin' '^through exit 0$' 'echo through | run -i cat'
    step 'stdout and stderr' '^out exit 0$' 'run "" sh -c "echo out; echo err >&2" 2>/dev/null'
    step 'env' '^A=b exit 0$' 'run "-e A=b" env | grep ^A='
    step 'user by number' 'uid=1234.* gid=5678.* exit 0' 'run "--user 1234:5678" id'
    step 'user by name' 'uid=1000\(app\).*2000\(extra\)' 'run "--user app" id'
    step 'additional group' '777' 'run "--user 1000 --group-add 777" id -G'
    step 'working directory' '^/home/app exit 0$' 'run "-w /home/app" pwd'
    step 'hostname' '^box exit 0$' 'run "--hostname box" hostname'
    step 'volume' '^kept exit 0$' 'run "-v $WORK/tmp:/v" sh -c "echo kept >/v/$C"; cat $WORK/tmp/$C'
    step 'volume, read-only' '^ro.* exit 1$' 'run "-v $WORK/tmp:/v:ro" sh -c "grep -o \" /v ro\" /proc/mounts || grep \" /v \" /proc/mounts | cut -d\" \" -f4 | cut -c1-2; touch /v/x" 2>/dev/null'
    step 'tmpfs' 'tmpfs rw,.*size=1024k' 'run "--tmpfs /t:size=1m" grep " /t " /proc/mounts'
    step 'shm size' 'size=2048k' 'run "--shm-size 2m" grep " /dev/shm " /proc/mounts'
    step 'read-only rootfs' '^exit 1$' 'run "--read-only" touch /x 2>/dev/null'
    step 'mounts' '/proc/sys.*/sys/firmware.* exit 0' 'run "" sh -c "cut -d\" \" -f2 /proc/mounts | grep -vx /sys/fs/cgroup/unified | sort"'
    step 'devices' 'crw.*null.*exit 0' 'run "" sh -c "ls -l /dev | cut -c1-33,58-"'
    step 'one more device' '^1 5 character special file exit 0$' 'run "--device /dev/zero:/dev/nought" stat -c "%t %T %F" /dev/nought'
    step 'descriptors' '0 1 2 3 exit 0' 'run "" ls /proc/self/fd'
    step 'capabilities' 'CapBnd.*exit 0' 'run "" grep Cap /proc/self/status'
    step 'cap-drop all' 'CapEff: 0000000000000000' 'run "--cap-drop ALL" grep Cap /proc/self/status'
    step 'cap-add' 'CapEff: 0000000000001000' 'run "--cap-drop ALL --cap-add NET_ADMIN" grep Cap /proc/self/status'
    step 'privileged' 'Seccomp: 0' 'run "--privileged" sh -c "grep -E \"Cap|Seccomp:\" /proc/self/status; ls /dev | wc -l"'
    step 'seccomp, default' 'Seccomp: 2 .*exit 1' 'run "" sh -c "grep Seccomp: /proc/self/status; unshare -m true" 2>/dev/null'
    step 'seccomp, unconfined' 'Seccomp: 0 .*exit 0' 'run "--security-opt seccomp=unconfined" grep Seccomp: /proc/self/status'
    step 'no new privileges' 'NoNewPrivs: 1' 'run "--security-opt no-new-privileges" grep NoNewPrivs /proc/self/status'
    step 'ulimit' '^512 exit 0$' 'run "--ulimit nofile=512:512 --ulimit nproc=4096:4096" sh -c "ulimit -n"'
    step 'sysctl' '^99 exit 0$' 'run "--sysctl net.core.somaxconn=99" cat /proc/sys/net/core/somaxconn'
    step 'masked paths' '^0 0 exit 0$' 'run "" sh -c "cat /proc/timer_list | wc -c; ls /proc/acpi 2>/dev/null | wc -l"'
    step 'read-only paths' '^exit 1$' 'run "" sh -c "echo 1 >/proc/sys/vm/swappiness" 2>/dev/null'
    step 'init' '^(docker|podman)-init exit 0$' 'run "--init" cat /proc/1/comm'
    step 'oom score' '^300 exit 0$' 'run "--oom-score-adj 300" cat /proc/self/oom_score_adj'
}

limit_steps() {
    local cgroup=/sys/fs/cgroup
    step 'memory limit, v1' '^67108864 exit 0$' "run '-m 64m' cat $cgroup/memory/memory.limit_in_bytes"
    step 'cpu limit, v1' '^50000 100000 exit 0$' "run '--cpus 0.5' cat $cgroup/cpu/cpu.cfs_quota_us $cgroup/cpu/cpu.cfs_period_us"
    step 'cpu shares and set, v1' '^100 0 exit 0$' "run '--cpu-shares 100 --cpuset-cpus 0' cat $cgroup/cpu/cpu.shares $cgroup/cpuset/cpuset.cpus"
    step 'pids limit, v1' '^7 exit 0$' "run '--pids-limit 7' cat $cgroup/pids/pids.max"
    step 'device rules' '^null.*not permitted exit 1$' 'run "--cap-add MKNOD" sh -c "exec 2>&1; echo >/dev/null && echo null; mknod /tmp/x c 1 1 && head -c1 /tmp/x"'
    step 'cpu throttles' '^throttled exit 0$' "run '--cpus 0.1' sh -c 'timeout 1 sh -c \"while :; do :; done\"; grep -q \"nr_throttled [1-9]\" $cgroup/cpu/cpu.stat && echo throttled' 2>/dev/null"
    step 'pids limit refuses' "can't fork.*exit" 'run "--pids-limit 5" sh -c "for i in 1 2 3 4 5 6 7; do sleep 2 & done; wait" 2>&1 | grep -o "can.t fork"'
    step 'out of memory' '^137 (true|false) exit 0$' 'up "-m 16m --memory-swap 16m" tail /dev/zero; engine wait $C >/dev/null; show "{{.State.ExitCode}} {{.State.OOMKilled}}"'
    step 'update' '^0 50331648 exit 0$' "sleeper '-m 64m --memory-swap 64m'; engine update -m 48m --memory-swap 48m \$C >/dev/null; echo \$?; inside cat $cgroup/memory/memory.limit_in_bytes"
}

life_steps() {
    step 'logs' '^one two exit 0$' 'up "" sh -c "echo one; sleep 0.3; echo two >&2"; engine wait $C >/dev/null; engine logs $C 2>&1'
    step 'wait' '^5 exit 0$' 'up "" sh -c "sleep 0.5; exit 5"; engine wait $C'
    step 'inspect' '^running true exit 0$' 'sleeper; show "{{.State.Status}} {{.State.Running}}"'
    step 'exec' '^hi exit 3$' 'sleeper; inside sh -c "echo hi; exit 3"'
    step 'exec, no such program' '^exit 12[67]$' 'sleeper; inside /nonexistent >/dev/null 2>&1'
    step 'exec, not executable' '^exit 126$' 'sleeper; inside /etc/passwd >/dev/null 2>&1'
    step 'exec, no such directory' '^exit 12[67]$' 'sleeper; engine exec -w /nonexistent $C true >/dev/null 2>&1'
    step 'exec with options' 'b /tmp 1000.*exit 0' 'sleeper; engine exec -e A=b -w /tmp -u app $C sh -c "echo \$A; pwd; id -u; grep -E \"Cap|Seccomp:\" /proc/self/status"'
    step 'exec, stdin' '^7 exit 0$' 'sleeper; printf 1234567 | engine exec -i $C wc -c'
    step 'exec, privileged' 'CapEff: 000001' 'sleeper; engine exec --privileged $C grep CapEff /proc/self/status'
    step 'exec, detached' '^done exit 0$' 'sleeper; engine exec -d $C sh -c "echo done >/tmp/x" >/dev/null; await "inside test -s /tmp/x"; inside cat /tmp/x'
    step 'exec, 20 in a row' '^20 exit 0$' 'sleeper; for _ in $(seq 20); do inside echo again; done | grep -c again'
    step 'exec, 8 at once' '^8 exit 0$' 'sleeper; for _ in $(seq 8); do inside echo again & done | grep -c again; wait'
    step 'top' '^[1-9] exit 0$' 'sleeper; engine top $C | grep -c "sleep 1000"'
    step 'stats' '^1 exit 0$' 'sleeper "-m 64m"; engine stats --no-stream --format "{{.PIDs}}" $C'
    step 'stats, memory' '/ (64MiB|67.11MB) exit 0$' 'sleeper "-m 64m"; engine stats --no-stream --format "{{.MemUsage}}" $C | grep -o "/.*"'
    step 'pause' '^paused [1-9][0-9]* running 0 exit 0$' 'sleeper; engine pause $C >/dev/null; show "{{.State.Status}}"; inside true 2>/dev/null; echo $?; engine unpause $C >/dev/null; show "{{.State.Status}}"; inside true; echo $?'
    step 'pause stops' '^0 exit 0$' 'up "" sh -c "while echo x; do sleep 0.1; done"; engine pause $C >/dev/null; sleep 0.3; a=$(engine logs $C | wc -l); sleep 1; b=$(engine logs $C | wc -l); echo $((b - a))'
    step 'kill, a handled signal' '^7 got exit 0$' 'up "" sh -c "trap \"echo got; exit 7\" USR1; echo ready; while :; do sleep 0.1; done"; await "engine logs $C | grep ready"; engine kill -s USR1 $C >/dev/null; engine wait $C; engine logs $C | grep got'
    step 'kill' '^137 exit 0$' 'sleeper; engine kill $C >/dev/null; engine wait $C'
    step 'kill of a paused one' '^137 exit 0$' 'sleeper; engine pause $C >/dev/null; engine kill $C >/dev/null; engine unpause $C >/dev/null 2>&1; engine wait $C'
    step 'kill of a stopped one' 'not running|state improper' 'up "" true; engine wait $C >/dev/null; engine kill $C 2>&1 | grep -oE "not running|state improper"'
    step 'stop, handled' '^3 exit 0$' 'up "" sh -c "trap \"exit 3\" TERM; echo ready; while :; do sleep 0.1; done"; await "engine logs $C | grep ready"; engine stop -t 20 $C >/dev/null; show "{{.State.ExitCode}}"'
    step 'stop, not handled' '^137 exit 0$' 'sleeper; engine stop -t 1 $C >/dev/null 2>&1; show "{{.State.ExitCode}}"'
    step 'restart' '^2 running exit 0$' 'up "" sh -c "echo start; exec sleep 1000"; engine restart -t 0 $C >/dev/null; await "[ \$(engine logs $C | grep -c start) = 2 ]"; engine logs $C | grep -c start; show "{{.State.Status}}"'
    step 'create, start' '^made 4 made 4 exit 0$' 'engine create "${RUN[@]}" --name $C $IMAGE sh -c "echo made; exit 4" >/dev/null; for _ in 1 2; do engine start -a $C; echo $?; done'
    step 'rm of a running one' '^[12] exit 0$' 'sleeper; engine rm $C >/dev/null 2>&1; echo $?; cleanup >/dev/null'
    step 'rm at the end' '^0 exit 0$' 'engine run "${RUN[@]}" -d --rm --name $C $IMAGE sleep 1 >/dev/null; await "! engine inspect $C"; engine ps -aq --filter name=$C | wc -l'
    step 'cp' '^in exit 0$' 'sleeper; echo in >$WORK/tmp/in; engine cp $WORK/tmp/in $C:/tmp/in >/dev/null; inside cp /tmp/in /tmp/out; engine cp $C:/tmp/out $WORK/tmp/out >/dev/null; cat $WORK/tmp/out'
    step 'ipc and net of another' '^same exit 0$' 'sleeper "--ipc shareable"; a=$(inside sh -c "$NAMES"); b=$(run "--network container:$C --ipc container:$C" sh -c "$NAMES"); [ -n "$a" ] && [ "$a" = "$b" ] && echo same'
    step 'pid of another' '^1 exit 0$' 'sleeper; run "--pid container:$C" ps | grep -c "sleep 1000"'
    step 'host namespaces' '^same exit 0$' 'a=$(run "--ipc host --network host --pid host --uts host" sh -c "$NAMES; $PIDNS"); [ "$a" = "$(sh -c "$NAMES; $PIDNS")" ] && echo same'
    step 'terminal' '^/dev/pts/0 33 99 exit 6$' 'terminal run "${RUN[@]}" --rm -it $IMAGE "sh -c \"tty; sleep 0.5; stty size; exit 6\""'
    step 'terminal, typed' '^1 exit 0$' 'keys "echo \$((6*7))" exit | terminal run "${RUN[@]}" --rm -it $IMAGE sh | grep -cw 42'
    step 'terminal, exec' '^/dev/pts/[01] 33 99 exit 6$' 'sleeper; terminal exec -it $C "sh -c \"tty; sleep 0.5; stty size; exit 6\""'
    step 'terminal, in the background' '^/dev/pts/0 exit 0$' 'up -t tty; engine wait $C >/dev/null; engine logs $C'
    step '12 at once' '^12 12 0 exit 0$' 'for i in $(seq 12); do engine run "${RUN[@]}" -d --name $C-$i $IMAGE sleep 1000 & done >/dev/null; wait; engine ps -q --filter name=$C | wc -l; for i in $(seq 12); do engine exec $C-$i echo here & done | grep -c here; engine rm "${FORCE[@]:--f}" $(engine ps -aq --filter name=$C) >/dev/null 2>&1; engine ps -aq --filter name=$C | wc -l'
}

# The common part of the drivers' tests, sourced by one file per engine, which scripts/drivers starts in namespaces
# of its own. The engine's file sets ENGINE (the command with its flags) and a function `use RUNTIME`, then calls
# `step` for each thing that a user of the engine does: it is done by runc first, then by hearth, and both must see
# the same.
#
# Given by scripts/drivers: WORK (a directory for everything), HEARTH and RUNC (the executables), NAME (of the
# engine), TAG (prefix of every name that the machine sees, cgroups above all).
set -uo pipefail
IMAGE=localhost/box:latest
RUNTIMES="runc hearth"
C= # the container that the step may make; it is removed after the step
passed=0 failed=0 skipped=0
RUN=() ENGINE=()

isolate() {
    mount -t tmpfs -o mode=755 tmpfs /run
    ip link set lo up
    mkdir -p "$WORK"/{home,tmp,bin,image}
    export HOME=$WORK/home TMPDIR=$WORK/tmp PATH=$WORK/bin:/usr/sbin:/usr/bin:/sbin:/bin SHELL=/bin/bash
    unset XDG_RUNTIME_DIR XDG_CONFIG_HOME NOTIFY_SOCKET
    ulimit -c 0
    # Tells that the engine really called it: some drop the choice of a runtime in silence.
    printf '#!/bin/sh\necho "$@" >>"%s"\nexec "%s" "$@"\n' "$WORK/calls" "$HEARTH" >"$WORK/bin/hearth"
    chmod 755 "$WORK/bin/hearth"
    HEARTH=$WORK/bin/hearth
}

# A small image, made of busybox, as a docker-archive and an oci-archive.
make_image() {
    local layout=$WORK/image/layout bundle=$WORK/image/bundle applet
    umoci init --layout "$layout" && umoci new --image "$layout:box" && umoci unpack --image "$layout:box" "$bundle"
    mkdir -p "$bundle"/rootfs/{bin,etc,proc,sys,dev,tmp,root,home/app,data}
    chmod 1777 "$bundle/rootfs/tmp"
    for applet in $(/bin/busybox --list); do ln -s busybox "$bundle/rootfs/bin/$applet"; done
    cp --remove-destination /bin/busybox "$bundle/rootfs/bin/busybox"
    printf 'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n' >"$bundle/rootfs/etc/passwd"
    printf 'root:x:0:\napp:x:1000:\nextra:x:2000:app\n' >"$bundle/rootfs/etc/group"
    umoci repack --image "$layout:box" "$bundle"
    umoci config --image "$layout:box" --config.env PATH=/bin --config.cmd sh --architecture amd64 --os linux
    umoci gc --layout "$layout"
    skopeo --insecure-policy copy "oci:$layout:box" "docker-archive:$WORK/image/docker.tar:$IMAGE"
    skopeo --insecure-policy copy "oci:$layout:box" "oci-archive:$WORK/image/oci.tar:$IMAGE"
} >"$WORK/image.log" 2>&1

# What differs between any two runs is taken out, and all becomes one line.
normalise() {
    sed -E -e '/(msg="|WARN.*)DEPRECATION/d' -e 's/\r|\^[@D]\x08*//g; s/\x1b\[[0-9;?]*[a-zA-Z]//g; s/\b[0-9a-f]{64}\b/ID/g; s/\b[0-9a-f]{12}\b/ID/g' \
        -e "s/$TAG-[a-z0-9-]+/NAME/g" | tr -s ' \t\n' ' ' | sed 's/^ //; s/ $//'
}

outcome() { # RUNTIME NUMBER SCRIPT
    local text tail
    C=$TAG-$1-$2
    use "$1"
    text=$({
        eval "$3"
        echo "exit $?"
    } 2>&1 </dev/null | normalise)
    cleanup >/dev/null 2>&1 </dev/null
    tail=${text##* exit }
    [ ${#text} -le 1500 ] || text="${text:0:1500} ... exit $tail"
    printf '%s' "$text"
}

# step NAME EXPECTED SCRIPT: EXPECTED is an extended regular expression that tells that the step really happened.
# What runc does not do under this engine on this machine is skipped: there is nothing to be compared with.
step() {
    local name=$1 expected=$2 script=$3 runc hearth verdict called=0
    [[ -z ${ONLY:-} || $name =~ $ONLY ]] || return 0
    number=$((${number:-0} + 1))
    runc=$(outcome runc "$number" "$script")
    [ ! -e "$WORK/calls" ] || called=$(wc -l <"$WORK/calls")
    hearth=$(outcome hearth "$number" "$script")
    if [ -z "${UNCALLED:-}" ] && [ "$called" = "$(wc -l <"$WORK/calls")" ]; then
        hearth='the engine did not call it' verdict=skipped skipped=$((skipped + 1))
    elif ! [[ $runc =~ $expected ]]; then
        verdict=skipped skipped=$((skipped + 1))
    elif [ "$runc" = "$hearth" ] && [[ $hearth =~ $expected ]]; then
        verdict=passed passed=$((passed + 1))
    else
        verdict=FAILED failed=$((failed + 1))
    fi
    printf '%s\t%s\t%s\t%s\t%s\n' "$NAME" "$name" "$runc" "$hearth" "$verdict" >>"$TABLE"
    printf '%-10s %-26s %-38.38s %-38.38s %s\n' "$NAME" "$name" "$runc" "$hearth" "$verdict"
    [ $verdict = passed ] || printf '    runc:   %s\n    hearth: %s\n    wanted: %s\n' "$runc" "$hearth" "$expected"
}

# A condition that must come true within 15 s.
await() {
    local _
    for _ in $(seq 150); do
        eval "$1" >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    echo "never: $1"
    return 1
}

engine() { timeout -k 5 60 "${ENGINE[@]}" "$@"; }

# Cgroups of containers that are still there; those that the engine makes itself (OWN, an expression) do not count.
left_cgroups() {
    find /sys/fs/cgroup -mindepth 2 -type d -path "*$TAG*" -printf '%f\n' | grep -vxE "$TAG${OWN:+|$OWN}" | sort -u
}

report() {
    UNCALLED=yes
    step 'no cgroup is left' '^exit 0$' 'left_cgroups; true'
    step 'no state is left' '^exit 0$' 'find $(state_directories) -mindepth 1 -maxdepth 1 2>/dev/null; true'
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
}

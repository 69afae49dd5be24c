#!/bin/bash
# Podman as an ordinary user: images as plain trees (vfs), no network, no cgroups on a host with v1. See common.sh.
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/common.sh"
. "$HERE/cli.sh"

ID=71000
isolate
make_image
# The user exists in this mount namespace only.
for table in passwd:x:$ID:$ID::$HOME:/bin/sh group:x:$ID: subuid:300000:65536 subgid:300000:65536; do
    { cat "/etc/${table%%:*}"; echo "hearthtest:${table#*:}"; } >"$WORK/${table%%:*}"
    mount --bind "$WORK/${table%%:*}" "/etc/${table%%:*}"
done
# Where the executables are may be closed to the user.
real=$(sed -n 's/^exec "\(.*\)" "\$@"$/\1/p' "$HEARTH")
cp "$real" "$WORK/bin/hearth-itself"
sed -i "s|$real|$WORK/bin/hearth-itself|" "$HEARTH"
mkdir -p "/run/user/$ID" "$HOME/.config/containers"
printf '[storage]\ndriver = "vfs"\n' >"$HOME/.config/containers/storage.conf"
cat >"$WORK/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
netns = "none"
log_driver = "k8s-file"
init_path = "/usr/bin/tini-static"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime_supports_json = ["runc", "hearth", "crun"]
CONF
: >"$WORK/calls"
chown -R $ID:$ID "$HOME" "$WORK/tmp" "$WORK/calls" "/run/user/$ID"
PODMAN=(setpriv --reuid=$ID --regid=$ID --clear-groups env USER=hearthtest XDG_RUNTIME_DIR=/run/user/$ID
    "CONTAINERS_CONF=$WORK/containers.conf" podman)
FORCE=(-f -t 0)

use() {
    local path=$RUNC
    [ "$1" = hearth ] && path=$HEARTH
    ENGINE=("${PODMAN[@]}" --runtime "$path")
}
state_directories() { echo /run/user/$ID/runc /run/user/$ID/hearth; }

cd "$WORK" # where the user may be
"${PODMAN[@]}" load -qi "$WORK/image/docker.tar" >"$WORK/load.log" 2>&1 || { cat "$WORK/image.log" "$WORK/load.log"; exit 1; }
run_steps
life_steps
report

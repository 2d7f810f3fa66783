# Without privileges: create, start, state, exec, pause, update, ps, events, kill and delete, with the
# user's own systemd ("user") or in the cgroups that it delegated ("user-cgroupfs").
# managers: user user-cgroupfs
# seconds: 240
folder=/run/user/1000/gt-lifecycle
at_exit "as-user $RUNTIME --root $folder/root delete --force gt-box >/dev/null 2>&1; rm -rf $folder"
chmod 755 /var/tmp/guest-tests "$WORK"
install -d -o user -g user "$folder" "$folder/box"
path='del(.linux.cgroupsPath)' option=''
[ "$MANAGER" != user ] || { path='.linux.cgroupsPath = "user.slice:gt:box"'; option=--systemd-cgroup; }
(cd "$folder" && as-user sh -c "cd $folder && $RUNTIME spec --rootless" 2>/dev/null || as-user sh -c "cd $folder && runc spec --rootless")
jq ".process.terminal = false | .root = {path: \"/busybox\", readonly: true} | $path |
    .process.args = [\"sh\", \"-c\", \"while :; do sleep 0.2; done\"] |
    .linux.resources = {memory: {limit: 67108864}, pids: {limit: 77}}" "$folder/config.json" >"$folder/box/config.json"
# All in one command: each call of as-user is a unit of its own, whose cgroup is a neighbour.
cat >"$folder/script" <<SCRIPT
set -euo pipefail
runtime() { $RUNTIME --root $folder/root $option "\$@"; }
runtime create --bundle $folder/box --pid-file $folder/pid gt-box </dev/null >$folder/out 2>&1 || { cat $folder/out; exit 1; }
cgroup=/sys/fs/cgroup\$(cut -d: -f3 /proc/\$(cat $folder/pid)/cgroup)
echo "\$cgroup" >$folder/cgroup
status() { runtime state gt-box | jq -r .status; }
echo "created: \$(status) \$(cat \$cgroup/memory.max) \$(cat \$cgroup/pids.max)"
runtime start gt-box
echo "started: \$(status)"
echo "exec: \$(runtime exec gt-box sh -c 'id -u; cat /proc/self/cgroup' | tr '\n' ' ')"
runtime pause gt-box
echo "paused: \$(status) \$(grep frozen \$cgroup/cgroup.events)"
runtime resume gt-box
echo "resumed: \$(status)"
runtime update --memory 33554432 --pids-limit 33 gt-box
echo "updated: \$(cat \$cgroup/memory.max) \$(cat \$cgroup/pids.max)"
echo "ps: \$(runtime ps --format json gt-box | jq 'index('\$(cat $folder/pid)') != null')"
echo "events: \$(runtime events --stats gt-box | jq .data.memory.usage.limit)"
runtime kill gt-box KILL
until [ "\$(status)" = stopped ]; do sleep 0.1; done
runtime delete gt-box
echo "deleted: \$(runtime list --quiet) \$(ls -d \$cgroup 2>/dev/null)"
SCRIPT
is "what the user could do" "$(as-user bash "$folder/script" 2>&1)" "created: created 67108864 77
started: running
exec: 0 0::/ 
paused: paused frozen 1
resumed: running
updated: 33554432 33
ps: true
events: 33554432
deleted:  "
matches "its cgroup" "$(cat "$folder/cgroup")" "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/*gt-box*"

# Under systemd it becomes a scope in system.slice, named after the runtime or the id.
# managers: cgroupfs systemd
start box 'exec sleep 1000' 'del(.linux.cgroupsPath) | .linux.resources.pids.limit = 77'
path=$(cut -d: -f3 "/proc/$(pid box)/cgroup")
if [ "$MANAGER" = cgroupfs ]; then
    own=$(cut -d: -f3 /proc/self/cgroup)
    is "its cgroup" "$path" "${own%/*}/gt-box"
else
    matches "its cgroup" "$path" "/system.slice/*gt-box.scope"
fi
is pids.max "$(cat "/sys/fs/cgroup$path/pids.max")" 77
runtime delete --force gt-box
[ ! -e "/sys/fs/cgroup$path" ] || fail "$path is still there"

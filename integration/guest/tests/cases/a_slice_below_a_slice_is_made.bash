# a-b.slice lies in a.slice; systemd makes both, and keeps them, as others may use them.
# managers: systemd
at_exit 'systemctl stop gt.slice'
start box 'exec sleep 1000' '.linux.cgroupsPath = "gt-outer.slice:gt:box" | .linux.resources.memory = {limit: 67108864}'
path=$(cut -d: -f3 "/proc/$(pid box)/cgroup")
is "its cgroup" "$path" "/gt.slice/gt-outer.slice/gt-box.scope"
is memory.max "$(cat "/sys/fs/cgroup$path/memory.max")" 67108864
runtime delete --force gt-box
[ ! -e "/sys/fs/cgroup$path" ] || fail "$path is still there"

# cgroupsPath may name folders that don't exist; each on the way hands its controllers down.
# managers: cgroupfs
at_exit 'rmdir /sys/fs/cgroup/gt-outer/middle /sys/fs/cgroup/gt-outer 2>/dev/null'
start box 'exec sleep 1000' '.linux.cgroupsPath = "/gt-outer/middle/box" | .linux.resources += {
    memory: {limit: 67108864}, pids: {limit: 77}, cpu: {cpus: "0"}}'
folder=/sys/fs/cgroup/gt-outer/middle/box
is "/proc/PID/cgroup" "$(cut -d: -f3 "/proc/$(pid box)/cgroup")" /gt-outer/middle/box
is memory.max "$(cat $folder/memory.max)" 67108864
is pids.max "$(cat $folder/pids.max)" 77
is cpuset.cpus "$(cat $folder/cpuset.cpus)" 0
runtime delete --force gt-box
[ ! -e $folder ] || fail "$folder is still there"

# Somebody moved the container's process elsewhere, and removed the cgroup that it was made for.
# managers: cgroupfs
start box 'exec sleep 1000'
mkdir /sys/fs/cgroup/gt-elsewhere
pid box >/sys/fs/cgroup/gt-elsewhere/cgroup.procs
rmdir "$(cgroup box)"
at_exit 'kill -KILL "$(pid box)"; until rmdir /sys/fs/cgroup/gt-elsewhere 2>/dev/null; do sleep 0.1; done'
runtime exec --detach --pid-file "$WORK/exec.pid" gt-box sleep 1001 </dev/null >/dev/null 2>&1
is "the cgroup" "$(cut -d: -f3 "/proc/$(cat "$WORK/exec.pid")/cgroup")" /gt-elsewhere

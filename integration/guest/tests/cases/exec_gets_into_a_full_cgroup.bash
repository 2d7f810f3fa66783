# No process is born in a cgroup that is at pids.max, but one may come in, as with runc.
# managers: cgroupfs systemd user
start box 'exec sleep 1000' '.linux.resources.pids.limit = 1'
is pids.current "$(limit box pids.current)" 1
runtime exec --detach --pid-file "$WORK/exec.pid" gt-box sleep 1001 </dev/null >/dev/null 2>&1
is "/proc/PID/cgroup" "/sys/fs/cgroup$(cut -d: -f3 "/proc/$(cat "$WORK/exec.pid")/cgroup")" "$(cgroup box)"

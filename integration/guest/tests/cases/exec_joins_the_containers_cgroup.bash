# managers: cgroupfs systemd
start box 'exec sleep 1000'
runtime exec --detach --pid-file "$WORK/exec.pid" gt-box sleep 1001 </dev/null >/dev/null 2>&1
is "/proc/PID/cgroup" "/sys/fs/cgroup$(cut -d: -f3 "/proc/$(cat "$WORK/exec.pid")/cgroup")" "$(cgroup box)"

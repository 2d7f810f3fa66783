# managers: cgroupfs systemd
start box 'exec sleep 1000'
runtime exec --detach --pid-file "$WORK/exec.pid" gt-box sleep 1001 </dev/null >/dev/null 2>&1
is "/proc/PID/cgroup" "/sys/fs/cgroup$(cut -d: -f3 "/proc/$(cat "$WORK/exec.pid")/cgroup")" "$(cgroup box)"

# That of the container, whatever child of it the first process has gone to meanwhile.
start child '
    mkdir /sys/fs/cgroup/init && echo 1 >/sys/fs/cgroup/init/cgroup.procs && echo gone
    exec sleep 1002' '(.mounts[] | select(.destination == "/sys/fs/cgroup")).options -= ["ro"]'
soon "the first process has gone to a child" says child gone
runtime exec --detach --pid-file "$WORK/exec.pid" gt-child sleep 1003 </dev/null >/dev/null 2>&1
is "/proc/PID/cgroup" "/sys/fs/cgroup$(cut -d: -f3 "/proc/$(cat "$WORK/exec.pid")/cgroup")" "$(cgroup child)"

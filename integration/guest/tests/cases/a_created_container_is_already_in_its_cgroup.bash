# With its limits, before anything of the bundle has run.
# managers: cgroupfs systemd
bundle box 'exec sleep 1000' '.linux.resources += {memory: {limit: 67108864}, pids: {limit: 77}}'
runtime create --bundle "$WORK/box" --pid-file "$WORK/box.pid" gt-box </dev/null >"$WORK/box.out" 2>&1 ||
    fail "create: $(cat "$WORK/box.out")"
is "/proc/PID/cgroup" "/sys/fs/cgroup$(cut -d: -f3 "/proc/$(pid box)/cgroup")" "$(cgroup box)"
is cgroup.procs "$(limit box cgroup.procs)" "$(pid box)"
is memory.max "$(limit box memory.max)" 67108864
is pids.max "$(limit box pids.max)" 77
runtime start gt-box

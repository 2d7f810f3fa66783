# Init is dead already, and nothing but the cgroup knows of what it left behind.
# managers: cgroupfs systemd
start box 'setsid sleep 1001 & setsid sleep 1002 & exec sleep 1003' '.linux.namespaces |= map(select(.type != "pid"))'
soon "all three run" sh -c "[ \$(cat $(cgroup box)/pids.current) = 3 ]"
processes=$(limit box cgroup.procs)
kill -KILL "$(pid box)"
soon "the container is stopped" has_status box stopped
runtime delete --force gt-box
for process in $processes; do ! kill -0 "$process" 2>/dev/null || fail "process $process outlived its container"; done
[ ! -e "$(cgroup box)" ] || fail "the cgroup is still there"

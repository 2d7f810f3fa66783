# managers: cgroupfs systemd
start box 'sleep 1001 & setsid sleep 1002 & exec sleep 1003' '.linux.namespaces |= map(select(.type != "pid"))'
soon "all three run" sh -c "[ \$(cat $(cgroup box)/pids.current) = 3 ]"
processes=$(limit box cgroup.procs)
runtime kill --all gt-box KILL
for process in $processes; do soon "process $process is gone" sh -c "! kill -0 $process"; done
soon "the container is stopped" has_status box stopped

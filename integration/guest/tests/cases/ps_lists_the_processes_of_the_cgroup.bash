# managers: cgroupfs systemd
start box 'sleep 1001 & sleep 1002 & exec sleep 1003'
soon "all three run" sh -c "[ \$(cat $(cgroup box)/pids.current) = 3 ]"
is "ps as JSON" "$(runtime ps --format json gt-box | jq -c sort)" "$(jq -sc sort "$(cgroup box)/cgroup.procs")"
table=$(runtime ps gt-box)
for seconds in 1001 1002 1003; do matches "ps as a table" "$table" "*sleep $seconds*"; done

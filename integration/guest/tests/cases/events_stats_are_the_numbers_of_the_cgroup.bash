# In runc's JSON.
# managers: cgroupfs systemd
start box 'x=$(head -c 4000000 /dev/zero | tr "\0" x); echo ready; exec sleep 1000' '.linux.resources += {
    memory: {limit: 67108864}, pids: {limit: 77}}'
soon "it has used some time and memory" says box ready
stats=$(runtime events --stats gt-box)
is type "$(jq -r .type <<<"$stats")" stats
is id "$(jq -r .id <<<"$stats")" gt-box
is "memory.usage.limit" "$(jq .data.memory.usage.limit <<<"$stats")" 67108864
is "pids.limit" "$(jq .data.pids.limit <<<"$stats")" 77
is "pids.current" "$(jq .data.pids.current <<<"$stats")" 1
used=$(jq .data.memory.usage.usage <<<"$stats")
((used > 0 && used < 67108864)) || fail "memory.usage.usage is $used"
nanoseconds=$(jq .data.cpu.usage.total <<<"$stats")
now=$(counter box cpu.stat usage_usec)
((nanoseconds > 1000000 && nanoseconds <= now * 1000)) || fail "cpu.usage.total is $nanoseconds ns, cpu.stat says $now µs"

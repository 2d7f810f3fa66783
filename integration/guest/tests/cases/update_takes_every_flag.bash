# Each alone, and those that cgroup v2 has nothing for are refused by name.
# managers: cgroupfs systemd
only_for coracle "of the guest is older than some of them"
start box 'exec sleep 1000' '.linux.resources += {memory: {limit: 67108864}, cpu: {quota: 50000, period: 100000}}'
changes() { # FLAG VALUE FILE CONTENT
    runtime update "$1" "$2" gt-box || fail "update $1 $2 failed"
    is "$3 after $1 $2" "$(limit box "$3")" "$4"
}
changes --memory 128m memory.max 134217728
changes --memory-reservation 16m memory.low 16777216
runtime update --memory 128m --memory-swap 192m gt-box
is "memory.swap.max" "$(limit box memory.swap.max)" 67108864
changes --cpu-quota 30000 cpu.max "30000 100000"
changes --cpu-period 50000 cpu.max "30000 50000"
changes --cpu-burst 5000 cpu.max.burst 5000
changes --cpu-share 2048 cpu.weight 174
changes --cpu-idle 1 cpu.idle 1
changes --cpu-idle 0 cpu.idle 0
is "cpu.weight, when idle no more" "$(limit box cpu.weight)" 100
changes --cpuset-cpus 1 cpuset.cpus 1
changes --cpuset-mems 0 cpuset.mems 0
changes --pids-limit 33 pids.max 33
changes --pids-limit -1 pids.max max
changes --blkio-weight 200 io.weight "default 1920"
refuses() { # FLAG VALUE WORDS
    if runtime update "$1" "$2" gt-box >"$WORK/error" 2>&1; then fail "update $1 $2 was taken on cgroup v2"; fi
    matches "the error of $1" "$(cat "$WORK/error")" "*$3*"
}
refuses --cpu-rt-period 1000000 "cpu.realtimePeriod"
refuses --cpu-rt-runtime 100000 "cpu.realtimeRuntime"
refuses --l3-cache-schema L3:0=f "RDT"
refuses --mem-bw-schema MB:0=50 "RDT"
if [ "$MANAGER" = systemd ]; then
    unit_anew gt-box.scope
    is "cpu.weight after a reload" "$(limit box cpu.weight)" 100
    is "cpu.idle after a reload" "$(limit box cpu.idle)" 0
    is "cpu.max after a reload" "$(limit box cpu.max)" "30000 50000"
fi

# By flags and by a resources document; under systemd the unit's properties follow.
# managers: cgroupfs systemd
start box 'exec sleep 1000' '.linux.resources += {
    memory: {limit: 67108864}, cpu: {quota: 50000, period: 100000}, pids: {limit: 77}}'
runtime update --memory 134217728 --cpu-quota 20000 gt-box
is memory.max "$(limit box memory.max)" 134217728
is cpu.max "$(limit box cpu.max)" "20000 100000"
is "pids.max, which was not named" "$(limit box pids.max)" 77
runtime update --pids-limit 33 --cpuset-cpus 0 --memory-reservation 16777216 --blkio-weight 200 gt-box
runtime update --memory 134217728 --memory-swap 201326592 gt-box
is pids.max "$(limit box pids.max)" 33
is cpuset.cpus "$(limit box cpuset.cpus)" 0
is memory.low "$(limit box memory.low)" 16777216
is "memory.swap.max, 192 MiB less 128 MiB of memory" "$(limit box memory.swap.max)" 67108864
# This runc gives systemd no IOWeight, so systemd resets it with its next change to the unit.
[ "$RUNTIME_NAME $MANAGER" = "runc systemd" ] || is io.weight "$(limit box io.weight)" "default 1920"
runtime update --resources - gt-box <<<'{"memory": {"limit": 50331648}, "unified": {"memory.high": "41943040"}}'
is "memory.max from the document" "$(limit box memory.max)" 50331648
[ "$RUNTIME_NAME" = runc ] || is "memory.high from the document" "$(limit box memory.high)" 41943040
is "pids.max, which the document does not name" "$(limit box pids.max)" 33
if [ "$RUNTIME_NAME" = coracle ]; then # the yardsticks here are older than these
    runtime update --cpu-share 2048 --cpu-burst 5000 gt-box
    is cpu.weight "$(limit box cpu.weight)" 174
    is cpu.max.burst "$(limit box cpu.max.burst)" 5000
    runtime update --cpu-idle 1 gt-box
    is cpu.idle "$(limit box cpu.idle)" 1
fi
if [ "$MANAGER" = systemd ]; then
    is "MemoryMax of the unit" "$(systemctl show gt-box.scope -p MemoryMax --value)" 50331648
    is "TasksMax of the unit" "$(systemctl show gt-box.scope -p TasksMax --value)" 33
fi

# cgroup v2 limits swap alone, the fields the sum of memory and swap: the one that is not named stays.
# managers: cgroupfs systemd
only_for coracle "of the guest is older than this"
start box 'exec sleep 1000' '.linux.resources += {memory: {limit: 33554432, swap: 67108864}}'
is memory.swap.max "$(limit box memory.swap.max)" 33554432
runtime update --memory 48m gt-box
is "memory.max" "$(limit box memory.max)" 50331648
is "memory.swap.max, 64 MiB less 48" "$(limit box memory.swap.max)" 16777216
if runtime update --memory 80m gt-box >"$WORK/error" 2>&1; then fail "a memory limit above that of memory and swap was taken"; fi
is "memory.max after a refusal" "$(limit box memory.max)" 50331648
runtime update --memory-swap 92m gt-box
is "memory.swap.max, 92 MiB less 48" "$(limit box memory.swap.max)" 46137344

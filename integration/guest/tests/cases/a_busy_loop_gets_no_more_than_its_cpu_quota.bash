# Quota is 20 ms of each 100 ms. The cgroup counts periods, throttled ones, and time used.
# managers: cgroupfs systemd
start box 'while :; do :; done' '.linux.resources.cpu = {quota: 20000, period: 100000}'
used=$(counter box cpu.stat usage_usec) periods=$(counter box cpu.stat nr_periods)
sleep 2
((used = $(counter box cpu.stat usage_usec) - used, periods = $(counter box cpu.stat nr_periods) - periods)) || :
counts box cpu.stat nr_throttled || fail "nothing was throttled: $(limit box cpu.stat)"
# Half as much again for the scheduler's slices, which end on clock ticks.
((used <= (periods + 2) * 30000)) || fail "$used µs used in $periods periods of 20000 µs each"

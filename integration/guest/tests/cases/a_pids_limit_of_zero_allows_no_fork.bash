# It is written as 1, so that systemd, which knows no 0, changes nothing.
# managers: cgroupfs systemd
start box 'sleep 1001 & wait; exec sleep 1000' '.linux.resources.pids.limit = 0'
is pids.max "$(limit box pids.max)" 1
soon "a fork is refused" counts box pids.events max

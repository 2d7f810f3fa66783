# managers: cgroupfs systemd
start box 'exec sleep 1000' '.linux.resources.pids.limit = -1'
is pids.max "$(limit box pids.max)" max

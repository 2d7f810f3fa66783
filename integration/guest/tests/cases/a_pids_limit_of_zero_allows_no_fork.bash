# It is written as 1, so that systemd, which knows no 0, changes nothing.
# managers: cgroupfs systemd
start box 'exec sleep 1000' '.linux.resources.pids.limit = 0'
is pids.max "$(limit box pids.max)" 1
matches "a fork" "$(inside box 'sleep 1 & echo forked' 2>&1 || :)" "*can't fork*"

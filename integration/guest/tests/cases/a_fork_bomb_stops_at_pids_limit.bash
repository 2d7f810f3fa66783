# managers: cgroupfs systemd
start box 'sh -c "while :; do sleep 1000 & done"; exec sleep 1000' '.linux.resources.pids.limit = 12'
soon "a fork is refused" counts box pids.events max
processes=$(limit box pids.current)
((processes <= 12)) || fail "$processes processes run under a limit of 12"

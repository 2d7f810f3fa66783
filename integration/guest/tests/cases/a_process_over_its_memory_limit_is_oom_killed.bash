# The kernel kills what goes over linux.resources.memory.limit, and the rest goes on.
# managers: cgroupfs systemd
start box 'dd if=/dev/zero of=/dev/null bs=100M count=1; echo "status $?"; exec sleep 1000' \
    '.linux.resources.memory = {limit: 33554432, swap: 33554432}'
soon "the hungry process dies of SIGKILL" says box "status 137"
counts box memory.events oom_kill || fail "memory.events counts no OOM kill: $(limit box memory.events)"
is "the container's status" "$(status_of box)" running

# The controller counts resources that only some machines have; misc.capacity lists them.
# managers: cgroupfs systemd
resource=$(cut -d' ' -f1 /sys/fs/cgroup/misc.capacity 2>/dev/null | head -n 1) || :
[ -n "$resource" ] || skip "this machine has none of the resources that the misc controller counts"
start box 'exec sleep 1000' ".linux.resources.unified = {\"misc.max\": \"$resource 1\"}"
matches misc.max "$(limit box misc.max)" "*$resource 1*"

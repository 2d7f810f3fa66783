# Through the cgroup namespace; read-only as the bundle asks.
# managers: cgroupfs systemd
start box 'cat /proc/self/cgroup; ls /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/child 2>&1 | grep -o "Read-only file system"; exec sleep 1000'
soon "it has looked" says box "Read-only file system"
is "what it sees" "$(cat "$WORK/box.out")" "0::/
/sys/fs/cgroup/cgroup.procs
Read-only file system"

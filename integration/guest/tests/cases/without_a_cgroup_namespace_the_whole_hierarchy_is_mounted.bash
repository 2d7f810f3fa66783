# The processes are told their place in the whole hierarchy, so that is what they must find.
# managers: cgroupfs systemd
start box 'cat "/sys/fs/cgroup$(sed -n "s/^0:://p" /proc/self/cgroup)/cgroup.procs"; mkdir /sys/fs/cgroup/gt-child || echo kept
    exec sleep 1000' '.linux.namespaces -= [{type: "cgroup"}]'
soon "it has looked" says box kept
is "the first process there, as the container counts" "$(head -n 1 "$WORK/box.out")" 1

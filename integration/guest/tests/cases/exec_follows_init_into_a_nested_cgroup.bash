# A container that runs systemd or Docker moves its processes into children of its cgroup,
# where controllers such as memory are; the kernel then lets no process join the parent (EBUSY).
# managers: cgroupfs systemd
start box '
    mkdir /sys/fs/cgroup/init && echo 1 >/sys/fs/cgroup/init/cgroup.procs &&
    echo +memory >/sys/fs/cgroup/cgroup.subtree_control && echo nested
    exec sleep 1000' '(.mounts[] | select(.destination == "/sys/fs/cgroup")).options -= ["ro"]'
soon "the container has nested its cgroups" says box nested
is "the cgroup as the exec sees it" "$(inside box 'cat /proc/self/cgroup')" "0::/init"

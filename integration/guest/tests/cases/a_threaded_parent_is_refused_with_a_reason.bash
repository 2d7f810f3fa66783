# Memory can't be limited below a threaded cgroup.
# managers: cgroupfs
mkdir -p /sys/fs/cgroup/gt-threads/inner
at_exit 'rmdir /sys/fs/cgroup/gt-threads/inner/box /sys/fs/cgroup/gt-threads/inner /sys/fs/cgroup/gt-threads 2>/dev/null'
echo threaded >/sys/fs/cgroup/gt-threads/inner/cgroup.type
bundle box 'exec sleep 1000' '.linux.cgroupsPath = "/gt-threads/inner/box" | .linux.resources.memory = {limit: 67108864}'
refused box "*thread*"

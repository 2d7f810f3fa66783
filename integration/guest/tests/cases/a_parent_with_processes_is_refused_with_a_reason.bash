# The kernel hands no controllers down from a cgroup that has processes of its own.
# managers: cgroupfs
mkdir /sys/fs/cgroup/gt-busy
sleep 1000 & sleeper=$!
at_exit "kill $sleeper; wait $sleeper 2>/dev/null; rmdir /sys/fs/cgroup/gt-busy/box /sys/fs/cgroup/gt-busy 2>/dev/null"
echo $sleeper >/sys/fs/cgroup/gt-busy/cgroup.procs
bundle box 'exec sleep 1000' '.linux.cgroupsPath = "/gt-busy/box" | .linux.resources.memory = {limit: 67108864}'
refused box "*gt-busy*"

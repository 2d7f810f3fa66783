# exec --cgroup PATH is relative to the container's own cgroup; a missing one is an error.
# managers: cgroupfs systemd
start box 'mkdir /sys/fs/cgroup/side && echo made; exec sleep 1000' \
    '(.mounts[] | select(.destination == "/sys/fs/cgroup")).options -= ["ro"]'
soon "the sub-cgroup is there" says box made
is "the cgroup as the exec sees it" "$(runtime exec --cgroup side gt-box cat /proc/self/cgroup)" "0::/side"
if runtime exec --cgroup nowhere gt-box true >"$WORK/error" 2>&1; then fail "it ran in a cgroup that does not exist"; fi
matches "the error" "$(cat "$WORK/error")" "* adding pid */nowhere/cgroup.procs: no such file *must exist below*"
if runtime exec --cgroup ../../.. gt-box true >"$WORK/error" 2>&1; then fail "it ran above the container's cgroup"; fi

# One that has enabled controllers for its children takes no process: who names it is not put elsewhere.
runtime exec gt-box sh -ec 'cd /sys/fs/cgroup && echo 1 >side/cgroup.procs && echo $$ >side/cgroup.procs
    echo +memory >cgroup.subtree_control'
if runtime exec --cgroup / gt-box true >"$WORK/error" 2>&1; then fail "it ran beside the cgroups of its children"; fi
matches "the error" "$(cat "$WORK/error")" "* adding pid * to cgroups*/cgroup.procs: device or resource busy*"
is "the cgroup without a name" "$(runtime exec gt-box cat /proc/self/cgroup)" "0::/side"

# exec --cgroup PATH is relative to the container's own cgroup; a missing one is an error.
# managers: cgroupfs systemd
start box 'mkdir /sys/fs/cgroup/side && echo made; exec sleep 1000' \
    '(.mounts[] | select(.destination == "/sys/fs/cgroup")).options -= ["ro"]'
soon "the sub-cgroup is there" says box made
is "the cgroup as the exec sees it" "$(runtime exec --cgroup side gt-box cat /proc/self/cgroup)" "0::/side"
if runtime exec --cgroup nowhere gt-box true >"$WORK/error" 2>&1; then fail "it ran in a cgroup that does not exist"; fi
matches "the error" "$(cat "$WORK/error")" "*nowhere*"
if runtime exec --cgroup ../../.. gt-box true >"$WORK/error" 2>&1; then fail "it ran above the container's cgroup"; fi

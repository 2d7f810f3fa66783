# managers: cgroupfs systemd
# A container that may write its cgroup can give a cgroup below it the name of a file that version 1 has.
start box '
    cd /sys/fs/cgroup && mkdir freezer.state memory.usage_in_bytes cpuacct.usage && echo made
    exec sleep 1000' '(.mounts[] | select(.destination == "/sys/fs/cgroup")).options -= ["ro"]'
soon "the container has made its cgroups" says box made
is "status" "$(status_of box)" running
runtime pause gt-box
is "status" "$(status_of box)" paused
runtime resume gt-box
is "status" "$(status_of box)" running
runtime events --stats gt-box >/dev/null
runtime delete --force gt-box

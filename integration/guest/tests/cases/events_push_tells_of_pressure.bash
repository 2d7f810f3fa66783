# Two loops that share a CPU wait for it half of the time.
# managers: cgroupfs systemd
only_for coracle "has no events --push"
[ -e /sys/fs/cgroup/system.slice/cpu.pressure ] || skip "this kernel has no pressure information for cgroups"
start box 'while :; do :; done & while :; do :; done' '.linux.resources.cpu.cpus = "0"'
runtime events --push gt-box >"$WORK/events" 2>"$WORK/events.err" &
at_exit "kill $! 2>/dev/null"
soon "CPU pressure is reported" grep -q '"type":"pressure".*"resource":"cpu"' "$WORK/events"

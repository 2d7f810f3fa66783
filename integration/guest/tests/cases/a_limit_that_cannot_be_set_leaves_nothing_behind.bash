# A limit that can't be set: create fails, and cgroup, unit and state are gone again.
# managers: cgroupfs systemd
bundle box 'exec sleep 1000' '.linux.resources.cpu.cpus = "0-4095"'
refused box "*cpu*"
[ ! -e "$(cgroup box)" ] || fail "its cgroup is still there"
[ ! -e "$ROOT/gt-box" ] || fail "its state is still there"
if [ "$MANAGER" = systemd ]; then
    is "LoadState of its unit" "$(systemctl show gt-box.scope -p LoadState --value)" not-found
fi

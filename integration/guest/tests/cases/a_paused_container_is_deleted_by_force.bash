# managers: cgroupfs systemd
start box 'exec sleep 1000'
process=$(pid box)
runtime pause gt-box
runtime delete --force gt-box
! kill -0 "$process" 2>/dev/null || fail "its process is still there"
[ ! -e "$(cgroup box)" ] || fail "its cgroup is still there"

# managers: cgroupfs systemd
start box 'while :; do echo x >>/dev/shm/count; sleep 0.01; done'
shm=/proc/$(pid box)/root/dev/shm/count
grows() { local size; size=$(stat -c %s "$shm"); sleep 0.5; (($(stat -c %s "$shm") > size)); }
soon "it counts" grows
runtime pause gt-box
is "status" "$(status_of box)" paused
is "frozen in cgroup.events" "$(counter box cgroup.events frozen)" 1
if grows; then fail "it counts although it is paused"; fi
runtime resume gt-box
is "status" "$(status_of box)" running
soon "it counts again" grows

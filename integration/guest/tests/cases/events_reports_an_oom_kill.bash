# managers: cgroupfs systemd
start box 'until [ -e /dev/shm/go ]; do sleep 0.1; done; dd if=/dev/zero of=/dev/null bs=100M count=1; exec sleep 1000' \
    '.linux.resources.memory = {limit: 33554432, swap: 33554432}'
runtime events --interval 1s gt-box >"$WORK/events" 2>"$WORK/events.err" &
at_exit "kill $! 2>/dev/null"
soon "the first statistics arrive" grep -q '"type":"stats"' "$WORK/events"
inside box 'touch /dev/shm/go'
soon "the OOM kill is reported" grep -q '"type":"oom"' "$WORK/events"

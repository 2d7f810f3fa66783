# As they happen, without statistics in between, and it ends with the container.
# managers: cgroupfs systemd
only_for coracle "has no events --push"
start box 'until [ -e /dev/shm/go ]; do sleep 0.1; done; dd if=/dev/zero of=/dev/null bs=100M count=1
    until [ -e /dev/shm/end ]; do sleep 0.1; done' '.linux.resources.memory = {limit: 33554432, swap: 33554432}'
runtime events --push gt-box >"$WORK/events" 2>"$WORK/events.err" &
watcher=$!
at_exit "kill $watcher 2>/dev/null"
inside box 'touch /dev/shm/go'
soon "the OOM kill is reported" grep -q '"type":"oom' "$WORK/events"
inside box 'touch /dev/shm/end'
soon "the exit is reported" grep -q '"type":"exit' "$WORK/events"
soon "the watcher ends with the container" sh -c "! kill -0 $watcher"
jq -e 'select(.id != "gt-box")' "$WORK/events" >"$WORK/others" && fail "events of another id: $(cat "$WORK/others")"
(($(grep -c '"type":"stats"' "$WORK/events") <= 1)) || fail "statistics among the pushed events: $(cat "$WORK/events")"

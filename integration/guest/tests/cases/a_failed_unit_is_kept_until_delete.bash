# Its status can be looked at, and is taken away with the container.
# managers: systemd
start box 'exec sleep 1000' '.annotations += {"org.systemd.property.RuntimeMaxUSec": "uint64 5000000",
    "org.systemd.property.TimeoutStopUSec": "uint64 1000000"}'
soon "the unit has failed" systemctl is-failed gt-box.scope
status=0
systemctl status gt-box.scope >/dev/null || status=$?
is "the status that systemctl exits with" "$status" 3
soon "the container is stopped" has_status box stopped
runtime delete gt-box
status=0
systemctl status gt-box.scope >/dev/null 2>&1 || status=$?
is "the status after delete" "$status" 4

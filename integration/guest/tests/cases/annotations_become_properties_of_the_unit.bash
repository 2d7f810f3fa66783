# org.systemd.property.NAME holds a value in GVariant's text form.
# managers: systemd
start box 'exec sleep 1000' '.annotations += {
    "org.systemd.property.TimeoutStopUSec": "uint64 123456789",
    "org.systemd.property.CollectMode": "'\''inactive-or-failed'\''"}'
is TimeoutStopUSec "$(systemctl show gt-box.scope -p TimeoutStopUSec --value)" "2min 3.456789s"
is CollectMode "$(systemctl show gt-box.scope -p CollectMode --value)" inactive-or-failed

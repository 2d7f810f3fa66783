# The kernel takes one device a write in files such as io.max.
# managers: cgroupfs systemd
[ "$RUNTIME_NAME" != runc ] || skip "this runc writes all lines at once, which the kernel refuses"
modprobe loop
start box 'exec sleep 1000' '.linux.resources.unified = {"io.max": "7:0 rbps=1048576\n7:1 wbps=2097152"}'
matches io.max "$(limit box io.max)" "*7:0 rbps=1048576*"
matches io.max "$(limit box io.max)" "*7:1 *wbps=2097152*"

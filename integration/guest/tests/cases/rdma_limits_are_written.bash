# managers: cgroupfs systemd
{ modprobe siw && rdma link add gt0 type siw netdev lo; } >/dev/null 2>&1 || skip "this kernel has no RDMA device, nor one in software"
at_exit 'rdma link delete gt0'
start box 'exec sleep 1000' '.linux.resources.rdma = {gt0: {hcaHandles: 3, hcaObjects: 10000}}'
is rdma.max "$(limit box rdma.max)" "gt0 hca_handle=3 hca_object=10000"

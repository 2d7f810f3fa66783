# Where the kernel has the BFQ scheduler, blockIO.weight is written on its scale, as it is.
# managers: cgroupfs systemd
modprobe bfq 2>/dev/null || skip "this kernel has no BFQ scheduler"
start box 'exec sleep 1000' '.linux.resources.blockIO = {weight: 500}'
[ -e "$(cgroup box)/io.bfq.weight" ] || skip "this kernel's BFQ has no weight for cgroups"
matches io.bfq.weight "$(limit box io.bfq.weight)" "*500*"
runtime update --blkio-weight 200 gt-box
matches io.bfq.weight "$(limit box io.bfq.weight)" "*200*"
modprobe -r bfq # while it is there, other tests would find its file in the place of io.weight

# Raising a hard limit above the runtime's own takes CAP_SYS_RESOURCE on the host, which the root of a user namespace
# does not have: the runtime does it for the process.
# managers: cgroupfs
ulimit -n 500
start box 'echo "$(ulimit -Sn) $(ulimit -Hn)"; exec sleep 1000' '
    .process.rlimits = [{type: "RLIMIT_NOFILE", soft: 700, hard: 800}] |
    .linux.namespaces += [{type: "user"}] |
    .linux.uidMappings = [{containerID: 0, hostID: 100000, size: 65536}] | .linux.gidMappings = .linux.uidMappings'
soon "it has told its limits" says box "700 800"

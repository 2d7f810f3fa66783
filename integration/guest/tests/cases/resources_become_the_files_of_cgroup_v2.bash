# Each field of linux.resources, as the kernel shows it afterwards.
# managers: cgroupfs systemd
start box 'exec sleep 1000' '.linux.resources += {
    memory: {limit: 67108864, reservation: 33554432, swap: 100663296},
    cpu: {shares: 1024, quota: 50000, period: 200000, burst: 10000, cpus: "1", mems: "0"},
    pids: {limit: 77},
    blockIO: {weight: 500},
    hugepageLimits: [{pageSize: "2MB", limit: 4194304}],
    unified: {"memory.high": "50331648", "memory.oom.group": "1"}}'
wrong=()
expect() { # FILE VALUE
    local value
    value=$(limit box "$1" 2>&1) || :
    [ "$value" = "$2" ] || wrong+=("$1: got '$value', expected '$2'")
}
expect memory.max 67108864
expect memory.low 33554432
expect memory.swap.max 33554432 # swap counts memory and swap together in config.json
expect memory.high 50331648
expect memory.oom.group 1
expect cpu.max "50000 200000"
expect cpuset.cpus 1
expect cpuset.mems 0
expect pids.max 77
expect hugetlb.2MB.max 4194304
if [ "$RUNTIME_NAME" = coracle ]; then # the yardsticks here are older than these two
    expect cpu.weight 100
    expect cpu.max.burst 10000
fi
expect io.weight "default 4950" # from the scale of 10 to 1000 to that of 1 to 10000
((${#wrong[@]} == 0)) || fail "$(printf '%s\n' "${wrong[@]}")"

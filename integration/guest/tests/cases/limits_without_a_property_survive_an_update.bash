# systemd writes what it knows of a unit with each change of it, also over files that it has no word for.
# managers: systemd
only_for coracle "loses some of them"
start box 'exec sleep 1000' '.linux.resources.unified = {"memory.oom.group": "1", "io.weight": "default 500",
    "cpu.max": "33333 50000", "cgroup.max.depth": "7"}'
files() { for file in memory.oom.group io.weight cpu.max cgroup.max.depth; do echo "$file $(limit box $file)"; done; }
before=$(files)
is "the files, the quota as systemd keeps it" "$before" "memory.oom.group 1
io.weight default 500
cpu.max 33500 50000
cgroup.max.depth 7"
unit_anew gt-box.scope
is "the files after a change of the unit" "$(files)" "$before"
echo 6000 >"$(cgroup box)/cpu.max.burst"
runtime update --pids-limit 50 gt-box
is pids.max "$(limit box pids.max)" 50
is memory.oom.group "$(limit box memory.oom.group)" 1
is "cpu.max.burst, set from outside" "$(limit box cpu.max.burst)" 6000
runtime update --resources - gt-box <<<'{"unified": {"memory.oom.group": "0", "cpu.max": "20001"}}'
is "memory.oom.group after its update" "$(limit box memory.oom.group)" 0
is "cpu.max, with the period that was there" "$(limit box cpu.max)" "20500 50000"
runtime update --pids-limit 51 gt-box
is "memory.oom.group after another update" "$(limit box memory.oom.group)" 0

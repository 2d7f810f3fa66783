# The kernel takes none, and for systemd idle is a weight of 0: the weight is warned of and left out.
# managers: cgroupfs systemd
only_for coracle "of the guest fails there"
start box 'exec sleep 1000' '.linux.resources.cpu = {shares: 100, idle: 1}'
is "cpu.idle of the bundle" "$(limit box cpu.idle)" 1
runtime update --cpu-idle 0 gt-box
is "cpu.idle, switched off" "$(limit box cpu.idle)" 0
matches "the warning" "$(runtime update --cpu-share 200 --cpu-idle 1 gt-box 2>&1)" "*unable to apply both*"
is "cpu.idle, with shares" "$(limit box cpu.idle)" 1
[ "$MANAGER" = cgroupfs ] || {
    runtime update --cpu-share 200 gt-box
    is "cpu.idle, which shares end" "$(limit box cpu.idle)" 0
}
matches "the warning" "$(runtime update --resources - gt-box 2>&1 <<<'{"unified": {"cpu.idle": "1", "cpu.weight": "8"}}')" \
    "*unable to apply both*"
is "cpu.idle from unified" "$(limit box cpu.idle)" 1
[ "$MANAGER" = cgroupfs ] || {
    runtime update --resources - gt-box <<<'{"unified": {"cpu.weight": "8"}}'
    is "cpu.idle, which a weight ends" "$(limit box cpu.idle)" 0
    is "cpu.weight" "$(limit box cpu.weight)" 8
}

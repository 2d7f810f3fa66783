# They are one file, and under systemd a quota for each second: a reload must not change it.
# managers: cgroupfs systemd
only_for coracle "tells systemd a quota of the usual period"
start box 'exec sleep 1000' '.linux.resources.cpu = {quota: 50000, period: 200000}'
settled() { # WHAT CPU.MAX QUOTA-OF-THE-UNIT
    is "cpu.max after $1" "$(limit box cpu.max)" "$2"
    [ "$MANAGER" = systemd ] || return 0
    is "CPUQuotaPerSecUSec after $1" "$(systemctl show gt-box.scope -p CPUQuotaPerSecUSec --value)" "$3"
    unit_anew gt-box.scope
    is "cpu.max after $1 and a reload" "$(limit box cpu.max)" "$2"
}
runtime update --cpu-quota 20000 gt-box
settled "a quota" "20000 200000" 100ms
runtime update --cpu-period 100000 gt-box
settled "a period" "20000 100000" 200ms
runtime update --cpu-quota -1 gt-box
settled "no quota" "max 100000" infinity

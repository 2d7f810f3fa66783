# A path that another container has, with whoever makes the cgroups; and one that somebody froze.
# managers: cgroupfs systemd
start box 'exec sleep 1000'
bundle other 'exec sleep 1001' ".linux.cgroupsPath = \"$(cgroups_path box)\""
if launch other; then fail "two containers have one cgroup"; fi
matches "the error" "$(cat "$WORK/other.out")" "*container's cgroup is not empty: 1 process*"

mkdir "$(cgroup cold)"
at_exit "rmdir $(cgroup cold)"
echo 1 >"$(cgroup cold)/cgroup.freeze"
bundle cold 'exec sleep 1002'
if launch cold; then fail "a container runs in a frozen cgroup"; fi
matches "the error" "$(cat "$WORK/cold.out")" "*container's cgroup unexpectedly frozen*"

# Two containers of an ordinary user that share namespaces and a volume; a network by
# slirp4netns and one by pasta; a process over its memory limit.
# managers: user
# seconds: 1800
manage=(as-user podman --runtime "$RUNTIME" --cgroup-manager systemd --log-level error)
at_exit '"${manage[@]}" pod rm --all --force --time 0 >/dev/null 2>&1; "${manage[@]}" rm --all --force --time 0 >/dev/null 2>&1
    "${manage[@]}" volume rm --all --force >/dev/null 2>&1'
"${manage[@]}" volume create data >/dev/null
"${manage[@]}" pod create --name pair --network none --share net,ipc,uts,pid >/dev/null
"${manage[@]}" run --detach --pod pair --name server --volume data:/data localhost/busybox \
    sh -c 'echo "from the volume" >/data/file; ip link set lo up; exec httpd -f -p 127.0.0.1:8080 -h /data' >/dev/null
ask='until wget -q -O - http://127.0.0.1:8080/file; do sleep 0.2; done; cat /data/file; touch /data/mine 2>/dev/null || echo "read-only"'
is "what the second container gets" "$("${manage[@]}" run --rm --pod pair --volume data:/data:ro localhost/busybox sh -c "$ask" 2>/dev/null)" \
    "from the volume
from the volume
read-only"
"${manage[@]}" pod pause pair >/dev/null
is "status" "$("${manage[@]}" inspect --format '{{.State.Status}}' server)" paused
"${manage[@]}" pod unpause pair >/dev/null
"${manage[@]}" pod rm --force --time 0 pair >/dev/null

for network in slirp4netns pasta; do
    is "an address by $network" "$("${manage[@]}" run --rm --network $network localhost/busybox \
        sh -c 'ip -4 addr show scope global | grep -c inet' 2>"$WORK/$network.err" || cat "$WORK/$network.err")" 1
done

status=0
"${manage[@]}" run --name hungry --network none --memory 32m --memory-swap 32m localhost/busybox \
    dd if=/dev/zero of=/dev/null bs=100M count=1 >/dev/null 2>&1 || status=$?
is "exit status of a process over its limit" "$status" 137
"${manage[@]}" rm hungry >/dev/null

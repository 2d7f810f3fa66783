# managers: cgroupfs systemd
bundle box 'exec sleep 1000' '.linux.resources.unified = {"memory.nonsense": "1"}'
refused box "*memory.nonsense*"

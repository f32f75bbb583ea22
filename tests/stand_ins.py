"""Programs that stand in for those of other machines."""


def put_nvidia_smi(folder, *cards, driver="580.65.06", broken=False):
    """Writes an nvidia-smi that finds cards, each (name, compute capability, free GiB of 80).

    A broken one prints what the real one prints without its driver.
    """
    lines = []
    for name, capability, free in cards:
        lines.append(f"{name}, {driver}, 81920, {int(free * 1024)}, {capability}")
    text = "\n".join(lines)
    if broken:
        text = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {9 if broken else 0}\n")
    program.chmod(0o755)
    return folder

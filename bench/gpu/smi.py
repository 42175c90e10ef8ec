"""What nvidia-smi says."""

from __future__ import annotations

import subprocess

DRIVER = "driver_version,vbios_version,power.limit,pci.bus_id"
CLOCKS = "clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.draw,temperature.gpu"


def ask(fields: str) -> dict[str, str]:
    """The first GPU's values, without units (MHz, W, degrees Celsius); empty where nvidia-smi does not answer."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(fields.split(","), (part.strip() for part in done.stdout.split(",")), strict=False))

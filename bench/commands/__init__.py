"""The commands, one module each: reads the options, measures, and hands the figures on."""

from .compare import compare
from .counts import counts
from .decode import decode
from .image import image
from .kernels import kernels
from .peers import peers
from .plan import plan
from .report import report
from .roofline import roofline
from .scaling import scaling
from .startup import startup
from .sweep import sweep

__all__ = [
    "compare",
    "counts",
    "decode",
    "image",
    "kernels",
    "peers",
    "plan",
    "report",
    "roofline",
    "scaling",
    "startup",
    "sweep",
]

"""The oracle: NextStep-1 in plain torch, stage by stage, to be read and to be compared against.

Nothing here is fast on purpose. Every formula is written as docs/model.md states it, every intermediate can be
looked at, and float64 gives the numbers that faster code is held to.
"""

from .backbone import Sequences, apply_rope, attention, block, lm_logits, mlp, rms_norm, rope_tables, run_backbone
from .engine import ReferenceEngine
from .fm_head import modulations, sinusoid, time_embedding, velocity
from .solver import combine_guidance, integrate, normalize_token, scheduled_guidance, time_grid
from .weights import expected_shapes, load_weights

__all__ = [
    "ReferenceEngine",
    "Sequences",
    "apply_rope",
    "attention",
    "block",
    "combine_guidance",
    "expected_shapes",
    "integrate",
    "lm_logits",
    "load_weights",
    "mlp",
    "modulations",
    "normalize_token",
    "rms_norm",
    "rope_tables",
    "run_backbone",
    "scheduled_guidance",
    "sinusoid",
    "time_embedding",
    "time_grid",
    "velocity",
]

"""How much of an objective's loss each token counts: one file per rule, each a pure function of its own sequence."""

from opd.objectives.weights.cap import Cap
from opd.objectives.weights.position import Position, position_weights
from opd.objectives.weights.share import Share, share_weights

__all__ = ["Cap", "Position", "Share", "position_weights", "share_weights"]

"""What to learn from a scored token: one file per objective, pure tensor functions beside it."""

from opd.objectives.policy_gradient import policy_gradient_loss
from opd.objectives.reverse_kl import ReverseKL, reverse_kl_advantages

__all__ = ["ReverseKL", "policy_gradient_loss", "reverse_kl_advantages"]

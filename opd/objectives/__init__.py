"""What to learn from a scored token: one file per objective, pure tensor functions beside it."""

from opd.objectives.gkd import GKD, generalized_jsd
from opd.objectives.gold import align_spans, uld
from opd.objectives.minillm import minillm_advantages
from opd.objectives.policy_gradient import policy_gradient_loss
from opd.objectives.reverse_kl import ReverseKL, reverse_kl_advantages
from opd.objectives.top_k import top_k_student, top_k_teacher

__all__ = [
    "GKD",
    "ReverseKL",
    "align_spans",
    "generalized_jsd",
    "minillm_advantages",
    "policy_gradient_loss",
    "reverse_kl_advantages",
    "top_k_student",
    "top_k_teacher",
    "uld",
]

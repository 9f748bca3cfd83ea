"""What to learn from a scored token: one file per objective, pure tensor functions beside it."""

from opd.objectives.constant import Constant
from opd.objectives.entropy_kept import EntropyKept
from opd.objectives.estimators import k1, k2, k3
from opd.objectives.gkd import GKD, generalized_jsd
from opd.objectives.gold import Gold, align_spans, uld
from opd.objectives.grpo import GRPO, group_advantages
from opd.objectives.hold import Hold
from opd.objectives.minillm import MiniLLM, minillm_advantages
from opd.objectives.policy_gradient import policy_gradient_loss
from opd.objectives.reverse_kl import ReverseKL, reverse_kl_advantages
from opd.objectives.sft import SFT
from opd.objectives.shuffled import Shuffled
from opd.objectives.top_k import TopK, top_k_student, top_k_teacher
from opd.objectives.unsure import Unsure
from opd.objectives.weighted import Term, Weighted
from opd.objectives.weights import Cap, Position, Share, position_weights, share_weights

__all__ = [
    "GKD",
    "GRPO",
    "SFT",
    "Cap",
    "Constant",
    "EntropyKept",
    "Gold",
    "Hold",
    "MiniLLM",
    "Position",
    "ReverseKL",
    "Share",
    "Shuffled",
    "Term",
    "TopK",
    "Unsure",
    "Weighted",
    "align_spans",
    "generalized_jsd",
    "group_advantages",
    "k1",
    "k2",
    "k3",
    "minillm_advantages",
    "policy_gradient_loss",
    "position_weights",
    "reverse_kl_advantages",
    "share_weights",
    "top_k_student",
    "top_k_teacher",
    "uld",
]

"""Attention: regression of softmax weights on given matrices, and attention-indexed models."""

from .amp import AttentionInstance, amp, sample
from .fitting import AttentionFit, closed_form, fit
from .indexed import (
    HardmaxChannel,
    LinearTokenChannel,
    NoisySoftmaxChannel,
    SoftmaxChannel,
    TokenChannel,
    cross_attention,
    hardmax_attention,
    linear_attention,
    quadratic_network,
    self_attention,
    softmax_attention,
)
from .regression import AttentionRegression, kronecker_operator, softmax_regression
from .stability import (
    DataShift,
    LabelShift,
    LipschitzConstants,
    icl_data_shift,
    icl_label_shift,
    lipschitz_constants,
    paper_lipschitz_constants,
)

__all__ = [
    "AttentionFit",
    "AttentionInstance",
    "AttentionRegression",
    "DataShift",
    "HardmaxChannel",
    "LabelShift",
    "LinearTokenChannel",
    "LipschitzConstants",
    "NoisySoftmaxChannel",
    "SoftmaxChannel",
    "TokenChannel",
    "amp",
    "closed_form",
    "cross_attention",
    "fit",
    "hardmax_attention",
    "icl_data_shift",
    "icl_label_shift",
    "kronecker_operator",
    "linear_attention",
    "lipschitz_constants",
    "paper_lipschitz_constants",
    "quadratic_network",
    "sample",
    "self_attention",
    "softmax_attention",
    "softmax_regression",
]

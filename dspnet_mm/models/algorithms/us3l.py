# Copyright (c) The dspnet_mm authors. All rights reserved.
from mmselfsup.registry import MODELS

from .dspnet import DSPNet


@MODELS.register_module()
class US3L(DSPNet):
    """US3L: smaller sub-networks are distilled from the average alone.

    Implementation of `Three Guidelines You Should Know for Universally
    Slimmable Self-Supervised Learning <https://arxiv.org/abs/2303.06870>`_.
    Its parts are settings of DSPNet, which ``configs/us3l`` puts together, so
    that each can be had and left out singly; what is exported says which of
    the two methods it is of.

    Args:
        *args: See :class:`DSPNet`.
        **kwargs: See :class:`DSPNet`.
    """
    method = 'us3l'

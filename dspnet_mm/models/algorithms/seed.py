# Copyright (c) The dspnet_mm authors. All rights reserved.
from typing import Dict, List, Tuple

import torch
from mmengine.optim import OptimWrapper
from mmselfsup.models.algorithms.base import BaseModel
from mmselfsup.registry import MODELS
from torch import nn

from dspnet_mm.checkpoint import load_checkpoint, load_every_tensor
from .base import SupernetAlgorithm, Views, refuse_target_options

_PARTS = ('backbone', 'neck')


@MODELS.register_module()
class SEED(SupernetAlgorithm):
    """Distillation from a frozen teacher, which was pre-trained alone.

    SEED (arXiv 2101.04731), with both views of an image where it takes one.
    With :class:`FixedSampler`, one sub-network is the student: the way of
    getting small networks that DSPNet is compared with.

    Args:
        *args: See :class:`SupernetAlgorithm`. The head is
            :class:`SEEDHead`.
        teacher (dict): The teacher: ``backbone`` and ``neck``, configs of
            plain networks, and ``checkpoint``, that of a training which has
            them, e.g. by MMSelfSup's BYOL.
        **kwargs: See :class:`SupernetAlgorithm`.

    Raises:
        InputError: If an option of a target network is given: the teacher
            does not move.
    """
    method = 'seed'
    num_views = None

    def __init__(self, *args, teacher: dict, **kwargs) -> None:
        refuse_target_options('SEED', kwargs)
        super().__init__(*args, base_momentum=1., **kwargs)
        parts = [MODELS.build(teacher[name]) for name in _PARTS]
        self.target_net = nn.Sequential(*parts).requires_grad_(False)
        self._teacher_checkpoint = teacher['checkpoint']
        self.train(self.training)

    def init_weights(self) -> None:
        """Initialise the student, and load the teacher.

        A checkpoint of the training itself holds both.

        Raises:
            InputError: If the teacher's checkpoint has not its weights.
        """
        BaseModel.init_weights(self)
        path = self._teacher_checkpoint
        state = load_checkpoint(path)['state_dict']
        for name, part in zip(_PARTS, self.target_net):
            own = {
                key[len(name) + 1:]: tensor
                for key, tensor in state.items() if key.startswith(f'{name}.')
            }
            load_every_tensor(part, own,
                              f"{path} does not hold the teacher's {name}",
                              'Give the checkpoint of its training')

    def train(self, mode: bool = True) -> 'SEED':
        """The teacher evaluates, also while the student trains."""
        super().train(mode)
        self.target_net.eval()
        return self

    def subnet_loss(
            self, views: Views,
            targets: List[torch.Tensor]) -> Tuple[torch.Tensor, torch.Tensor]:
        """The active sub-network's loss, over both views.

        Args:
            views (list[Tensor]): The views, each of shape (N, C, H, W).
            targets (list[Tensor]): The teacher's projections of the same
                views, each of shape (N, D).

        Returns:
            tuple[Tensor, Tensor]: The loss, a scalar, and the projections of
            the first view, of shape (N, D).
        """
        self._targets = targets
        projections = [self.neck(self.backbone(view))[0] for view in views]
        losses = map(self.head, projections, targets)
        return sum(losses) / len(views), projections[0]

    def train_step(self, data: dict,
                   optim_wrapper: OptimWrapper) -> Dict[str, torch.Tensor]:
        """See :meth:`SupernetAlgorithm.train_step`."""
        losses = super().train_step(data, optim_wrapper)
        for target in self._targets:
            self.head.queue.enqueue(target)
        return losses

    def update_target(self) -> None:
        """The teacher stays as it is."""

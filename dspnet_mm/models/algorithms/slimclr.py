# Copyright (c) The dspnet_mm authors. All rights reserved.
from abc import abstractmethod
from typing import Dict, List, Tuple

import torch
from mmengine.dist import get_rank, is_distributed
from mmengine.optim import OptimWrapper
from mmselfsup.registry import MODELS
from mmselfsup.utils import concat_all_gather
from torch.distributed.nn.functional import all_gather
from torch.nn import functional as F

from dspnet_mm.errors import InputError
from dspnet_mm.models.feature_queue import FeatureQueue
from .base import SupernetAlgorithm, Views, refuse_target_options


class SlimCLR(SupernetAlgorithm):
    """Contrastive learning of all sub-networks of a supernet at once.

    From `SlimCLR <https://arxiv.org/abs/2209.15525>`_. The smaller
    sub-networks learn half from the contrastive loss, and half from how alike
    the online supernet finds the same images. Its slow start is
    :class:`PhasedSampler`'s, its weights of the losses are
    ``loss_weights='largest_outweighs'``.

    A subclass for each way of contrasting says what is compared with what, by
    :meth:`similarities`; the loss and its temperature are those of MMSelfSup's
    head.

    Args:
        *args: See :class:`SupernetAlgorithm`.
        distillation (bool): Whether half of a smaller sub-network's loss is
            to find images as alike as the online supernet does. Defaults to
            True.
        distillation_temperature (float): By which similarities, in [-1, 1],
            are divided for that, above 0. Defaults to 5; with MoCo v3, to 1.
        **kwargs: See :class:`SupernetAlgorithm`.

    Raises:
        InputError: If the temperature is not above 0, or distillation is
            neither True nor False.
    """

    def __init__(self,
                 *args,
                 distillation: bool = True,
                 distillation_temperature: float = 5.,
                 **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(distillation, bool):
            raise InputError(f'distillation={distillation!r} is not allowed: '
                             'give True or False')
        if distillation_temperature <= 0:
            raise InputError(
                f'distillation_temperature={distillation_temperature} is not '
                'allowed: give a value above 0')
        self.distillation = distillation
        self.distillation_temperature = distillation_temperature

    @abstractmethod
    def similarities(
        self, views: Views, targets: List[torch.Tensor]
    ) -> Tuple[List[torch.Tensor], torch.Tensor, torch.Tensor]:
        """Compare what the active sub-network sees with what it may be.

        Args:
            views (list[Tensor]): Two views, each of shape (N, C, H, W).
            targets (list[Tensor]): From :meth:`compute_targets`.

        Returns:
            tuple[list[Tensor], Tensor, Tensor]: Similarities, in [-1, 1], each
            of shape (M, K); which of the K is right, of shape (M, ), for all
            of them; and projections of shape (N, D) whose spread is logged.
        """

    def subnet_loss(
            self, views: Views,
            targets: List[torch.Tensor]) -> Tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`SupernetAlgorithm.subnet_loss`."""
        similarities, right, projections = self.similarities(views, targets)
        # The head's cross-entropy, weight included.
        loss = sum(
            self.head.loss(each / self.head.temperature, right)
            for each in similarities)
        if self.distillation:
            supernets = self.supernet_outputs(similarities)
            if supernets is not None:
                distilled = sum(
                    distillation_loss(mine, whole,
                                      self.distillation_temperature)
                    for mine, whole in zip(similarities, supernets))
                loss = (loss + distilled) / 2
        return loss, projections


@MODELS.register_module()
class SlimCLRMoCoV2(SlimCLR):
    """SlimCLR with MoCo v2 (arXiv 2003.04297): one view against a queue.

    With the supernet alone sampled, it is MMSelfSup's MoCo, but that batch
    norm takes its statistics over all processes instead of the keys being
    shuffled among them (``sync_bn``).

    Args:
        *args: See :class:`SlimCLR`. The head is MMSelfSup's ContrastiveHead.
        queue_size (int): How many keys of earlier images are contrasted
            with. Defaults to 65536.
        **kwargs: See :class:`SlimCLR`.
    """
    method = 'slimclr-mocov2'

    def __init__(self, *args, queue_size: int = 65536, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        channels = kwargs['neck']['out_channels']
        self.queue = FeatureQueue(channels, queue_size)

    def compute_targets(self, views: Views) -> List[torch.Tensor]:
        """The target network's projection of the second view: the key."""
        self._keys, = super().compute_targets(views[1:])
        return [self._keys]

    def similarities(
        self, views: Views, targets: List[torch.Tensor]
    ) -> Tuple[List[torch.Tensor], torch.Tensor, torch.Tensor]:
        """See :meth:`SlimCLR.similarities`: the key comes first."""
        projections = self.neck(self.backbone(views[0]))[0]
        queries = F.normalize(projections, dim=1)
        keys = F.normalize(targets[0], dim=1)
        own = (queries * keys).sum(1, keepdim=True)
        others = queries @ self.queue.features.t()
        return ([torch.cat([own, others], dim=1)],
                torch.zeros(
                    len(queries), dtype=torch.long,
                    device=queries.device), projections)

    def train_step(self, data: dict,
                   optim_wrapper: OptimWrapper) -> Dict[str, torch.Tensor]:
        """See :meth:`SupernetAlgorithm.train_step`."""
        losses = super().train_step(data, optim_wrapper)
        self.queue.enqueue(self._keys)
        return losses


@MODELS.register_module()
class SlimCLRMoCoV3(SlimCLR):
    """SlimCLR with MoCo v3 (arXiv 2104.02057): both ways round, in a batch.

    With the supernet alone sampled, it is MMSelfSup's MoCoV3.

    Args:
        *args: See :class:`SlimCLR`. The head is MMSelfSup's MoCoV3Head.
        distillation_temperature (float): See :class:`SlimCLR`. Defaults to 1.
        **kwargs: See :class:`SlimCLR`.
    """
    method = 'slimclr-mocov3'

    def __init__(self,
                 *args,
                 distillation_temperature: float = 1.,
                 **kwargs) -> None:
        super().__init__(
            *args, distillation_temperature=distillation_temperature, **kwargs)

    def compute_targets(self, views: Views) -> List[torch.Tensor]:
        """The keys: directions of the target's projections, of all processes.

        For each view, of shape (N times processes, D).
        """
        return [
            concat_all_gather(F.normalize(target, dim=1))
            for target in super().compute_targets(views)
        ]

    def similarities(
        self, views: Views, targets: List[torch.Tensor]
    ) -> Tuple[List[torch.Tensor], torch.Tensor, torch.Tensor]:
        """See :meth:`SlimCLR.similarities`: a view's keys are the other's."""
        projections = [self.neck(self.backbone(view))[0] for view in views]
        similarities = []
        for projection, keys in zip(projections, targets[::-1]):
            queries = F.normalize(self.head.predictor([projection])[0], dim=1)
            similarities.append(queries @ keys.t())
        size = len(views[0])
        right = torch.arange(size, device=queries.device) + get_rank() * size
        return similarities, right, projections[0]


@MODELS.register_module()
class SlimCLRSimCLR(SlimCLR):
    """SlimCLR with SimCLR (arXiv 2002.05709): views against each other.

    There is no target network, nor any option of one. With the supernet alone
    sampled, it is MMSelfSup's SimCLR; but several processes take the gradient
    of all losses, as one process with their images would.

    Args:
        *args: See :class:`SlimCLR`. The head is MMSelfSup's ContrastiveHead.
        **kwargs: See :class:`SlimCLR`.

    Raises:
        InputError: If an option of the target network is given.
    """
    method = 'slimclr-simclr'

    def __init__(self, *args, **kwargs) -> None:
        refuse_target_options('SimCLR', kwargs)
        super().__init__(*args, **kwargs)
        del self.target_net

    def init_weights(self) -> None:
        """Initialise."""
        super(SupernetAlgorithm, self).init_weights()

    def compute_targets(self, views: Views) -> List[torch.Tensor]:
        """None."""
        return []

    def update_target(self) -> None:
        """There is none."""

    def similarities(
        self, views: Views, targets: List[torch.Tensor]
    ) -> Tuple[List[torch.Tensor], torch.Tensor, torch.Tensor]:
        """See :meth:`SlimCLR.similarities`: of each view of all processes."""
        projections = self.neck(self.backbone(torch.cat(views)))[0]
        directions = F.normalize(projections, dim=1)
        # By process, view and image. MMSelfSup's GatherLayer leaves out what
        # the other processes' losses say of this one's images.
        if is_distributed():
            directions = torch.cat(all_gather(directions))
        total, size = len(directions), len(views[0])
        places = torch.arange(total, device=directions.device)
        # The other view of the same image is half a process's rows away.
        other = places + torch.where(places % (2 * size) < size, size, -size)
        similarities = directions @ directions.t()
        # Each with all but itself; what comes after moves up.
        itself = torch.eye(total, dtype=torch.bool, device=directions.device)
        similarities = similarities[~itself].view(total, total - 1)
        right = other - (other > places).long()
        return [similarities], right, projections[:size]


def distillation_loss(similarities: torch.Tensor, supernets: torch.Tensor,
                      temperature: float) -> torch.Tensor:
    """SlimCLR's distillation from the online supernet (arXiv 2209.15525).

    Args:
        similarities (Tensor): A smaller sub-network's, of shape (M, K).
        supernets (Tensor): The supernet's of the same, without gradient.
        temperature (float): T, by which both are divided.

    Returns:
        Tensor: The cross-entropy of both softmaxes, the mean over M, times T
        squared, so that gradients do not depend on T in their size.
    """
    expected = F.softmax(supernets / temperature, dim=1)
    found = F.log_softmax(similarities / temperature, dim=1)
    return -(expected * found).sum(1).mean() * temperature**2

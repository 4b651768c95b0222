# Copyright (c) The dspnet_mm authors. All rights reserved.
import copy
from typing import Dict, List

import torch
from mmengine.optim import OptimWrapper
from mmselfsup.registry import MODELS
from torch import nn
from torch.nn import functional as F

from dspnet_mm.datasets import Part
from dspnet_mm.errors import InputError
from dspnet_mm.grouped_family import UNIFIED
from dspnet_mm.models.samplers import ClusterSampler
from dspnet_mm.models.slimmable_network import SlimmableNetwork, activate
from dspnet_mm.subnet import Subnet
from .base import Views
from .dspnet import DSPNet

_GROUPING = ('shared_channels', 'num_groups', 'levels')


@MODELS.register_module()
class SDR(DSPNet):
    """SDR: sub-networks that each learn from one cluster of the images.

    After `Task-Customized Self-Supervised Pre-training with Scalable Dynamic
    Routing <https://arxiv.org/abs/2205.13267>`_: all sub-networks share some
    channels, and each has others of its own. Its text leaves much open; these
    are our choices:

    - A batch is of one cluster and trains its sub-network by BYOL (arXiv
      2006.07733) against the same sub-network of the target network. The
      alternative, one target for all, would hold each to what others see.
      The target network follows in what the batch trained alone: else a
      group that is seldom trained would catch up in between, and its target
      be no average of anything.
      The optimizer, however, sees whole layers: its momentum and weight
      decay act on groups that a batch did not train as well.
    - The sub-networks begin as one. While clusters make no difference, all
      images train the first sub-network, the unified network. As soon as the
      tree of clusters divides on a further level
      (:class:`ClusterBatchSampler`), one more stage's groups begin as copies
      of the first group: no sub-network ever starts at random. The
      alternative, training all groups at once and from the start, gives each
      a fraction of the steps.
    - The unified network goes on as an average: with each step it follows
      the sub-network that was trained, as a target network does. It is what
      the paper's SiamKD distills from, so that what is learned from few
      images keeps to what all have taught: a sub-network's target is the mean
      of its own target's direction and the unified network's. The
      alternative, a network frozen where sub-networks part, learns no more.

    Args:
        *args: See :class:`SupernetAlgorithm`. The family is a
            :class:`GroupedResNetFamily`, the sampler a
            :class:`ClusterSampler`.
        distillation_weight (float): Weight of the unified network's direction
            in that mean, in [0, 1]; 0 is without. Defaults to 0.5.
        **kwargs: See :class:`DSPNet`, except for ``target`` and
            ``distillation``.

    Raises:
        InputError: If there is another sampler, or the weight is out of its
            range.
    """
    method = 'sdr'

    def __init__(self,
                 *args,
                 distillation_weight: float = 0.5,
                 **kwargs) -> None:
        for name in ('target', 'distillation'):
            if name in kwargs:
                raise InputError(f'SDR takes no {name}: a sub-network learns '
                                 'from its own target and the unified network')
        if not 0 <= distillation_weight <= 1:
            raise InputError(f'distillation_weight={distillation_weight} is '
                             'not allowed: give a value in [0, 1]')
        super().__init__(*args, **kwargs)
        if not isinstance(self.sampler, ClusterSampler):
            raise InputError(
                f'{type(self.sampler).__name__} does not go by clusters: set '
                'model.sampler.type=ClusterSampler')
        self.distillation_weight = distillation_weight
        self.unified = self.family[UNIFIED]
        self.unified_net: nn.Sequential = copy.deepcopy(self.target_net)
        for network in self.unified_net:
            network.set_active_subnet(self.unified)
        # In how many levels sub-networks differ, which resuming has to know.
        self.register_buffer('levels', torch.zeros((), dtype=torch.long))
        # Weights that are divided otherwise may be of the same shapes.
        self.register_buffer(
            'grouping',
            torch.tensor([getattr(self.family, name) for name in _GROUPING]))

    def init_weights(self) -> None:
        """Initialise all networks alike."""
        super().init_weights()
        self.unified_net.load_state_dict(self.target_net.state_dict())

    def _load_from_state_dict(self, state_dict: Dict[str, torch.Tensor],
                              prefix: str, *args) -> None:
        saved = state_dict.get(f'{prefix}grouping')
        if saved is not None and not torch.equal(saved.cpu(),
                                                 self.grouping.cpu()):
            found, allowed = (', '.join(
                f'{name}={value}'
                for name, value in zip(_GROUPING, grouping.tolist()))
                              for grouping in (saved, self.grouping))
            raise InputError(
                f'the checkpoint is of a family with {found}, the '
                f'config has {allowed}: give the config it was '
                'trained with; the work directory holds a copy')
        super()._load_from_state_dict(state_dict, prefix, *args)

    def train_step(self, data: dict,
                   optim_wrapper: OptimWrapper) -> Dict[str, torch.Tensor]:
        """Train the sub-network of a batch's cluster.

        Args:
            data (dict): A batch of :class:`ClusterBatchSampler`.
            optim_wrapper (OptimWrapper): What holds the optimizer.

        Returns:
            dict[str, Tensor]: See :meth:`SupernetAlgorithm.train_step`.

        Raises:
            InputError: If the batch is not of one cluster, or of a phase that
                is over.
        """
        parts = {(sample.get('cluster'), sample.get('levels'))
                 for sample in data['data_samples']}
        if len(parts) > 1 or (None, None) in parts:
            raise InputError(
                'SDR learns from batches of one cluster: set train_dataloader.'
                'batch_sampler.type=ClusterBatchSampler')
        part = Part(*parts.pop())
        if part.levels < self.levels:
            raise InputError(
                f'sub-networks differ in {int(self.levels)} levels already, '
                f'and clusters in {part.levels}: resume with the phases and '
                'the train_cfg.max_epochs that the training had; a new run '
                'takes weights (load_from without resume) of a checkpoint '
                'from before they parted')
        if part.levels > self.levels:
            self._divide(part.levels)
        self.sampler.part = part
        trained, = self.sample_subnets()
        # The whole step is its own.
        with activate(trained, *self.slimmable_networks, *self.target_net):
            return super().train_step(data, optim_wrapper)

    def _divide(self, levels: int) -> None:
        """Let sub-networks differ in more levels, from now on."""
        before = int(self.levels)
        if not before:
            self.unified_net.load_state_dict(self.target_net.state_dict())
        copied = set()
        for cluster in range(self.family.num_clusters):
            source = self.family.subnet_of(cluster, before)
            divided = self.family.subnet_of(cluster, levels)
            if divided not in copied:
                copied.add(divided)
                for network in (self.backbone, self.neck, *self.target_net):
                    network.copy_subnet(source, divided)
        self.levels.fill_(levels)

    def compute_targets(self, views: Views) -> List[torch.Tensor]:
        """See :meth:`SupernetAlgorithm.compute_targets`."""
        trained, = self.sample_subnets()
        with activate(trained, *self.target_net):
            if not self.levels or not self.distillation_weight:
                return super().compute_targets(views)
            return self._mean_targets(views)

    @property
    def _common_stages(self) -> int:
        """In how many stages sub-networks do not differ yet."""
        return self.family.num_stages - int(self.levels)

    def _mean_targets(self, views: Views) -> List[torch.Tensor]:
        """The mean of both targets' directions, for each view."""
        # Where sub-networks do not differ, neither do these two, which follow
        # the same: that is computed once. The stem goes by the channels of
        # the first stage.
        common = self._common_stages
        if common:
            common += 1
        shared = nn.Sequential(*self.target_net[0].stages[:common])
        parted = [(nn.Sequential(*backbone.stages[common:]), neck)
                  for backbone, neck in (self.target_net, self.unified_net)]
        targets = []
        for view in views:
            features = shared(view)
            own, other = (neck((stages(features), ))[0]
                          for stages, neck in parted)
            targets.append(
                torch.lerp(
                    F.normalize(own, dim=1), F.normalize(other, dim=1),
                    self.distillation_weight))
        return targets

    def as_trained(self, subnet: Subnet) -> Subnet:
        """See :meth:`SupernetAlgorithm.as_trained`.

        Before sub-networks differ in a stage, they all have its first group
        there.
        """
        if not subnet.groups:
            return subnet
        common = self._common_stages
        return self.family.subnet(
            groups=(0, ) * common + subnet.groups[common:])

    def exported_backbone(self, name: str) -> SlimmableNetwork:
        """See :meth:`SupernetAlgorithm.exported_backbone`.

        The unified network is averaged, as a target network is.
        """
        if name != UNIFIED:
            return super().exported_backbone(name)
        return (self.unified_net if self.levels else self.target_net)[0]

    @torch.no_grad()
    def update_target(self) -> None:
        """Move the target's sub-network that was trained, and the unified."""
        # All of them are activated by :meth:`train_step`.
        online = (self.backbone, self.neck)
        torch._foreach_lerp_(
            *([
                view for network in networks
                for view in network.active_views()
            ] for networks in (self.target_net, online)), 1 - self.momentum)
        if self.levels:
            # They are of one size, and perhaps of different channels.
            torch._foreach_lerp_(
                *([
                    tensor for network in networks
                    for tensor in network.active_weights()
                ] for networks in (self.unified_net, online)),
                1 - self.momentum)

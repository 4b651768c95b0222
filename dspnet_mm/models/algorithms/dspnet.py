# Copyright (c) The dspnet_mm authors. All rights reserved.
import copy
import logging
from contextlib import contextmanager, nullcontext
from typing import Dict, Iterator, List, Optional, Sequence, Tuple, Union

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmselfsup.registry import MODELS
from torch import nn

from dspnet_mm.errors import InputError
from dspnet_mm.models.samplers import FixedSampler
from dspnet_mm.models.slimmable_network import SlimmableNetwork, activate
from dspnet_mm.phases import Phases
from dspnet_mm.subnet import ALIASES
from .base import SupernetAlgorithm, Views


@MODELS.register_module()
class DSPNet(SupernetAlgorithm):
    """DSPNet: BYOL for all sub-networks of a supernet at once.

    Implementation of `DSPNet: Towards Slimmable Pretrained Networks based on
    Self-supervised Learning <https://arxiv.org/abs/2207.06075>`_. Each sampled
    sub-network predicts, from its projection of one view, the full target
    network's projection of the other view, both ways round (BYOL, arXiv
    2006.07733, equation 2). That small sub-networks predict a large network's
    projections is the knowledge distillation in it.

    With the supernet alone sampled, it is MMSelfSup's BYOL.

    Args:
        *args: See :class:`SupernetAlgorithm`.
        target (str | Sequence[dict]): Whose projections a sub-network
            predicts: those of the 'largest' target network, of another
            sub-network of it, by a name that the family knows (see
            :meth:`ResNetFamily.__getitem__`), or of its own 'twin' in it,
            a switch of GAIA's; or phases of the training, each a dict
            of one of these as ``subnet`` and of ``until``, as
            :class:`PhasedSampler` has it. That the target grows with the
            supernet is our choice. Defaults to 'largest'.
        distillation (str): What smaller sub-networks learn besides:

            - 'none': nothing else.
            - 'online': half of their loss is to predict what the online
              supernet predicts for the same view, after SlimCLR (arXiv
              2209.15525), in iterations that draw it.
            - 'second_predictor': nothing else, but by a predictor of their
              own, so that the supernet's is its own as well, after US3L
              (arXiv 2303.06870).

            The view and the halves of 'online' are our choice, as the paper
            speaks of another loss. Defaults to 'none'.
        predictor_warmup (float): In which part of the training, at its
            start, only the predictor learns, in [0, 1); without a runner, in
            none. BYOL's features do not collapse where the predictor is
            nearly optimal (arXiv 2006.07733, section 3.2); that it begins so
            is our choice. Defaults to 0.
        grow_from (str, optional): The sub-network, by a name that the family
            knows, that larger ones begin as: until they train, each that
            holds it computes what it computes, so that a supernet grows
            without forgetting. After Net2Net (arXiv 1511.05641), where,
            unlike here, new channels begin as copies. Overwrites what
            ``init_cfg`` loads, too. Defaults to None: all begin at random.
        **kwargs: See :class:`SupernetAlgorithm`.

    Raises:
        InputError: If ``target``, ``distillation``, ``predictor_warmup`` or
            ``grow_from`` is not one of these, or a target has no batch norms
            of its own where these are switchable.
    """
    method = 'dspnet'

    def __init__(self,
                 *args,
                 target: Union[str, Sequence[dict]] = 'largest',
                 distillation: str = 'none',
                 predictor_warmup: float = 0.,
                 grow_from: Optional[str] = None,
                 **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(target, str):
            target = [dict(subnet=target, until=1)]
        if not all(isinstance(phase, dict) for phase in target):
            raise InputError(f'target={target} is not allowed: give a name, '
                             'or phases dict(subnet=..., until=...)')
        self.targets = Phases([(phase.get('subnet'), phase.get('until'))
                               for phase in target])
        targets = [*ALIASES, 'twin', *self.family.desired]
        distillations = ['none', 'online', 'second_predictor']
        for name, values, allowed in (('target', self.targets.values, targets),
                                      ('distillation', [distillation],
                                       distillations)):
            for value in values:
                if value not in allowed:
                    raise InputError(f'{name}={value!r} is not allowed: give '
                                     f'{", ".join(map(repr, allowed))}')
        if self.backbone.switchable_bn:
            desired = self.family.desired
            private = [
                name for name in targets
                if name == 'twin' or self.family[name] in desired.values()
            ]
            for value in self.targets.values:
                if value not in private:
                    raise InputError(
                        f'target={value!r} has no batch norms of its own, as '
                        'it is no desired network: with switchable_bn give '
                        f'{", ".join(map(repr, private))}')
        if not 0 <= predictor_warmup < 1:
            raise InputError(f'predictor_warmup={predictor_warmup} is not '
                             'allowed: give a part of the training, in [0, 1)')
        self.distillation = distillation
        self.predictor_warmup = predictor_warmup
        self.grow_from = None if grow_from is None else self.family[grow_from]
        if distillation == 'second_predictor':
            self.distiller = copy.deepcopy(self.head.predictor)

    def _warn_of_an_untrained_target(self) -> None:
        target = self.targets.values[-1]
        if target == 'twin' or not isinstance(self.sampler, FixedSampler):
            return
        drawn = self.sampler.subnet
        if not drawn.holds(self.family[target]):
            print_log(
                f'target={target!r} is larger than what is trained, '
                f'{self.family.label_of(drawn)!r} alone: unless weights are '
                "loaded, the rest of it stays random; model.target='twin' is "
                'as large',
                logger='current',
                level=logging.WARNING)

    def init_weights(self) -> None:
        """See :class:`SupernetAlgorithm`; with what is grown from."""
        super().init_weights()
        if self.grow_from is None:
            self._warn_of_an_untrained_target()
        else:
            for network in self.slimmable_networks:
                network.start_as(self.grow_from)
            self.start_target()

    @property
    def slimmable_networks(self) -> List[SlimmableNetwork]:
        """See :class:`SupernetAlgorithm`; with the second predictor."""
        networks = super().slimmable_networks
        if self.distillation == 'second_predictor':
            networks.append(self.distiller)
        return networks

    @property
    def active_networks(self) -> List[SlimmableNetwork]:
        """See :class:`SupernetAlgorithm`: one of the two predictors."""
        networks = super().active_networks
        if self.distillation != 'second_predictor':
            return networks
        largest = self.backbone.active_subnet == self.family.full
        idle = self.distiller if largest else self.head.predictor
        return [network for network in networks if network is not idle]

    def train_step(self, data: dict,
                   optim_wrapper: OptimWrapper) -> Dict[str, torch.Tensor]:
        """See :meth:`SupernetAlgorithm.train_step`."""
        warming_up = self._total_iterations and \
            self.progress < self.predictor_warmup
        with frozen(self.backbone, self.neck) if warming_up else nullcontext():
            return super().train_step(data, optim_wrapper)

    def compute_targets(self, views: Views) -> List[torch.Tensor]:
        """See :meth:`SupernetAlgorithm.compute_targets`."""
        target = self.targets.at(self.progress)
        if target == 'twin':
            # Each sub-network's are computed with its loss.
            return []
        if target == 'largest':
            return super().compute_targets(views)
        with activate(self.family[target], *self.target_net):
            return super().compute_targets(views)

    def subnet_loss(
            self, views: Views,
            targets: List[torch.Tensor]) -> Tuple[torch.Tensor, torch.Tensor]:
        """BYOL's symmetric loss of the active sub-network.

        Args:
            views (list[Tensor]): Two views, each of shape (N, C, H, W).
            targets (list[Tensor]): The target network's projections of the
                same views, each of shape (N, D); none where each sub-network
                has a twin.

        Returns:
            tuple[Tensor, Tensor]: The loss, a scalar in [-4, 4], scaled as
            MMSelfSup's BYOL does, and the projections of the first view, of
            shape (N, D).
        """
        subnet = self.backbone.active_subnet
        largest = subnet == self.family.full
        projections = [self.neck(self.backbone(view))[0] for view in views]
        if self.targets.at(self.progress) == 'twin':
            with torch.no_grad(), activate(subnet, *self.target_net):
                targets = super().compute_targets(views)
        distils = self.distillation == 'second_predictor' and not largest
        predictor = self.distiller if distils else self.head.predictor
        predictions = [predictor([z])[0] for z in projections]
        loss = self._loss(predictions, targets[::-1])
        if self.distillation == 'online':
            supernets = self.supernet_outputs(predictions)
            if supernets is not None:
                loss = (loss + self._loss(predictions, supernets)) / 2
        return loss, projections[0]

    def _loss(self, predictions: List[torch.Tensor],
              targets: List[torch.Tensor]) -> torch.Tensor:
        return 2 * sum(map(self.head.loss, predictions, targets))


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Keep parameters as they are, and take no gradients through them.

    Args:
        *modules (Module): Those that hold the parameters.
    """
    parameters = [
        parameter for module in modules for parameter in module.parameters()
        if parameter.requires_grad
    ]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)

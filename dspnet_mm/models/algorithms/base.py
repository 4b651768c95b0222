# Copyright (c) The dspnet_mm authors. All rights reserved.
import copy
import logging
import math
from contextlib import closing, nullcontext
from typing import Dict, Iterable, Iterator, List, Optional, Tuple, Union

import torch
from mmengine.dist import (all_reduce_params, broadcast_object_list, get_rank,
                           is_distributed)
from mmengine.logging import MessageHub, print_log
from mmengine.optim import OptimWrapper
from mmselfsup.models.algorithms.base import BaseModel
from mmselfsup.registry import TASK_UTILS
from mmselfsup.structures import SelfSupDataSample
from torch import nn
from torch.nn import functional as F

from dspnet_mm.errors import InputError
from dspnet_mm.models.backbones import build_family
from dspnet_mm.models.gradient_probe import GradientProbe
from dspnet_mm.models.loss_weights import Scheme, check_scheme, weights_of
from dspnet_mm.models.slimmable_network import SlimmableNetwork, activate
from dspnet_mm.randomness import seeded
from dspnet_mm.subnet import ResNetFamily, Subnet

Views = List[torch.Tensor]

_MAX_SKIPPED_IN_A_ROW = 20
_GRADIENT = 'The gradient is'
# US3L's groups of channels, and when their decay has parted.
_GROUPS = 8
_GROUPS_PARTED = 0.5


class SupernetAlgorithm(BaseModel):
    """The training core that every method on a supernet shares.

    In an iteration the target network runs once, then each sampled
    sub-network runs forward and backward before the next one begins: the
    memory of a step does not grow with their number. Gradients add up in the
    shared weights, are averaged over the processes once, and make one step
    of the optimizer, after which the target network follows.

    A method is a subclass with :meth:`subnet_loss`.

    Args:
        family (dict | ResNetFamily): The family of sub-networks. It is
            passed on to the parts that are slimmable.
        backbone (dict): Config of the supernet's backbone.
        neck (dict): Config of the projector; ``in_channels`` follow from the
            family.
        head (dict): Config of the head.
        sampler (dict): Config of what draws sub-networks. Defaults to
            dict(type='SandwichSampler').
        loss_weights (str | dict): How the sub-networks' losses make one:
            'sum', 'mean', another scheme of
            :mod:`dspnet_mm.models.loss_weights`, or the weights in a sum, by
            a DN's name or by 'largest', 'smallest' and 'random' for what is
            no DN; weights that are not given are 1. With the mean,
            sub-networks learned far worse at equal learning rate. Defaults to
            'sum'.
        average_gradients (bool): Divide what each weight's gradients add up
            to by the sum of the weights of their losses. Shared weights then
            learn as fast as those of the largest sub-network alone, instead
            of faster by the number of sub-networks that share them, the
            imbalance that SlimCLR found (arXiv 2209.15525); that the answer
            is an average is our choice. Where one step of the optimizer
            follows for all, and without ``group_decay``. Defaults to False.
        step_each_subnet (bool): Make a step of the optimizer behind each
            sub-network's backward pass, as US3L does (arXiv 2303.06870),
            instead of one with all gradients. Without gradient accumulation.
            Defaults to False.
        follow_each_step (bool): Let the target network follow behind each of
            these steps, as BYOL's follows each step of the optimizer (arXiv
            2006.07733, equation 1), instead of once behind the last, as
            US3L's does. Defaults to False.
        group_decay (float): Weight decay of the first of eight groups of a
            layer's output channels; each further one's is lower, since fewer
            sub-networks use these channels; the weights of a linear layer are
            one group. Takes the place of the optimizer's ``weight_decay`` in
            each of its steps. From US3L (arXiv 2303.06870). Not with
            switchable batch norm. Defaults to 0, none.
        group_slope (float): By which part of that the decay of each further
            group is lower, in [0, 1/7], from half of the training on; it
            rises to it from 0. Defaults to 0.05, US3L's.
        base_momentum (float): Momentum of the target network at the start,
            in [0, 1]. Defaults to 0.996.
        momentum_schedule (str): 'cosine', along which the momentum rises to
            1, or 'constant'. Defaults to 'cosine'.
        switchable_bn (bool): Give each DN batch norm parameters and
            statistics of its own, instead of shared parameters with
            recalibrated statistics. Defaults to False.
        sync_bn (bool): Take batch statistics over all processes. Defaults to
            True.
        channels_last (bool): Keep weights and images in the memory format
            that tensor cores work on. Defaults to False.
        on_nonfinite (str): What to do where the loss of a sub-network, or a
            gradient, is infinite or not a number: 'skip' the step, and stop
            after 20 in a row, or 'stop' at once. What overflows while a loss
            scaler finds its scale is always skipped. Running statistics of
            switchable batch norm are not protected; slimming measures them
            anew. Defaults to 'skip'.
        data_preprocessor (dict, optional): Config of the normalisation, or
            of what makes the views, too. Defaults to None.
        init_cfg (dict | list[dict], optional): How to initialise. Defaults
            to None.

    Attributes:
        method (str): What files and reports call it.
        gradient_probe (GradientProbe, optional): Looks at each sub-network's
            gradient while it is set, see :class:`GradientHook`.
        skipped_in_a_row (int): How many iterations in a row, up to the last
            one, had a step skipped because something was not finite; those
            that only accumulate gradients do not count.
        only_scale_overflowed (bool): Whether all that was skipped in the last
            such iteration was by a loss scaler finding its scale.
        num_views (int, optional): How many views of an image the loss is of;
            None, any number. A subclass may say otherwise.

    Raises:
        InputError: If the parts do not fit together.
    """
    method = 'supernet'
    num_views: Optional[int] = 2

    def __init__(self,
                 family: Union[dict, ResNetFamily],
                 backbone: dict,
                 neck: dict,
                 head: dict,
                 sampler: dict = dict(type='SandwichSampler'),
                 loss_weights: Scheme = 'sum',
                 average_gradients: bool = False,
                 step_each_subnet: bool = False,
                 follow_each_step: bool = False,
                 group_decay: float = 0.,
                 group_slope: float = 0.05,
                 base_momentum: float = 0.996,
                 momentum_schedule: str = 'cosine',
                 switchable_bn: bool = False,
                 sync_bn: bool = True,
                 channels_last: bool = False,
                 on_nonfinite: str = 'skip',
                 data_preprocessor: Optional[dict] = None,
                 init_cfg: Optional[Union[dict, List[dict]]] = None) -> None:
        family = build_family(family)
        sampler = TASK_UTILS.build(sampler, default_args=dict(family=family))
        if switchable_bn:
            _check_switchable(family, sampler)
            if group_decay:
                raise InputError('group_decay is for parameters that are '
                                 'shared: set switchable_bn=False')
        check_scheme(loss_weights, family)
        for name, given in (('step_each_subnet', step_each_subnet),
                            ('group_decay', group_decay)):
            if average_gradients and given:
                raise InputError(f'average_gradients does not go with {name}='
                                 f'{given}: set one of them to False or 0')
        if not 0 <= group_slope <= 1 / (_GROUPS - 1):
            raise InputError(f'group_slope={group_slope} is not allowed: give '
                             f'a value in [0, 1/{_GROUPS - 1}]')
        if not 0 <= base_momentum <= 1:
            raise InputError(f'base_momentum={base_momentum} is not allowed: '
                             'give a value in [0, 1]')
        for name, value, allowed in (('momentum_schedule', momentum_schedule,
                                      ('cosine', 'constant')),
                                     ('on_nonfinite', on_nonfinite, ('skip',
                                                                     'stop'))):
            if value not in allowed:
                raise InputError(f'{name}={value!r} is not allowed: give '
                                 f'{" or ".join(map(repr, allowed))}')

        shared = dict(
            family=family, switchable_bn=switchable_bn, sync_bn=sync_bn)
        features = family.out_channels(family.full)[-1]
        head = copy.deepcopy(head)
        if 'predictor' in head:
            head['predictor'] = {**shared, **head['predictor']}
        super().__init__(
            backbone={
                **shared,
                **backbone
            },
            neck={
                'in_channels': features,
                **shared,
                **neck
            },
            head=head,
            data_preprocessor=copy.deepcopy(data_preprocessor),
            init_cfg=init_cfg)
        self.family = family
        self.sampler = sampler
        self.loss_weights = loss_weights
        self.average_gradients = average_gradients
        self.step_each_subnet = step_each_subnet
        self.follow_each_step = follow_each_step
        self.group_decay = group_decay
        self.group_slope = group_slope
        self.base_momentum = base_momentum
        self.momentum_schedule = momentum_schedule
        self.target_net = copy.deepcopy(
            nn.Sequential(self.backbone, self.neck)).requires_grad_(False)
        self.on_nonfinite = on_nonfinite
        self._memory_format = (
            torch.channels_last if channels_last else torch.contiguous_format)
        self.to(memory_format=self._memory_format)
        self._iterations_done = 0
        self.skipped_in_a_row = self._skipped_before = 0
        self.only_scale_overflowed = False
        self.gradient_probe: Optional[GradientProbe] = None
        # Of the iterations whose gradients wait for a step: losses by
        # sub-network, and by parameter what the gradients are divided by.
        self._pending_losses: Dict[str, torch.Tensor] = {}
        self._pending_iterations = 0
        self._divisors: Dict[nn.Parameter, torch.Tensor] = {}
        self._seed: Optional[int] = None

    def init_weights(self) -> None:
        """Initialise, and start the target network as the online network."""
        super().init_weights()
        self.start_target()

    def start_target(self) -> None:
        """Make the target network equal to the online network."""
        self.target_net.load_state_dict(
            nn.Sequential(self.backbone, self.neck).state_dict())

    @property
    def slimmable_networks(self) -> List[SlimmableNetwork]:
        """The online network's parts that activation concerns."""
        return [
            module for module in (self.backbone, self.neck,
                                  getattr(self.head, 'predictor', None))
            if isinstance(module, SlimmableNetwork)
        ]

    @property
    def active_networks(self) -> List[SlimmableNetwork]:
        """Those of ``slimmable_networks`` that the active one learns in."""
        return self.slimmable_networks

    def compute_targets(self, views: Views) -> List[torch.Tensor]:
        """What all sub-networks of an iteration learn from.

        Args:
            views (list[Tensor]): The views, each of shape (N, C, H, W).

        Returns:
            list[Tensor]: The target network's projection of each, of shape
            (N, D), without gradient.
        """
        return [self.target_net(view)[0] for view in views]

    def subnet_loss(
            self, views: Views,
            targets: List[torch.Tensor]) -> Tuple[torch.Tensor, torch.Tensor]:
        """The loss of the active sub-network.

        Args:
            views (list[Tensor]): The views, each of shape (N, C, H, W).
            targets (list[Tensor]): From :meth:`compute_targets`.

        Returns:
            tuple[Tensor, Tensor]: The loss, a scalar, and projections of
            shape (N, D) whose spread is logged.
        """
        raise NotImplementedError

    def supernet_outputs(
            self, outputs: List[torch.Tensor]) -> Optional[List[torch.Tensor]]:
        """What the online supernet put out, for smaller ones to learn from.

        Args:
            outputs (list[Tensor]): The active sub-network's. The supernet's
                are remembered until the iteration ends.

        Returns:
            list[Tensor], optional: The supernet's, without gradient; None
            where the supernet itself is active, or not drawn in this
            iteration, as before a growing supernet is grown.

        Raises:
            InputError: If the supernet is drawn behind the active one.
        """
        if self.backbone.active_subnet == self.family.full:
            self._supernet_outputs = [output.detach() for output in outputs]
            return None
        if self._supernet_outputs is None and self._draws_supernet:
            raise InputError(
                'distillation from the online supernet needs it before all '
                'other sub-networks of an iteration: use a sampler that draws '
                'it first, as AllDesiredSampler and SandwichSampler do')
        return self._supernet_outputs

    def sample_subnets(self) -> List[Subnet]:
        """The sub-networks of the present iteration, equal on all ranks."""
        return self.sampler(self.current_iteration, self.seed, self.progress)

    def as_trained(self, subnet: Subnet) -> Subnet:
        """What stands for a sub-network in the present state of training.

        What evaluates or exports a sub-network takes this one: a method may
        train several sub-networks as one at first.

        Args:
            subnet (Subnet): A member of the family.

        Returns:
            Subnet: Itself, unless a method says otherwise.
        """
        return subnet

    def exported_backbone(self, name: str) -> SlimmableNetwork:
        """The backbone that holds the weights of what is exported.

        Args:
            name (str): One of the family's ``exported``, or of a sub-network.

        Returns:
            SlimmableNetwork: The online one, unless a method says otherwise.
        """
        return self.backbone

    @property
    def seed(self) -> int:
        """The seed of the run, equal on all ranks."""
        if self._seed is None:
            seed = [torch.initial_seed() % 2**63]
            broadcast_object_list(seed)
            self._seed = seed[0]
        return self._seed

    @property
    def current_iteration(self) -> int:
        """The runner's iteration, or the number of steps without one."""
        return MessageHub.get_current_instance().runtime_info.get(
            'iter', self._iterations_done)

    @property
    def _total_iterations(self) -> int:
        """How many the runner will make; 0 without one."""
        info = MessageHub.get_current_instance().runtime_info
        return info.get('max_iters') or 0

    @property
    def progress(self) -> float:
        """Which part of the training is done, in [0, 1); 0 without runner."""
        total = self._total_iterations
        return self.current_iteration / total if total else 0.

    @property
    def momentum(self) -> float:
        """The target network's momentum after the present iteration.

        Along the cosine of BYOL (arXiv 2006.07733, section 3.2), where the
        runner says how many iterations there are; constant without a runner.
        """
        total = self._total_iterations
        if not total or self.momentum_schedule == 'constant':
            return self.base_momentum
        progress = min((self.current_iteration + 1) / total, 1)
        return 1 - (1 - self.base_momentum) * (math.cos(math.pi * progress) +
                                               1) / 2

    def _subnet_losses(
        self,
        views: Views,
        optim_wrapper: Optional[OptimWrapper] = None
    ) -> Iterator[Tuple[str, torch.Tensor, float, torch.Tensor]]:
        """Run the sampled sub-networks, one after the other.

        Each is active until the next one is asked for. Yields its label, its
        loss, the loss's weight, and the spread of its projections.
        """

        def precision():
            # The optimizer's wrapper knows of mixed precision.
            return nullcontext() if optim_wrapper is None \
                else optim_wrapper.optim_context(self)

        if self.num_views not in (None, len(views)):
            raise InputError(
                f'{len(views)} view(s) of each image are not allowed, as '
                f'{type(self).__name__} compares {self.num_views}: set '
                'num_views of MultiView, or model.data_preprocessor.views')
        # The online supernet's outputs are of these views, or none.
        self._supernet_outputs: Optional[List[torch.Tensor]] = None
        with precision(), torch.no_grad():
            targets = self.compute_targets(views)
        subnets = self.sample_subnets()
        self._draws_supernet = self.family.full in subnets
        weights = weights_of(self.loss_weights, subnets, self.family)
        for subnet, weight in zip(subnets, weights):
            label = self.family.label_of(subnet)
            with activate(subnet, *self.slimmable_networks):
                with precision():
                    loss, projections = self.subnet_loss(views, targets)
                yield label, loss, weight, spread(projections)

    def train_step(self, data: dict,
                   optim_wrapper: OptimWrapper) -> Dict[str, torch.Tensor]:
        """Train all sampled sub-networks on a batch.

        Args:
            data (dict): A batch of the data loader.
            optim_wrapper (OptimWrapper): What holds the optimizer.

        Returns:
            dict[str, Tensor]: The weighted total ``loss``, and ``loss_NAME``
            and ``spread_NAME`` of each sampled sub-network.

        Raises:
            FloatingPointError: If losses or gradients are not finite, as
                ``on_nonfinite`` says.
            InputError: If the optimizer does what the method takes over.
        """
        if self.group_decay and any(
                group['weight_decay']
                for group in optim_wrapper.optimizer.param_groups):
            raise InputError(
                f'group_decay={self.group_decay} takes the place of '
                "the optimizer's decay, but that is not 0: set optim_wrapper."
                'optimizer.weight_decay=0')
        with seeded(self.seed, self.current_iteration, get_rank()):
            views, _ = self.data_preprocessor(data, True)
        views = [
            view.contiguous(memory_format=self._memory_format)
            for view in views
        ]
        if self.step_each_subnet and optim_wrapper._accumulative_counts > 1:
            raise InputError('step_each_subnet makes steps that gradients are '
                             'not accumulated for: set optim_wrapper.'
                             'accumulative_counts=1, or model.'
                             'step_each_subnet=False')
        self._skipped_before = self.skipped_in_a_row
        total = 0.
        passes = steps = 0
        logged: Dict[str, List[torch.Tensor]] = {}
        # Closed here, whatever happens, so that no sub-network stays active.
        with closing(self._subnet_losses(views, optim_wrapper)) as losses:
            for label, loss, weight, spread_ in losses:
                weighted = loss * weight
                total = total + weighted.detach()
                # A backward pass counts as one of gradient accumulation's
                # iterations: take that back for all but the first, so that
                # a step counts as one.
                if passes:
                    optim_wrapper._inner_count -= 1
                probe = self.gradient_probe
                if self.group_decay and (self.step_each_subnet or not passes):
                    decayed = self.parameters()
                    if probe:
                        decayed = probe.leave_out(decayed)
                    weighted = weighted + self.group_decay * group_penalty(
                        decayed, self.progress, self.group_slope)
                with probe.watch(label, self._gradient_scale(
                        optim_wrapper)) if probe else nullcontext():
                    optim_wrapper.backward(optim_wrapper.scale_loss(weighted))
                if self.average_gradients:
                    self._count(weight)
                passes += 1
                logged.setdefault(f'loss_{label}', []).append(loss.detach())
                logged.setdefault(f'spread_{label}', []).append(spread_)
                self._pending_losses[label] = self._pending_losses.get(
                    label, 0.) + loss.detach().float()
                if self.step_each_subnet:
                    stepped = self._update(optim_wrapper)
                    steps += stepped
                    if stepped and self.follow_each_step:
                        self.update_target()
        self._pending_iterations += 1
        if optim_wrapper.should_update() and not self.step_each_subnet:
            steps += self._update(optim_wrapper)
        if steps:
            if not (self.step_each_subnet and self.follow_each_step):
                self.update_target()
            if self.skipped_in_a_row == self._skipped_before:
                self.skipped_in_a_row = 0
        self._iterations_done += 1
        return dict(
            loss=total,
            **{
                name: torch.stack(values).mean()
                for name, values in logged.items()
            })

    @staticmethod
    def _gradient_scale(optim_wrapper: OptimWrapper) -> float:
        """How many times too large a backward pass leaves gradients."""
        scaler = getattr(optim_wrapper, 'loss_scaler', None)
        scale = 1. if scaler is None else scaler.get_scale()
        return optim_wrapper.scale_loss(torch.tensor(scale)).item()

    @torch.no_grad()
    def _count(self, weight: float) -> None:
        """Remember where the active sub-network's gradients were added."""
        for parameter in self.parameters():
            if parameter.grad is not None and parameter not in self._divisors:
                self._divisors[parameter] = torch.zeros_like(parameter)
        torch._foreach_add_([
            view for network in self.active_networks
            for view in network.active_views(self._divisors)
        ], weight)

    @torch.no_grad()
    def _average(self) -> None:
        """Make the gradients averages, see ``average_gradients``."""
        for parameter, divisor in self._divisors.items():
            factor = self._pending_iterations / divisor
            # Where none was added, the gradient is zero.
            parameter.grad.mul_(factor.masked_fill(divisor == 0, 1))
        self._divisors.clear()

    def _update(self, optim_wrapper: OptimWrapper) -> bool:
        """Make a step of the optimizer, unless something is not finite.

        Returns:
            bool: Whether it was made.
        """
        self._average()
        self._pending_iterations = 0
        grads = [p.grad for p in self.parameters() if p.grad is not None]
        # The losses travel with the gradients: all processes come to the
        # same decision without a reduction of its own.
        losses = torch.stack([*self._pending_losses.values()
                              ]).to(grads[0].dtype)
        all_reduce_params([*grads, losses], op='mean')
        scaler = getattr(optim_wrapper, 'loss_scaler', None)
        scaled = scaler is not None and scaler.is_enabled()
        stop = self.on_nonfinite == 'stop'
        wrong = self._nonfinite(losses, grads)
        self._pending_losses.clear()
        overflow = scaled and wrong == _GRADIENT
        scale = scaler.get_scale() if scaled else 1.
        if wrong is None or overflow:
            # A scaler sees for itself that there is no step to be made.
            optim_wrapper.step()
        harmless = overflow and scaler.get_scale() < scale
        if overflow:
            wrong = f'The gradient, scaled by {scale:g}, is'
            # What is skipped while it finds its scale is no reason to stop.
            stop = stop and not harmless
        optim_wrapper.zero_grad()
        if wrong is None:
            return True
        if self.skipped_in_a_row == self._skipped_before:
            # The first of the iteration's steps that is skipped.
            self.skipped_in_a_row += 1
            self.only_scale_overflowed = harmless
        self.only_scale_overflowed &= harmless
        rate = optim_wrapper.get_lr()['lr'][0]
        message = (f'{wrong} not finite at iteration '
                   f'{self.current_iteration + 1}, learning rate {rate:.3g}')
        if stop or self.skipped_in_a_row == _MAX_SKIPPED_IN_A_ROW:
            raise FloatingPointError(
                f'{message}, iteration {self.skipped_in_a_row} of such in a '
                'row: begin a new run with a lower learning rate or a longer '
                'warm-up, and the weights of the last checkpoint, if there is '
                'one, by load_from without resume')
        print_log(
            f'{message}: the step is skipped',
            logger='current',
            level=logging.WARNING)
        return False

    def _nonfinite(self, losses: torch.Tensor,
                   grads: List[torch.Tensor]) -> Optional[str]:
        """Name what is not finite, if anything is."""
        norms = torch.stack(torch._foreach_norm(grads))
        values = torch.cat([losses, norms.sum().view(1)])
        finite = torch.isfinite(values).tolist()
        if all(finite):
            return None
        names = [
            name for name, fine in zip(self._pending_losses, finite)
            if not fine
        ]
        if names:
            return f'The loss of sub-network {", ".join(names)} is'
        # With bfloat16, a scale grows until squares overflow, long before
        # the gradients themselves do.
        if torch.stack([grad.isfinite().all() for grad in grads]).all():
            return None
        return _GRADIENT

    @torch.no_grad()
    def update_target(self) -> None:
        """Move the target network towards the online network."""
        online = [*self.backbone.parameters(), *self.neck.parameters()]
        torch._foreach_lerp_(
            list(self.target_net.parameters()), online, 1 - self.momentum)

    def loss(self, inputs: Views, data_samples: List[SelfSupDataSample],
             **kwargs) -> Dict[str, torch.Tensor]:
        """The weighted losses of the sampled sub-networks, with gradients.

        For inspection: training goes through :meth:`train_step`, which does
        not hold all graphs at once and updates the target network.

        Args:
            inputs (list[Tensor]): The views, each of shape (N, C, H, W).
            data_samples (list[SelfSupDataSample]): Not used.

        Returns:
            dict[str, Tensor]: A scalar ``loss_NAME`` for each name; those
            of one name add up.

        Raises:
            RuntimeError: If several processes run, since the wrapper that
                would call it bypasses ``train_step``.
        """
        if is_distributed():
            raise RuntimeError(
                f'{type(self).__name__} trains by its own train_step: set '
                "model_wrapper_cfg=dict(type='SupernetDistributed') in the "
                'config')
        losses: Dict[str, torch.Tensor] = {}
        for label, loss, weight, _ in self._subnet_losses(inputs):
            name = f'loss_{label}'
            losses[name] = losses.get(name, 0.) + loss * weight
        return losses

    def extract_feat(self, inputs: Views, **kwargs) -> Tuple[torch.Tensor]:
        """The backbone's outputs for the first view.

        Args:
            inputs (list[Tensor]): The views, each of shape (N, C, H, W).

        Returns:
            tuple[Tensor]: As the backbone's ``out_indices`` say.
        """
        return self.backbone(inputs[0])


def _check_switchable(family: ResNetFamily, sampler) -> None:
    if family.full not in family.desired.values():
        raise InputError(
            'switchable_bn needs the supernet among the desired networks '
            '(the target network is its average): add '
            "dict(name='...', widths=1.0) to family.desired")
    if not sampler.draws_only_desired:
        raise InputError(
            'switchable_bn has batch norm parameters for desired networks '
            'alone, but the sampler draws others too: use '
            'AllDesiredSampler, or SandwichSampler with desired_prob=1 '
            'and a smallest desired network')


def refuse_target_options(method: str, options: Iterable[str]) -> None:
    """Refuse options of a target network that a method has not.

    Args:
        method (str): What messages call it.
        options (Iterable[str]): The names of all that is given.

    Raises:
        InputError: If there is one.
    """
    for name in ('base_momentum', 'momentum_schedule', 'follow_each_step'):
        if name in options:
            raise InputError(f'{method} has no target network for {name} to '
                             'be of: leave it out')


def group_penalty(parameters: Iterable[torch.Tensor], progress: float,
                  slope: float) -> torch.Tensor:
    """Half of the squared norm, with less weight on later output channels.

    Args:
        parameters (Iterable[Tensor]): Each has its output channels first;
            those that do not learn are left out. The weights of a linear layer
            are one group.
        progress (float): Which part of the training is done, in [0, 1]. The
            groups' weights part over the first half.
        slope (float): By how much weights then fall from one of the eight
            groups to the next, in [0, 1/7].

    Returns:
        Tensor: A scalar, whose gradient is each parameter times its group's
        weight, from 1 down to 1 - 7 ``slope``.
    """
    slope *= min(1., progress / _GROUPS_PARTED)
    penalty = 0.
    for parameter in parameters:
        if parameter.requires_grad:
            channels = len(parameter)
            group = torch.arange(
                channels, device=parameter.device) * _GROUPS // channels
            weights = 1 - slope * group * (parameter.dim() != 2)
            squares = parameter.square().reshape(channels, -1).sum(1)
            penalty = penalty + (weights * squares).sum() / 2
    return penalty


@torch.no_grad()
def spread(projections: torch.Tensor) -> torch.Tensor:
    """How far the directions of projections are apart: a collapse measure.

    The standard deviation over the batch of each l2-normalised output,
    averaged over the outputs, times sqrt(D) (SimSiam, arXiv 2011.10566,
    section 4.1, reports it without the factor).

    Args:
        projections (Tensor): Shape (N, D), at least two rows.

    Returns:
        Tensor: A scalar from 0, where all are alike (collapse), to about 1,
        where they are spread evenly over the sphere.
    """
    directions = F.normalize(projections.detach().float(), dim=1)
    return directions.std(0).mean() * math.sqrt(projections.shape[1])

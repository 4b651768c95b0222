# Copyright (c) The dspnet_mm authors. All rights reserved.
from typing import Dict, Optional, Sequence, Tuple, Union

import torch
from mmengine.dist import get_world_size
from mmengine.registry import MODELS
from torch import nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F

from dspnet_mm.channels import ActiveChannels, number_of
from dspnet_mm.subnet import Subnet
from .slimmable_layer import (SlimmableLayer, check_channels, plain_slice,
                              write_slice)


@MODELS.register_module('SlimmableBN')
class SlimmableBatchNorm(nn.Module, SlimmableLayer):
    """Batch normalisation over some channels, for 2-D to 5-D input.

    While training, the batch's own statistics are used. What evaluation uses
    depends on ``num_private``:

    - 0: all sub-networks share the affine parameters. Their statistics come
      from recalibration (see :func:`dspnet_mm.slimming.recalibrate`) and
      are kept for one sub-network at a time, outside of checkpoints, until
      training goes on or other weights are loaded.
    - n > 0 (switchable): each of n sub-networks has its own affine
      parameters and its own running statistics, updated while it trains and
      overwritten by recalibration (Slimmable Neural Networks, arXiv
      1812.08928). They are parameters of their own, without a gradient where
      others train: else weight decay would shrink them in a slow start.

    The class must not descend from PyTorch's batch norms: the runner replaces
    every subclass of SyncBatchNorm where it does not run distributed, and
    ``sync_bn=`` every subclass of _BatchNorm, both by plain layers.

    Args:
        num_features (int): Channels of the supernet.
        eps (float): Added to the variance. Defaults to 1e-5.
        momentum (float): Weight of a batch in the running statistics, in
            [0, 1]. Defaults to 0.1.
        affine (bool): Scale and shift what is normalised, by parameters.
            Defaults to True.
        num_private (int): How many sub-networks have parameters and
            statistics of their own. Defaults to 0.
        sync (bool): Take the statistics over the batches of all processes,
            where there are several. Defaults to True.
    """

    def __init__(self,
                 num_features: int,
                 eps: float = 1e-5,
                 momentum: float = 0.1,
                 affine: bool = True,
                 num_private: int = 0,
                 sync: bool = True) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.num_private = num_private
        self.sync = sync
        shape = (num_private,
                 num_features) if num_private else (num_features, )
        self.weight = self.bias = None
        if affine:
            self.weight, self.bias = (
                nn.ParameterList(
                    row.clone()
                    for row in values) if num_private else nn.Parameter(values)
                for values in (torch.ones(shape), torch.zeros(shape)))
        # Shared statistics belong to one sub-network at a time and would be
        # wrong for every other: a checkpoint does not carry them.
        persistent = num_private > 0
        self.register_buffer(
            'running_mean', torch.zeros(shape), persistent=persistent)
        self.register_buffer(
            'running_var', torch.ones(shape), persistent=persistent)
        self._recalibrated: Optional[Subnet] = None
        self.set_active(num_features, None, 0)

    def set_active(self, num_features: ActiveChannels,
                   subnet: Optional[Subnet], private_index: int) -> None:
        """Use some channels only, from now on.

        Args:
            num_features (int | Channels): Channels of the input: which, or
                how many of the first, at least 1. Where parameters are
                private, how many of the first.
            subnet (Subnet, optional): Whose statistics evaluation uses; None
                stands for the whole layer.
            private_index (int): Whose private parameters are used, in
                [0, num_private). Ignored where there are none.

        Raises:
            ValueError: If the layer has fewer channels, or private parameters
                and is to use others than the first.
        """
        check_channels(self, 'input', num_features, self.num_features)
        if self.num_private and not isinstance(num_features, int):
            # Running statistics are updated in place, which needs a view.
            raise ValueError('private batch norm parameters are of a '
                             f"layer's first channels: {num_features} cannot "
                             'be active')
        # As SlimmableWeight.set_active does.
        self.__dict__.update(
            active_features=num_features,
            active_subnet=subnet,
            private_index=private_index)

    def _active(self,
                tensor: Optional[torch.Tensor]) -> Optional[torch.Tensor]:
        if tensor is None:
            return None
        if self.active_features == self.num_features:
            return tensor
        return plain_slice(tensor, self.active_features)

    @property
    def has_statistics(self) -> bool:
        """Whether there are statistics for the active sub-network."""
        return self.num_private > 0 or (self._recalibrated is not None
                                        and self._recalibrated
                                        == self.active_subnet)

    def set_statistics(self, mean: torch.Tensor, var: torch.Tensor) -> None:
        """Set what evaluation of the active sub-network uses.

        Args:
            mean (Tensor): Mean of each active channel, shape (C, ).
            var (Tensor): Variance of each active channel, shape (C, ).
        """
        for statistic, values in ((self.running_mean, mean), (self.running_var,
                                                              var)):
            write_slice(self._own(statistic), values, self.active_features)
        self._recalibrated = self.active_subnet

    def start_at_zero(self) -> None:
        """Put out nothing, for any sub-network, until the scale learns."""
        for weight in self.weight if self.num_private else [self.weight]:
            nn.init.zeros_(weight)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalise.

        Args:
            inputs (Tensor): Shape (N, active_features, ...).

        Returns:
            Tensor: The same shape.

        Raises:
            RuntimeError: If it is evaluated without statistics.
        """
        weight = self._active(self._parameter('weight'))
        bias = self._active(self._parameter('bias'))
        if not self.training and not self.has_statistics:
            raise RuntimeError(
                f'sub-network {self.active_subnet} has no batch norm '
                'statistics: call dspnet_mm.slimming.recalibrate first')
        if self.training and not self.num_private:
            # The weights before this layer change with what follows.
            self._forget_statistics()
        mean = var = None
        if self.num_private or not self.training:
            mean, var = self._active_statistics()
        if self.training and self.sync and get_world_size() > 1:
            return self._synchronised(inputs, mean, var, weight, bias)
        return F.batch_norm(inputs, mean, var, weight, bias, self.training,
                            self.momentum, self.eps)

    def _synchronised(self, inputs: torch.Tensor,
                      running_mean: Optional[torch.Tensor],
                      running_var: Optional[torch.Tensor],
                      weight: Optional[torch.Tensor],
                      bias: Optional[torch.Tensor]) -> torch.Tensor:
        # PyTorch's own SyncBatchNorm has no CPU version. Counts are summed
        # too, since the last batches of the processes may differ in size.
        dims = [0] + list(range(2, inputs.dim()))
        shape = (1, -1) + (1, ) * (inputs.dim() - 2)
        values = inputs.to(self.running_mean.dtype)
        count = values.new_full((1, ), values.numel() / values.shape[1])
        channels = number_of(self.active_features)
        count, sums = all_reduce(torch.cat([count, values.sum(dims)
                                            ])).split([1, channels])
        mean = sums / count
        # A second reduction, since a mean square less the squared mean is
        # nothing but rounding where the mean is large.
        centred = values - mean.view(shape)
        var = all_reduce(centred.square().sum(dims)) / count
        if running_mean is not None:
            with torch.no_grad():
                unbiased = var * count / (count - 1).clamp(min=1)
                running_mean.lerp_(mean, self.momentum)
                running_var.lerp_(unbiased, self.momentum)
        scale = (var + self.eps).rsqrt()
        if weight is not None:
            scale = weight * scale
        normalised = centred * scale.view(shape)
        if bias is not None:
            normalised = normalised + bias.view(shape)
        return normalised.to(inputs.dtype)

    def _forget_statistics(self) -> None:
        # Past nn.Module's way to set, which every forward would pay for.
        self.__dict__['_recalibrated'] = None

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._forget_statistics()

    def plain_state(self) -> Dict[str, torch.Tensor]:
        """See :meth:`SlimmableLayer.plain_state`.

        Without statistics for the active sub-network, they are those of a
        new layer: mean 0 and variance 1.
        """
        mean, var = self._plain_statistics()
        affine = {
            name: tensor.clone()
            for name, tensor in self.active_weights().items()
        }
        return dict(
            **affine,
            running_mean=mean,
            running_var=var,
            num_batches_tracked=torch.zeros((), dtype=torch.long))

    def _parameter(self, name: str) -> Optional[nn.Parameter]:
        parameter = super()._parameter(name)
        return None if parameter is None else self._own(parameter)

    def _active_of(self, tensor: torch.Tensor) -> Tuple[ActiveChannels, ...]:
        return (self.active_features, )

    def _own(
            self, values: Union[torch.Tensor,
                                Sequence[torch.Tensor]]) -> torch.Tensor:
        """Of private parameters or statistics, the active sub-network's."""
        return values[self.private_index] if self.num_private else values

    def _active_statistics(self) -> Tuple[torch.Tensor, torch.Tensor]:
        return (self._active(self._own(self.running_mean)),
                self._active(self._own(self.running_var)))

    def _plain_statistics(self) -> Tuple[torch.Tensor, torch.Tensor]:
        mean, var = (each.clone() for each in self._active_statistics())
        if not self.has_statistics:
            return torch.zeros_like(mean), torch.ones_like(var)
        return mean, var

    def extra_repr(self) -> str:
        return (f'{self.num_features}, eps={self.eps}, '
                f'momentum={self.momentum}, affine={self.affine}, '
                f'num_private={self.num_private}, sync={self.sync}')

# Copyright (c) The dspnet_mm authors. All rights reserved.
from functools import lru_cache
from itertools import product
from typing import Dict, Iterator, List, Optional, Tuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from dspnet_mm.channels import ActiveChannels, slices_of

# Of a tensor's first dimensions.
_Index = Tuple[ActiveChannels, ...]


class SlimmableLayer:
    """What every slimmable layer offers besides its forward pass.

    A slimmable layer computes with some channels of its own weights. It
    knows nothing of widths elsewhere: the slimmable network that holds it
    tells it which channels to use, see :class:`SlimmableNetwork`.
    """

    def plain_state(self) -> Dict[str, torch.Tensor]:
        """The state of the plain layer that computes the same.

        Returns:
            dict[str, Tensor]: Copies of the active slices, by the names that
            the plain layer gives them.
        """
        raise NotImplementedError

    def active_weights(self) -> Dict[str, torch.Tensor]:
        """The active slices of the parameters, without gradient.

        Returns:
            dict[str, Tensor]: By the parameters' names; views where the
            active channels are the first.
        """
        return {
            name: plain_slice(tensor, *self._active_of(tensor))
            for name, tensor in self._whole_weights().items()
        }

    def active_views(
        self,
        of: Optional[Dict[nn.Parameter, torch.Tensor]] = None
    ) -> List[torch.Tensor]:
        """The active channels of the parameters, to be changed in place.

        Args:
            of (dict[Parameter, Tensor], optional): For some parameters,
                tensors of their shapes whose channels are meant. Defaults to
                None, the parameters themselves.

        Returns:
            list[Tensor]: Views without gradient, one for each block of
            channels that lie together.
        """
        return [
            tensor[there] for tensor in self._whole_weights(of).values()
            for there, _ in _blocks(self._active_of(tensor))
        ]

    def write_weights(self, values: Dict[str, torch.Tensor]) -> None:
        """Overwrite the active slices of the parameters.

        Args:
            values (dict[str, Tensor]): As from :meth:`active_weights`.
        """
        for name, tensor in self._whole_weights().items():
            write_slice(tensor, values[name], *self._active_of(tensor))

    def _whole_weights(
        self,
        of: Optional[Dict[nn.Parameter, torch.Tensor]] = None
    ) -> Dict[str, torch.Tensor]:
        parameters = {
            name: self._parameter(name)
            for name in ('weight', 'bias')
        }
        return {
            name: (parameter if of is None else of[parameter]).detach()
            for name, parameter in parameters.items()
            if parameter is not None and (of is None or parameter in of)
        }

    def _parameter(self, name: str) -> Optional[nn.Parameter]:
        return getattr(self, name)


class SlimmableWeight(SlimmableLayer):
    """A layer with a weight of shape (out, in, ...) and perhaps a bias.

    Goes before the plain layer among the bases of a class. All channels are
    active until :meth:`set_active` says otherwise.
    """
    weight: nn.Parameter
    bias: Optional[nn.Parameter]

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.set_active(*reversed(self.weight.shape[:2]))

    def set_active(self, in_channels: ActiveChannels,
                   out_channels: ActiveChannels) -> None:
        """Use some channels only, from now on.

        Args:
            in_channels (int | Channels): Channels of the input: which, or
                how many of the first, at least 1.
            out_channels (int | Channels): Channels of the output, likewise.

        Raises:
            ValueError: If the layer has fewer.
        """
        most_out, most_in = self.weight.shape[:2]
        check_channels(self, 'output', out_channels, most_out)
        check_channels(self, 'input', in_channels, most_in)
        # nn.Module's own way of setting an attribute takes longer than all
        # else here, and an activation sets some hundreds.
        self.__dict__.update(
            active_in=in_channels,
            active_out=out_channels,
            is_whole=(in_channels, out_channels) == (most_in, most_out))

    def active_parameters(self) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
        """The active part of weight and bias, or they themselves if whole."""
        if self.is_whole:
            return self.weight, self.bias
        weight = active_slice(self.weight, self.active_out, self.active_in)
        bias = None if self.bias is None else active_slice(
            self.bias, self.active_out)
        return weight, bias

    def cut_inactive_inputs(self) -> None:
        """Set to zero what leads from inactive to active channels."""
        kept = self.active_weights()['weight'].clone()
        weight = self.weight.detach()
        for there, _ in _blocks((self.active_out, )):
            weight[there].zero_()
        write_slice(weight, kept, self.active_out, self.active_in)

    def plain_state(self) -> Dict[str, torch.Tensor]:
        """See :meth:`SlimmableLayer.plain_state`."""
        # Copies, not views: a file with views would hold the whole supernet.
        return {
            name: tensor.clone().contiguous()
            for name, tensor in self.active_weights().items()
        }

    def _active_of(self, tensor: torch.Tensor) -> Tuple[ActiveChannels, ...]:
        return (self.active_out, self.active_in)[:tensor.dim()]


class _ActiveSlice(torch.autograd.Function):
    """A slice whose gradient is added to the parameter's own."""

    @staticmethod
    def forward(ctx, parameter: nn.Parameter, index: _Index) -> torch.Tensor:
        ctx.parameter, ctx.index = parameter, index
        return plain_slice(parameter, *index)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: torch.Tensor) -> Tuple[None, None]:
        parameter = ctx.parameter
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        for there, here in _blocks(ctx.index):
            parameter.grad[there].add_(grad[here])
        return None, None


def active_slice(parameter: torch.Tensor, *channels:
                 ActiveChannels) -> torch.Tensor:
    """Some channels of a parameter, along its first dimensions.

    The gradient of an ordinary slice is as large as the parameter and zero
    outside of the slice. Making one for each layer and adding it up would
    cost a small sub-network more than its own weights do. Here, a backward
    pass adds to the slice of ``parameter.grad``. So ``torch.autograd.grad``,
    which leaves ``.grad`` alone, cannot be asked about such a parameter.
    A parameter with hooks gets an ordinary slice, as hooks see gradients.

    Args:
        parameter (Tensor): The parameter.
        *channels (int | Channels): Which channels to use along each
            dimension, or how many of the first.

    Returns:
        Tensor: A view where the channels are the first, the parameter itself
        where all of it is used, else a copy.
    """
    if parameter.shape[:len(channels)] == channels:
        return parameter
    # What is no leaf, as under a parametrization, has no .grad to add to.
    if torch.is_grad_enabled() and parameter.requires_grad \
            and parameter.is_leaf and not parameter._backward_hooks:
        return _ActiveSlice.apply(parameter, channels)
    return plain_slice(parameter, *channels)


def plain_slice(tensor: torch.Tensor, *channels:
                ActiveChannels) -> torch.Tensor:
    """What :func:`active_slice` takes, as PyTorch slices."""
    view, ranges = _view_of(channels)
    tensor = tensor[view]
    for dim, slices in ranges:
        before = (slice(None), ) * dim
        tensor = torch.cat([tensor[(*before, each)] for each in slices], dim)
    return tensor


@torch.no_grad()
def write_slice(tensor: torch.Tensor, values: torch.Tensor, *channels:
                ActiveChannels) -> None:
    """Overwrite what :func:`active_slice` takes.

    Args:
        tensor (Tensor): What is changed.
        values (Tensor): Of the shape of the slice.
        *channels (int | Channels): See :func:`active_slice`.
    """
    for there, here in _blocks(channels):
        tensor[there].copy_(values[here])


@lru_cache(maxsize=None)
def _view_of(
    index: _Index
) -> Tuple[Tuple[slice, ...], Tuple[Tuple[int, Tuple[slice, ...]], ...]]:
    """What of a slice is a view, and along which dimensions it is not."""
    slices = tuple(map(slices_of, index))
    view = tuple(each[0] if len(each) == 1 else slice(None) for each in slices)
    return view, tuple(
        (dim, each) for dim, each in enumerate(slices) if len(each) > 1)


@lru_cache(maxsize=None)
def _blocks(index: _Index) -> Tuple[Tuple[Tuple[slice, ...], ...], ...]:
    """Where each block of a slice lies, in the whole and in the slice."""
    return tuple(
        tuple(zip(*block))
        for block in product(*map(_placed, map(slices_of, index))))


def _placed(slices: Tuple[slice, ...]) -> Iterator[Tuple[slice, slice]]:
    start = 0
    for each in slices:
        stop = start + each.stop - each.start
        yield each, slice(start, stop)
        start = stop


def check_channels(layer: nn.Module, what: str, channels: ActiveChannels,
                   limit: int) -> None:
    """Refuse channels that a layer does not have.

    Raises:
        ValueError: If there are none, or any is beyond the limit.
    """
    last = slices_of(channels)[-1].stop
    if not 1 <= last <= limit:
        raise ValueError(f'{last} {what} channels cannot be active in '
                         f'{type(layer).__name__}: allowed are 1 to {limit}')

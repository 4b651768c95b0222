# Copyright (c) The dspnet_mm authors. All rights reserved.
from typing import Dict, Optional, Tuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable


class SlimmableLayer:
    """What every slimmable layer offers besides its forward pass.

    A slimmable layer computes with the first channels of its own weights.
    It knows nothing of widths elsewhere: the slimmable network that holds it
    tells it how many channels to use, see :class:`SlimmableNetwork`.
    """

    def plain_state(self) -> Dict[str, torch.Tensor]:
        """The state of the plain layer that computes the same.

        Returns:
            dict[str, Tensor]: Copies of the active slices, by the names that
            the plain layer gives them.
        """
        raise NotImplementedError


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

    def set_active(self, in_channels: int, out_channels: int) -> None:
        """Use the first channels only, from now on.

        Args:
            in_channels (int): Channels of the input, at least 1.
            out_channels (int): Channels of the output, at least 1.

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
        """Views of the weight and the bias, or they themselves if whole."""
        if self.is_whole:
            return self.weight, self.bias
        weight = first_channels(self.weight, self.active_out, self.active_in)
        bias = None if self.bias is None else first_channels(
            self.bias, self.active_out)
        return weight, bias

    def plain_state(self) -> Dict[str, torch.Tensor]:
        """See :meth:`SlimmableLayer.plain_state`."""
        weight, bias = self.active_parameters()
        # Copies, not views: a file with views would hold the whole supernet.
        state = dict(weight=weight.detach().clone().contiguous())
        if bias is not None:
            state['bias'] = bias.detach().clone()
        return state


class _FirstChannels(torch.autograd.Function):
    """A slice whose gradient is added to the parameter's own."""

    @staticmethod
    def forward(ctx, parameter: nn.Parameter,
                index: Tuple[slice, ...]) -> torch.Tensor:
        ctx.parameter, ctx.index = parameter, index
        return parameter[index]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: torch.Tensor) -> Tuple[None, None]:
        parameter = ctx.parameter
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad[ctx.index].add_(grad)
        return None, None


def first_channels(parameter: torch.Tensor, *channels: int) -> torch.Tensor:
    """The first channels of a parameter, along its first dimensions.

    The gradient of an ordinary slice is as large as the parameter and zero
    outside of the slice. Making one for each layer and adding it up would
    cost a small sub-network more than its own weights do. Here, a backward
    pass adds to the slice of ``parameter.grad``. So ``torch.autograd.grad``,
    which leaves ``.grad`` alone, cannot be asked about such a parameter.
    A parameter with hooks gets an ordinary slice, as hooks see gradients.

    Args:
        parameter (Tensor): The parameter.
        *channels (int): How many channels to use along each dimension.

    Returns:
        Tensor: A view, or the parameter itself where all of it is used.
    """
    if parameter.shape[:len(channels)] == channels:
        return parameter
    index = tuple(map(slice, channels))
    # What is no leaf, as under a parametrization, has no .grad to add to.
    if torch.is_grad_enabled() and parameter.requires_grad \
            and parameter.is_leaf and not parameter._backward_hooks:
        return _FirstChannels.apply(parameter, index)
    return parameter[index]


def check_channels(layer: nn.Module, what: str, channels: int,
                   limit: int) -> None:
    """Refuse a number of channels that a layer does not have.

    Raises:
        ValueError: If it is not in [1, limit].
    """
    if not 1 <= channels <= limit:
        raise ValueError(f'{channels} {what} channels cannot be active in '
                         f'{type(layer).__name__}: allowed are 1 to {limit}')

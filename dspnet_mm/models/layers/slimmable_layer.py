# Copyright (c) The dspnet_mm authors. All rights reserved.
from typing import Dict, Optional, Tuple

import torch
from torch import nn


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
        self.active_out, self.active_in = self.weight.shape[:2]

    def set_active(self, in_channels: int, out_channels: int) -> None:
        """Use the first channels only, from now on.

        Args:
            in_channels (int): Channels of the input, at least 1.
            out_channels (int): Channels of the output, at least 1.

        Raises:
            ValueError: If the layer has fewer.
        """
        check_channels(self, 'output', out_channels, self.weight.shape[0])
        check_channels(self, 'input', in_channels, self.weight.shape[1])
        self.active_in, self.active_out = in_channels, out_channels

    def active_parameters(self) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
        """Views of the weight and the bias."""
        weight = self.weight[:self.active_out, :self.active_in]
        bias = None if self.bias is None else self.bias[:self.active_out]
        return weight, bias

    def plain_state(self) -> Dict[str, torch.Tensor]:
        """See :meth:`SlimmableLayer.plain_state`."""
        weight, bias = self.active_parameters()
        # Copies, not views: a file with views would hold the whole supernet.
        state = dict(weight=weight.detach().clone().contiguous())
        if bias is not None:
            state['bias'] = bias.detach().clone()
        return state


def check_channels(layer: nn.Module, what: str, channels: int,
                   limit: int) -> None:
    """Refuse a number of channels that a layer does not have.

    Raises:
        ValueError: If it is not in [1, limit].
    """
    if not 1 <= channels <= limit:
        raise ValueError(f'{channels} {what} channels cannot be active in '
                         f'{type(layer).__name__}: allowed are 1 to {limit}')

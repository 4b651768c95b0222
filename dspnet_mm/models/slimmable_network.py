# Copyright (c) The dspnet_mm authors. All rights reserved.
"""The one place where a sub-network is activated."""
from contextlib import contextmanager
from typing import Dict, Iterator, List, Optional

import torch
from torch import nn

from dspnet_mm.errors import InputError
from dspnet_mm.subnet import ResNetFamily, Subnet
from .layers import SlimmableLayer, SlimmableWeight


class SlimmableNetwork:
    """A network of slimmable layers that can become any of its sub-networks.

    Subclasses set ``family`` and ``switchable_bn`` and implement
    :meth:`_activate_layers`. Use :func:`activate` rather than
    :meth:`set_active_subnet`: it cannot forget to go back.
    """
    family: ResNetFamily
    switchable_bn: bool
    active_subnet: Subnet

    def set_active_subnet(self, subnet: Subnet) -> None:
        """Compute as that sub-network from now on.

        Args:
            subnet (Subnet): A member of the family.

        Raises:
            InputError: If it is no member, or batch norm is switchable and
                it is not a DN.
        """
        # It takes a while: every layer is told.
        if self.__dict__.get('active_subnet') == subnet:
            return
        self.check_subnet(subnet)
        # Whatever ends it half way, it will not count as done.
        self.active_subnet = None
        self._activate_layers(subnet)
        self.active_subnet = subnet

    def check_subnet(self, subnet: Subnet) -> None:
        """Refuse a sub-network that it cannot compute as.

        Args:
            subnet (Subnet): Any sub-network.

        Raises:
            InputError: If it is no member, or batch norm is switchable and
                it is not a DN.
        """
        self.family.check_member(subnet, f'sub-network {subnet}')
        if self.switchable_bn and subnet not in self.family.desired.values():
            raise InputError(
                f'{subnet} is no desired network, and with switchable_bn only '
                'these have batch norms: give one of '
                f'{", ".join(self.family.desired)}')

    def _activate_layers(self, subnet: Subnet) -> None:
        """Tell each layer that the sub-network uses its active channels."""
        raise NotImplementedError

    def _private_index(self, subnet: Subnet) -> int:
        """Whose private batch norm parameters the sub-network uses."""
        if not self.switchable_bn:
            return 0
        return list(self.family.desired.values()).index(subnet)

    def active_layers(self) -> Dict[str, SlimmableLayer]:
        """The slimmable layers that the active sub-network uses, by name."""
        return {
            name: layer
            for name, layer in self.named_modules()
            if isinstance(layer, SlimmableLayer)
        }

    def plain_state(self) -> Dict[str, torch.Tensor]:
        """The state of the plain network that computes the same.

        Returns:
            dict[str, Tensor]: Copies of the active slices.
        """
        return {
            f'{name}.{key}': tensor
            for name, layer in self.active_layers().items()
            for key, tensor in layer.plain_state().items()
        }

    def active_weights(self) -> List[torch.Tensor]:
        """The active slices of all parameters, without gradient.

        Returns:
            list[Tensor]: In the layers' order; views where the active
            channels are the first.
        """
        return [
            tensor for layer in self.active_layers().values()
            for tensor in layer.active_weights().values()
        ]

    def active_views(
        self,
        of: Optional[Dict[nn.Parameter, torch.Tensor]] = None
    ) -> List[torch.Tensor]:
        """See :meth:`SlimmableLayer.active_views`, in the layers' order."""
        return [
            view for layer in self.active_layers().values()
            for view in layer.active_views(of)
        ]

    def copy_subnet(self, source: Subnet, destination: Subnet) -> None:
        """Overwrite a sub-network's weights with another's of its size.

        Args:
            source (Subnet): Whose weights are copied.
            destination (Subnet): Where to. What both have stays.
        """
        with activate(source, self):
            weights = [{
                name: tensor.clone()
                for name, tensor in layer.active_weights().items()
            } for layer in self.active_layers().values()]
        with activate(destination, self):
            layers = self.active_layers().values()
            for layer, values in zip(layers, weights):
                layer.write_weights(values)

    def start_as(self, subnet: Subnet) -> None:
        """Let each sub-network that holds another begin as that one.

        Its outputs' first channels become those of the other: nothing leads
        from channels that only it has to channels of both. What it has alone
        stays at random and learns as soon as it is trained.

        Args:
            subnet (Subnet): The one that others begin as.
        """
        with activate(subnet, self):
            for layer in self.active_layers().values():
                if isinstance(layer, SlimmableWeight):
                    layer.cut_inactive_inputs()


def slimmable_norm_cfg(family: ResNetFamily, switchable_bn: bool,
                       sync_bn: bool) -> dict:
    """The config of a slimmable network's batch norm layers."""
    return dict(
        type='SlimmableBN',
        num_private=len(family.desired) if switchable_bn else 0,
        sync=sync_bn)


@contextmanager
def activate(subnet: Subnet, *networks: SlimmableNetwork) -> Iterator[None]:
    """Let slimmable networks compute as a sub-network inside of a block.

    What was active before is active again behind the block, also where an
    exception ends it. Blocks may be nested. A backward pass belongs into the
    block as well, since checkpointed activations are computed again in it.

    Args:
        subnet (Subnet): The sub-network.
        networks (SlimmableNetwork): The networks, e.g. backbone and neck.
    """
    before = [network.active_subnet for network in networks]
    try:
        for network in networks:
            network.set_active_subnet(subnet)
        yield
    finally:
        for network, previous in zip(networks, before):
            network.set_active_subnet(previous)

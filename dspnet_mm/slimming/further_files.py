# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Files of other formats, which exports write on demand."""
import json
import os
from abc import ABC, abstractmethod
from typing import Any, Dict, List, Tuple

import torch
from packaging.version import Version
from torch import nn
from torchvision.models import resnet
from torchvision.models.feature_extraction import create_feature_extractor

from dspnet_mm import compat
from dspnet_mm.errors import InputError, VerificationError
from dspnet_mm.subnet import ResNetFamily, Subnet
from .plain_file import TOLERANCE, PlainNetwork, save_tensors

# ONNX Runtime fuses batch norms into convolutions, which rounds differently:
# relative to the largest output (our choice).
ONNX_TOLERANCE = 1e-4
# From there on its ResNet can be told each stage's width.
_OLDEST_TIMM = '1.0.8'


class FurtherFile(ABC):
    """A kind of file that is written beside ``NAME.pth`` on demand."""
    suffix: str

    def check_installed(self) -> None:
        """Look for the packages that the file is made and verified with.

        Raises:
            InputError: If one is missing.
        """

    def check_subnet(self, family: ResNetFamily, name: str,
                     subnet: Subnet) -> None:
        """Look whether such a file can hold a sub-network.

        Args:
            family (ResNetFamily): The family of sub-networks.
            name (str): What the sub-network's files are called.
            subnet (Subnet): The sub-network.

        Raises:
            InputError: If it cannot.
        """

    @abstractmethod
    def write(self, network: PlainNetwork, images: torch.Tensor,
              path: str) -> Dict[str, Any]:
        """Write the file, and verify what was written.

        Args:
            network (PlainNetwork): The exported network, on the CPU.
            images (Tensor): What outputs are compared on.
            path (str): The file.

        Returns:
            dict: What ``subnets.json`` says of it.

        Raises:
            VerificationError: If it does not hold the network.
        """


class _LastOutput(nn.Module):
    """A backbone that returns the feature map of its last stage alone."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.backbone(images)[-1]


class _OnnxFile(FurtherFile):
    suffix = '.onnx'

    def check_installed(self) -> None:
        try:
            import onnxruntime  # noqa: F401
        except ImportError:
            raise InputError('--onnx needs onnxruntime for verification: run '
                             'pip install onnx onnxruntime')

    @torch.no_grad()
    def write(self, network: PlainNetwork, images: torch.Tensor,
              path: str) -> Dict[str, Any]:
        import onnxruntime
        plain = _LastOutput(network.backbone).eval()
        torch.onnx.export(
            plain,
            images[:2],
            path,
            opset_version=13,
            input_names=['images'],
            output_names=['features'],
            dynamic_axes=dict(images={0: 'batch'}, features={0: 'batch'}),
            **compat.onnx_export_kwargs())
        session = onnxruntime.InferenceSession(
            path, providers=['CPUExecutionProvider'])
        output = torch.from_numpy(
            session.run(None, dict(images=images.numpy()))[0])
        expected = plain(images)
        difference = float((output - expected).abs().max())
        if not difference <= ONNX_TOLERANCE * max(1.,
                                                  float(expected.abs().max())):
            raise _failed(
                path, f'ONNX Runtime differs by {difference:.3g} from PyTorch')
        return dict(onnx_max_abs_difference=difference)


class _LibraryFile(FurtherFile):
    """Weights with the names of another library's ResNet.

    They are those of OpenMMLab's, but for the classifier, which is left out.
    """
    library: str
    # Channels of the first stages, which one cannot choose.
    fixed_channels: Tuple[int, ...]
    fixed_in_channels = True

    @property
    def suffix(self) -> str:
        return f'.{self.library}.pth'

    def check_subnet(self, family: ResNetFamily, name: str,
                     subnet: Subnet) -> None:
        found = []
        if family.stem != 'imagenet':
            found.append(f"the stem {family.stem!r} (allowed is 'imagenet')")
        if self.fixed_in_channels and family.in_channels != 3:
            found.append(
                f'images of {family.in_channels} channels (allowed is 3)')
        fixed = self.fixed_channels
        channels = family.inner_channels(subnet)[:len(fixed)]
        if channels != fixed:
            where = 'stages' if len(fixed) > 1 else 'a first stage'
            found.append(f'{where} of {", ".join(map(str, channels))} '
                         f'channels (allowed is {", ".join(map(str, fixed))})')
        if found:
            raise InputError(
                f'{name} ({subnet}) cannot be a ResNet of {self.library}: it '
                f'has {" and ".join(found)}; choose other sub-networks, or '
                f'leave {self.library} out of --format')

    @torch.no_grad()
    def write(self, network: PlainNetwork, images: torch.Tensor,
              path: str) -> Dict[str, Any]:
        save_tensors(dict(network.backbone.state_dict()), path)
        arguments = self.arguments(network)
        # Everything as a user would do it.
        built = self.build(**arguments)
        try:
            built.load_state_dict(
                torch.load(path, weights_only=True), strict=True)
        except RuntimeError as error:
            reason = ' '.join(str(error).split())
            raise _failed(path, f'{self.library} does not load it ({reason})')
        output = self.features(built.eval(), images)
        expected = network.backbone(images)[-1]
        if output.shape != expected.shape:
            raise _failed(
                path, f"{self.library}'s feature map is of the shape "
                f'{tuple(output.shape)} instead of {tuple(expected.shape)}')
        difference = float((output - expected).abs().max())
        if not difference <= TOLERANCE:
            raise _failed(
                path, f'{self.library} differs by {difference:.3g} from the '
                f'plain network, more than {TOLERANCE:g}')
        return {
            self.library: arguments,
            f'{self.library}_max_abs_difference': difference
        }

    @abstractmethod
    def arguments(self, network: PlainNetwork) -> Dict[str, Any]:
        """What :meth:`build` makes the library's network of."""

    @abstractmethod
    def build(self, **arguments) -> nn.Module:
        """Build the library's network, without a classifier."""

    @abstractmethod
    def features(self, built: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """The last stage's feature map."""


class _TorchvisionFile(_LibraryFile):
    library = 'torchvision'
    fixed_channels = (64, 128, 256, 512)

    def arguments(self, network: PlainNetwork) -> Dict[str, Any]:
        return dict(
            block=network.backbone.block.__name__,
            layers=network.meta['depths'])

    def build(self, block: str, layers: List[int]) -> nn.Module:
        built = resnet.ResNet(getattr(resnet, block), layers)
        built.fc = nn.Identity()
        return built

    def features(self, built: nn.Module, images: torch.Tensor) -> torch.Tensor:
        return create_feature_extractor(built, ['layer4'])(images)['layer4']


class _TimmFile(_LibraryFile):
    library = 'timm'
    # Those of its stem, which has the first stage's width in our family.
    fixed_channels = (64, )
    fixed_in_channels = False

    def check_installed(self) -> None:
        needed = f'run pip install "timm>={_OLDEST_TIMM}"'
        try:
            import timm
        except (ImportError, TypeError):
            # The latter on Python 3.8, for which timm declares itself fit.
            raise InputError('--format timm needs timm, and Python 3.9 or '
                             f'newer: {needed}')
        if Version(timm.__version__) < Version(_OLDEST_TIMM):
            raise InputError(f'timm {timm.__version__} is installed, --format '
                             f'timm needs {_OLDEST_TIMM} or newer: {needed}')

    def arguments(self, network: PlainNetwork) -> Dict[str, Any]:
        backbone = network.backbone
        names = dict(BasicBlock='resnet18', Bottleneck='resnet50')
        return dict(
            model_name=names[backbone.block.__name__],
            num_classes=0,
            in_chans=backbone.conv1.in_channels,
            layers=network.meta['depths'],
            channels=[
                channels // backbone.expansion
                for channels in network.meta['out_channels']
            ])

    def build(self, **arguments) -> nn.Module:
        import timm
        return timm.create_model(**arguments)

    def features(self, built: nn.Module, images: torch.Tensor) -> torch.Tensor:
        return built.forward_features(images)


class _SafetensorsFile(FurtherFile):
    suffix = '.safetensors'

    def check_installed(self) -> None:
        try:
            import safetensors  # noqa: F401
        except ImportError:
            raise InputError('--safetensors needs safetensors: run pip '
                             'install safetensors')

    def write(self, network: PlainNetwork, images: torch.Tensor,
              path: str) -> Dict[str, Any]:
        import safetensors.torch
        state = network.backbone.state_dict()
        metadata = dict(meta=json.dumps(network.meta))
        # Not by save_file, which does not say that a disk is full.
        with open(path, 'wb') as file:
            file.write(safetensors.torch.save(state, metadata))
        with safetensors.safe_open(path, framework='pt') as file:
            found = {name: file.get_tensor(name) for name in file.keys()}
            if file.metadata() != metadata:
                raise _failed(path, 'it holds another meta')
        if _bits(found) != _bits(state):
            raise _failed(path, 'it holds other tensors')
        return {}


def _bits(state: Dict[str, torch.Tensor]) -> Dict[str, tuple]:
    return {
        name: (tensor.dtype, tensor.shape, tensor.numpy().tobytes())
        for name, tensor in state.items()
    }


def _failed(path: str, reason: str) -> VerificationError:
    return VerificationError(f'{os.path.basename(path)} failed verification: '
                             f'{reason}; nothing was written')


FURTHER_FILES: Dict[str, FurtherFile] = dict(
    onnx=_OnnxFile(),
    torchvision=_TorchvisionFile(),
    timm=_TimmFile(),
    safetensors=_SafetensorsFile())

# Copyright (c) The dspnet_mm authors. All rights reserved.
from typing import List, Sequence, Tuple

import torch
from mmselfsup.models.utils import SelfSupDataPreprocessor
from mmselfsup.registry import MODELS
from torch import nn

from dspnet_mm.errors import InputError
from .batch_crop import BatchRandomResizedCrop

# Besides those of kornia.
_TRANSFORMS = dict(BatchRandomResizedCrop=BatchRandomResizedCrop)


@MODELS.register_module()
class AugmentingDataPreprocessor(SelfSupDataPreprocessor):
    """Makes the views of a whole batch at once, on the device that trains.

    The parameters of each transform are drawn for each image, except for the
    order of ColorJitter's four parts, which is drawn for each batch. They
    are drawn on the CPU: a seed gives the same ones on any device.

    The data loader gives either one image of each, of one size, for all
    views, or an image for each view, e.g. where images differ in size and
    have to be cropped first.

    Args:
        views (Sequence[Sequence[dict]]): For each view, the transforms of
            ``kornia.augmentation`` as configs, e.g. dict(
            type='RandomHorizontalFlip', p=0.5), or
            :class:`BatchRandomResizedCrop`. They work on RGB in [0, 1].
        **kwargs: Further arguments of MMSelfSup's SelfSupDataPreprocessor:
            ``mean``, ``std`` (in units of 0 to 255), and ``bgr_to_rgb``,
            which has to be True.

    Raises:
        InputError: If a transform does not exist or does not take its
            arguments, or the network does not take RGB.
    """

    def __init__(self, views: Sequence[Sequence[dict]], **kwargs) -> None:
        super().__init__(**kwargs)
        if not self._channel_conversion:
            raise InputError('the transforms work on RGB and images are loaded'
                             ' as BGR: set data_preprocessor.bgr_to_rgb=True')
        self.views = nn.ModuleList(
            nn.Sequential(*map(_build, view)) for view in views)

    @torch.no_grad()
    def forward(self,
                data: dict,
                training: bool = False) -> Tuple[List[torch.Tensor], list]:
        """Make the views and normalise them.

        Args:
            data (dict): ``inputs``, a list of uint8 tensors of shape (N, 3,
                H, W), and ``data_samples``.
            training (bool): Whether to make views; else images are only
                normalised. Defaults to False.

        Returns:
            tuple[list[Tensor], list]: Views of shape (N, 3, H', W') and the
            data samples.

        Raises:
            InputError: If there are neither one nor as many inputs as views.
        """
        if not training:
            return super().forward(data, training)
        inputs = self.cast_data(data['inputs'])
        if len(inputs) not in (1, len(self.views)):
            raise InputError(f'{len(inputs)} images of each are given for '
                             f'{len(self.views)} views: give 1, or as many')
        rgb = [images.flip(1).float() / 255 for images in inputs]
        if len(rgb) == 1:
            rgb = rgb * len(self.views)
        return [
            self._normalise(view(images))
            for view, images in zip(self.views, rgb)
        ], data['data_samples']

    def _normalise(self, images: torch.Tensor) -> torch.Tensor:
        images = images * 255
        if self._enable_normalize:
            images = (images - self.mean) / self.std
        return images


def _build(cfg: dict) -> nn.Module:
    # It takes two seconds that most commands have no use for.
    from kornia import augmentation
    cfg = dict(cfg)
    name = cfg.pop('type')
    transform = _TRANSFORMS.get(name) or getattr(augmentation, name, None)
    if not isinstance(transform, type) or not issubclass(transform, nn.Module):
        raise InputError(f'{name!r} is neither BatchRandomResizedCrop nor a '
                         'transform of kornia.augmentation')
    try:
        return transform(**cfg)
    except TypeError as error:
        raise InputError(f'{name} does not take its arguments ({error})')

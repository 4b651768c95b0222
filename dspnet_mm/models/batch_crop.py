# Copyright (c) The dspnet_mm authors. All rights reserved.
import math
from typing import Sequence, Tuple

import torch
from torch import nn
from torch.nn import functional as F

from dspnet_mm.errors import InputError

# How often a crop that fits is looked for, as in torchvision.
_ATTEMPTS = 10


class BatchRandomResizedCrop(nn.Module):
    """Crops each image of a batch at random and resizes the crops.

    Crops are distributed as torchvision's RandomResizedCrop draws them, and
    resized as OpenCV does bilinearly, which is what MMSelfSup uses. kornia's
    transform of that name does neither (0.7.3): its crops never have the
    whole height or width of an image, and pixels of a crop's border come to
    lie on those of the output, which magnifies more. Both blur.

    Args:
        size (Sequence[int]): Height and width of the output, in pixels.
        scale (Sequence[float]): Least and largest area of a crop, as a
            fraction of the image's, in (0, 1]. Defaults to (0.08, 1.0).
        ratio (Sequence[float]): Least and largest width of a crop as a
            multiple of its height. Defaults to (3 / 4, 4 / 3).

    Raises:
        InputError: If an argument is out of its range.
    """

    def __init__(
        self,
        size: Sequence[int],
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3)
    ) -> None:
        super().__init__()
        if len(size) != 2 or min(size) < 1:
            raise InputError(f'size={size} is not allowed: give height and '
                             'width, both at least 1')
        if not 0 < scale[0] <= scale[1] <= 1:
            raise InputError(f'scale={scale} is not allowed: give the least '
                             'and the largest area, in (0, 1]')
        if not 0 < ratio[0] <= ratio[1]:
            raise InputError(f'ratio={ratio} is not allowed: give the least '
                             'and the largest ratio, above 0')
        self.size = tuple(size)
        self.scale = tuple(scale)
        self.ratio = tuple(ratio)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Crop and resize.

        Args:
            images (Tensor): Of shape (N, C, H, W), floating point.

        Returns:
            Tensor: Of shape (N, C, *size).
        """
        boxes = self.draw(len(images), *images.shape[-2:])
        return resized_crops(images, boxes.to(images.device), self.size)

    def draw(self, number: int, height: int, width: int) -> torch.Tensor:
        """Draw crops, on the CPU: a seed gives the same ones on any device.

        Args:
            number (int): How many.
            height (int): Height of the images, in pixels.
            width (int): Width of the images, in pixels.

        Returns:
            Tensor: Whole numbers of shape (number, 4): top, left, height and
            width of each crop, in pixels.
        """
        draws = torch.rand(4, number, _ATTEMPTS, dtype=torch.float64)
        low, high = self.scale
        areas = (low + draws[0] * (high - low)) * height * width
        low, high = map(math.log, self.ratio)
        ratios = torch.exp(low + draws[1] * (high - low))
        heights = (areas / ratios).sqrt().round()
        widths = (areas * ratios).sqrt().round()
        tops = (draws[2] * (height - heights + 1)).floor()
        lefts = (draws[3] * (width - widths + 1)).floor()
        boxes = torch.stack([tops, lefts, heights, widths], dim=-1).long()

        fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (
            widths <= width)
        first = fits.int().argmax(dim=1)
        drawn = boxes[torch.arange(number), first]
        centre = torch.tensor(self._centre(height, width))
        return torch.where(fits.any(dim=1, keepdim=True), drawn, centre)

    def _centre(self, height: int, width: int) -> Tuple[int, int, int, int]:
        """The largest crop in the middle whose ratio is allowed."""
        low, high = self.ratio
        crop_height = min(height, round(width / low))
        crop_width = min(width, round(height * high))
        return ((height - crop_height) // 2, (width - crop_width) // 2,
                crop_height, crop_width)


def resized_crops(images: torch.Tensor, boxes: torch.Tensor,
                  size: Sequence[int]) -> torch.Tensor:
    """Crop each image by a box of its own, and resize bilinearly.

    Args:
        images (Tensor): Of shape (N, C, H, W), floating point.
        boxes (Tensor): Of shape (N, 4): top, left, height and width, in
            pixels, inside of the images.
        size (Sequence[int]): Height and width of the output, in pixels.

    Returns:
        Tensor: Of shape (N, C, *size).
    """
    # grid_sample takes x before y, each from -1 to 1, border to border.
    grids = [
        _positions(*boxes[:, axis::2].T, length, whole)
        for axis, length, whole in zip((0, 1), size, images.shape[-2:])
    ]
    rows, columns = grids[0][:, :, None], grids[1][:, None, :]
    grid = torch.stack(torch.broadcast_tensors(columns, rows), dim=-1)
    return F.grid_sample(
        images, grid.to(images.dtype), mode='bilinear', align_corners=False)


def _positions(begin: torch.Tensor, extent: torch.Tensor, length: int,
               whole: int) -> torch.Tensor:
    """Where the output's pixels lie in the images, along one axis.

    Between the centres of the crop's outer pixels: what lies outside of the
    crop is not seen.
    """
    begin, extent = begin[:, None], extent[:, None]
    centres = (torch.arange(length, device=begin.device) + 0.5) / length
    inside = torch.minimum((centres * extent).clamp(min=0.5), extent - 0.5)
    return (begin + inside) / whole * 2 - 1

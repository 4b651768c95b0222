# Copyright (c) The dspnet_mm authors. All rights reserved.
from .digits import EmbeddedDigits
from .image_folder import ImageFolder
from .pretrain_dataset import PretrainDataset
from .sampler import Draw, ResumableSampler
from .transforms import LoadImage, UnreadableImage

__all__ = [
    'Draw', 'EmbeddedDigits', 'ImageFolder', 'LoadImage', 'PretrainDataset',
    'ResumableSampler', 'UnreadableImage'
]

# Copyright (c) The dspnet_mm authors. All rights reserved.
from .clusters import ClusterBatchSampler, read_clusters, write_clusters
from .digits import EmbeddedDigits
from .image_folder import ImageFolder
from .pretrain_dataset import PretrainDataset
from .sampler import Draw, Part, ResumableSampler
from .transforms import LoadImage, UnreadableImage

__all__ = [
    'ClusterBatchSampler', 'Draw', 'EmbeddedDigits', 'ImageFolder',
    'LoadImage', 'Part', 'PretrainDataset', 'ResumableSampler',
    'UnreadableImage', 'read_clusters', 'write_clusters'
]

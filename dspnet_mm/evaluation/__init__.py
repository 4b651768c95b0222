# Copyright (c) The dspnet_mm authors. All rights reserved.
from .images import ImageFormat, evaluation_dataset, iterate, pick
from .probes import extract_features, knn_accuracy, linear_accuracy

__all__ = [
    'ImageFormat', 'evaluation_dataset', 'extract_features', 'iterate',
    'knn_accuracy', 'linear_accuracy', 'pick'
]

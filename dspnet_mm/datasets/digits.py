# Copyright (c) The dspnet_mm authors. All rights reserved.
from typing import List, Optional, Sequence

import numpy as np
from mmselfsup.registry import DATASETS
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, train_test_split

from dspnet_mm.errors import InputError
from .pretrain_dataset import PretrainDataset

_FOLDS = 3


@DATASETS.register_module()
class EmbeddedDigits(PretrainDataset):
    """Scans of handwritten digits that need no download.

    scikit-learn carries them: 1,797 images of 8x8 pixels, the test part of
    UCI's "Optical Recognition of Handwritten Digits". They are split once
    and for all into 1,297 for training and 500 for testing, each class in
    proportion (our choice). The pipeline receives ``img``, an uint8 array of
    shape (8, 8, 3) with three equal channels, and ``gt_label`` from 0 to 9.

    Args:
        split (str): 'train' or 'test'. Defaults to 'train'.
        fold (int, optional): For cross-validation: which third of all images,
            from 0 to 2, the test part is, each class in proportion, instead
            of the split above. Defaults to None.
        **kwargs: Further arguments of :class:`PretrainDataset`, e.g.
            ``pipeline``.

    Raises:
        InputError: If there is no such split or fold.
    """
    METAINFO = dict(classes=tuple(str(digit) for digit in range(10)))

    def __init__(self,
                 split: str = 'train',
                 fold: Optional[int] = None,
                 **kwargs) -> None:
        if split not in ('train', 'test'):
            raise InputError(f'split={split!r} does not exist: allowed are '
                             "'train' and 'test'")
        if fold not in (None, *range(_FOLDS)):
            raise InputError(f'fold={fold!r} does not exist: allowed are None '
                             f'and 0 to {_FOLDS - 1}')
        self.split = split
        self.fold = fold
        # So few need no memory that processes share; to move them there,
        # MMEngine collects garbage, which takes longer than all else.
        kwargs.setdefault('serialize_data', False)
        super().__init__(**kwargs)

    def load_data_list(self) -> List[dict]:
        """See MMEngine's BaseDataset."""
        images, labels = load_digits(return_X_y=True)
        # The scans count 0 to 16 inked pixels in each cell.
        images = np.round(images * (255 / 16)).astype(np.uint8)
        images = images.reshape(-1, 8, 8, 1).repeat(3, axis=-1)
        train, test = self._split(labels)
        indices = dict(train=train, test=test)[self.split]
        return [dict(img=images[i], gt_label=int(labels[i])) for i in indices]

    def _split(self, labels: np.ndarray) -> Sequence[np.ndarray]:
        """The indices of the training and of the test images."""
        if self.fold is None:
            return train_test_split(
                np.arange(len(labels)),
                test_size=500,
                stratify=labels,
                random_state=0)
        folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
        return list(folds.split(labels, labels))[self.fold]

# Copyright (c) The dspnet_mm authors. All rights reserved.
import os
from typing import List

from mmengine.dataset import BaseDataset
from mmselfsup.registry import DATASETS

from dspnet_mm.errors import InputError

EXTENSIONS = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff',
              '.webp')


@DATASETS.register_module()
class ImageFolder(BaseDataset):
    """All images below a folder, without labels.

    How they are distributed over sub-folders does not matter. (For labels,
    MMClassification's CustomDataset reads a folder per class.)

    Args:
        data_root (str): The folder.
        **kwargs: Further arguments of MMEngine's BaseDataset, e.g.
            ``pipeline``.

    Raises:
        InputError: If the folder does not exist or holds no image.
    """

    def __init__(self, data_root: str, **kwargs) -> None:
        if not os.path.isdir(data_root):
            raise InputError(f'data_root={data_root!r} is not a folder: give '
                             'the folder that holds the images, e.g. by '
                             '--cfg-options train_dataloader.dataset.'
                             'data_root=FOLDER')
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> List[dict]:
        """See MMEngine's BaseDataset."""
        paths = sorted(
            os.path.join(folder, name)
            for folder, _, names in os.walk(self.data_root) for name in names
            if name.lower().endswith(EXTENSIONS))
        if not paths:
            raise InputError(f'{self.data_root} holds no image: looked for '
                             f'{", ".join(EXTENSIONS)} in it and below')
        return [dict(img_path=path) for path in paths]

# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Making views, ours and as MMSelfSup's BYOL does: what engine.py compares."""
import os
from typing import Callable, Dict, List, Tuple

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmselfsup.registry import MODELS
from PIL import Image
from sklearn.datasets import load_sample_images

UPSTREAM = "_base_ = 'mmselfsup::selfsup/_base_/datasets/imagenet_byol.py'"


def photographs(folder: str, small: bool) -> int:
    """Write JPEG files of the two photographs that scikit-learn brings.

    Args:
        folder (str): Where to.
        small (bool): Whether to cut them into 520 files of 32x32 pixels;
            else they are written whole, 640x427, twenty times each.

    Returns:
        int: How many files there are.
    """
    for number, pixels in enumerate(load_sample_images().images):
        image = Image.fromarray(pixels)
        parts = [image] * 20
        if small:
            parts = [
                image.crop((left, top, left + 32, top + 32))
                for left in range(0, image.width - 31, 32)
                for top in range(0, image.height - 31, 32)
            ]
        for index, part in enumerate(parts):
            part.save(os.path.join(folder, f'{number}_{index:03}.jpg'))
    return len(os.listdir(folder))


def maker(folder: str, pipeline: List[dict], preprocessor: dict,
          small: bool) -> Callable:
    """What makes the views of all images of a folder some times.

    As in training: a process of the data loader, then the preprocessor.
    """
    loader = Runner.build_dataloader(
        dict(
            batch_size=260 if small else 20,
            num_workers=1,
            persistent_workers=True,
            sampler=dict(type='ResumableSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            dataset=dict(
                type='ImageFolder', data_root=folder, pipeline=pipeline)),
        seed=0)
    preprocessor = MODELS.build(preprocessor)

    def make() -> None:
        # So often that the start of the loader's process is nothing of it.
        for _ in range(8 if small else 2):
            for data in loader:
                preprocessor(data, True)
        # Its time is counted when it ends, and its end waited for.
        loader._iterator._shutdown_workers()
        loader._iterator = None

    return make


def makers(config: str, folder: str,
           small: bool) -> Dict[str, Tuple[Callable, Callable]]:
    """Our maker of views and MMSelfSup's, with the same transforms.

    Args:
        config (str): The config whose views are compared.
        folder (str): Where :func:`photographs` wrote to.
        small (bool): Whether the images are small. Then there are two
            comparisons, without the blur and the solarization that a config
            for small images leaves out, and with them.

    Returns:
        dict[str, tuple]: By the comparison's name, ours and theirs.
    """
    init_default_scope('mmselfsup')
    cfg = Config.fromfile(config)
    ours = cfg.model.data_preprocessor
    pipeline = cfg.train_dataloader.dataset.pipeline
    theirs = {key: ours[key] for key in ('mean', 'std', 'bgr_to_rgb')}
    theirs['type'] = 'SelfSupDataPreprocessor'
    upstream = Config.fromstring(UPSTREAM, '.py').train_pipeline
    for view in upstream[1].transforms:
        view[0].size = cfg.model.family.input_size

    def pair() -> Tuple[Callable, Callable]:
        return (maker(folder, pipeline, ours,
                      small), maker(folder, upstream, theirs, small))

    if not small:
        return dict(byol=pair())
    for view, prob, solarized in zip(ours.views, (1.0, 0.1), (0.0, 0.2)):
        view += [
            dict(
                type='RandomGaussianBlur',
                kernel_size=(13, 13),
                sigma=(0.1, 2.0),
                p=prob),
            dict(
                type='RandomSolarize',
                thresholds=(0.5, 0.5),
                additions=0.0,
                p=solarized),
        ]
    compared = dict(byol=pair())
    for view in [*ours.views, *upstream[1].transforms]:
        del view[-2:]
    compared['as_configured'] = pair()
    return compared

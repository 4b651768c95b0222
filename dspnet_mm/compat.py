# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Defects and clashes of the packages below us, each met here.

Nothing else in the project works around a dependency. Two upstream defects
have no place in code: MMSelfSup's ``tools/train.py`` derives a work
directory from the second part of the config's path (so every config sets
``work_dir``), and CosineEMA fails outside of a runner and copies buffers by
their order (so ``SupernetAlgorithm`` averages by itself).
"""
import inspect
from importlib import metadata
from typing import Dict, Optional

import numpy as np
from packaging.specifiers import SpecifierSet

# What MMSelfSup 1.0.0 asserts, and what MMDetection and MMSegmentation need
# beside it. The first name of a row that is installed counts.
REQUIRED_VERSIONS = {
    ('mmengine', ): '>=0.10.0,<1.0',
    ('mmcv', 'mmcv-lite'): '>=2.0.0rc4,<2.1',
    ('mmcls', ): '>=1.0.0rc6,<1.1',
    ('mmselfsup', ): '>=1.0.0,<1.1',
}
OPTIONAL_VERSIONS = {
    ('mmdet', ): '>=3.0.0,<3.4',
    ('mmsegmentation', ): '>=1.0.0,<1.3',
}


def _installed_version(name: str) -> Optional[str]:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_versions() -> None:
    """Say which installed packages do not go together.

    The toolboxes assert the same, each about its neighbours only and without
    saying how to mend it.

    Raises:
        ImportError: Naming what was found, what is needed, and the command
            that installs it.
    """
    for names, needed in {**REQUIRED_VERSIONS, **OPTIONAL_VERSIONS}.items():
        found: Dict[str, str] = {}
        for name in names:
            version = _installed_version(name)
            if version is not None:
                found[name] = version
        if not found and names in OPTIONAL_VERSIONS:
            continue
        name, version = next(iter(found.items()), (names[0], None))
        if version is None or not SpecifierSet(needed).contains(
                version, prereleases=True):
            state = f'{name} {version}' if version else f'no {name}'
            raise ImportError(f'{state} is installed, dspnet_mm needs '
                              f'{name}{needed}: run pip install '
                              f'"{name}{needed}"')


def mend_registry_locations() -> None:
    """Let MMSelfSup's registries find loops and runners.

    MMSelfSup 1.0.0 names ``mmselfsup.engine.runner`` as their location, which
    does not exist: a config with ``type='EpochBasedTrainLoop'``, as all of its
    own, dies at mmengine >= 0.10 with "No module named". Mended upstream after
    1.0.0, in no release.
    """
    from mmselfsup import registry
    for broken in (registry.LOOPS, registry.RUNNERS,
                   registry.RUNNER_CONSTRUCTORS):
        if broken._locations == ['mmselfsup.engine.runner']:
            broken._locations = ['mmselfsup.engine']


def allow_checkpoint_classes() -> None:
    """Let PyTorch >= 2.6 load MMEngine's checkpoints.

    There ``torch.load`` takes only what is on an allow-list, and MMEngine
    0.10.7 neither puts its log buffers on it nor turns the list off: a run
    cannot be resumed ("Weights only load failed").
    """
    import torch
    if not hasattr(torch.serialization, 'add_safe_globals'):
        return
    from mmengine.logging import HistoryBuffer

    from .checkpoint import OneCycle, named_method

    # numpy 1.26 has an np._core, too, in which it is not.
    new = np.__version__ in SpecifierSet('>=2', prereleases=True)
    multiarray = (np._core if new else np.core).multiarray
    torch.serialization.add_safe_globals([
        HistoryBuffer,
        multiarray._reconstruct,
        multiarray.scalar,
        np.ndarray,
        np.dtype,
        *{type(np.dtype(kind))
          for kind in '?bhilqBHILQefd'},
        # Log buffers and schedules name methods by getattr, which must not be
        # had for anything else.
        (named_method, 'builtins.getattr'),
        (OneCycle,
         'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler')
    ])


def _adjust_hue(img: np.ndarray,
                hue_factor: float,
                backend: Optional[str] = None) -> np.ndarray:
    """Turn the hue of a BGR image by a part of the circle.

    Args:
        img (ndarray): uint8, shape (H, W, 3), BGR.
        hue_factor (float): In [-0.5, 0.5].
        backend (str, optional): Not used: both of mmcv's mean the same.
            Defaults to None.

    Returns:
        ndarray: Like ``img``.
    """
    from PIL import Image
    if not -0.5 <= hue_factor <= 0.5:
        raise ValueError(f'hue_factor={hue_factor} is not allowed: give a '
                         'value in [-0.5, 0.5]')
    rgb = Image.fromarray(np.ascontiguousarray(img[..., ::-1]))
    hsv = np.array(rgb.convert('HSV'))
    turned = hsv[..., 0].astype(np.int64) + int(hue_factor * 255)
    hsv[..., 0] = (turned % 256).astype(np.uint8)
    return np.array(Image.fromarray(hsv, 'HSV').convert('RGB'))[..., ::-1]


def mend_adjust_hue() -> None:
    """Let ColorJitter turn the hue backwards under numpy 2.

    mmcv 2.0.1 computes np.uint8 of a negative number, at which numpy 2 raises
    an OverflowError. Mended in mmcv 2.1, which MMSelfSup does not accept.
    """
    if int(np.__version__.split('.')[0]) < 2:
        return
    import mmcv
    import mmcv.image
    import mmcv.image.photometric
    from mmselfsup.datasets.transforms import processing
    for module in (mmcv, mmcv.image, mmcv.image.photometric, processing):
        module.adjust_hue = _adjust_hue


def mend_cpu_launcher() -> None:
    """Let several processes train on a machine without a GPU.

    MMEngine 0.10.7 selects a CUDA device for every process of the PyTorch
    launcher, which raises an error where there is none.
    """
    import torch
    from mmengine.dist import utils
    if torch.cuda.is_available():
        return

    def init_on_cpu(backend: str, init_backend: str = 'torch', **kwargs):
        # NCCL, the usual default, has no CPU version.
        torch.distributed.init_process_group(
            'gloo' if backend == 'nccl' else backend, **kwargs)

    utils._init_dist_pytorch = init_on_cpu


def mend_cpu_amp() -> None:
    """Let AmpOptimWrapper train on a CPU, in bfloat16.

    MMEngine 0.10.7 asserts an accelerator, although its autocast knows the
    CPU. Scaling, which bfloat16 does not need, works on GPUs alone.
    """
    import torch
    from mmengine.optim.optimizer import amp_optimizer_wrapper
    if torch.cuda.is_available():
        return

    class NoScaler(torch.cuda.amp.GradScaler):

        def __init__(self, *args, **kwargs) -> None:
            super().__init__(enabled=False)

    # It asks in the constructor alone.
    amp_optimizer_wrapper.is_cuda_available = lambda: True
    amp_optimizer_wrapper.GradScaler = NoScaler


def onnx_export_kwargs() -> Dict[str, bool]:
    """Choose the ONNX exporter that works from PyTorch 2.0 on.

    PyTorch >= 2.9 takes another one unless told not to, which needs a package
    more (onnxscript) and knows neither opset 13 nor ``dynamic_axes``.
    """
    import torch
    known = inspect.signature(torch.onnx.export).parameters
    return dict(dynamo=False) if 'dynamo' in known else {}


def apply() -> None:
    """Check the versions and meet all defects; does no harm twice."""
    check_versions()
    mend_registry_locations()
    allow_checkpoint_classes()
    mend_adjust_hue()
    mend_cpu_launcher()
    mend_cpu_amp()

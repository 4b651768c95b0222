# Copyright (c) The dspnet_mm authors. All rights reserved.
import collections
from importlib import metadata

import mmcv
import numpy as np
import pytest
import torch
from conftest import RunsCode
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmselfsup.registry import LOOPS, RUNNER_CONSTRUCTORS, RUNNERS
from packaging.requirements import Requirement

from dspnet_mm import compat

pytestmark = pytest.mark.smoke


def test_upstreams_training_loop_is_found():
    for registry in (LOOPS, RUNNERS, RUNNER_CONSTRUCTORS):
        registry.import_from_location()
    assert LOOPS.get('EpochBasedTrainLoop') is not None


@pytest.mark.skipif(
    int(np.__version__.split('.')[0]) > 1,
    reason='mmcv\'s own function fails under numpy 2')
@pytest.mark.parametrize('hue_factor', [-0.5, -0.31, -0.001, 0.0, 0.2, 0.5])
def test_our_hue_is_mmcvs(hue_factor):
    image = np.random.default_rng(0).integers(
        0, 256, (16, 16, 3), dtype=np.uint8)
    theirs = mmcv.adjust_hue(image, hue_factor, backend='pillow')
    assert (compat._adjust_hue(image, hue_factor) == theirs).all()


@pytest.mark.parametrize('found, complaint', [
    ({
        'mmcv': '2.1.0'
    }, r'mmcv 2.1.0 is installed, dspnet_mm needs mmcv>=2.0.0rc4,<2.1: '
     r'run pip install "mmcv>=2.0.0rc4,<2.1"'),
    ({
        'mmcv': None,
        'mmcv-lite': None
    }, 'no mmcv is installed.*pip install'),
    ({
        'mmdet': '2.28.0'
    }, 'mmdet 2.28.0 is installed'),
    ({
        'mmselfsup': '0.9.0'
    }, 'mmselfsup 0.9.0 is installed'),
    ({
        'mmcv': None,
        'mmcv-lite': '2.0.1'
    }, None),
    ({
        'mmdet': None,
        'mmsegmentation': None
    }, None),
])
def test_version_clashes_are_said_with_the_command(monkeypatch, found,
                                                   complaint):
    genuine = compat._installed_version
    monkeypatch.setattr(
        compat, '_installed_version', lambda name: found[name]
        if name in found else genuine(name))
    if complaint is None:
        compat.check_versions()
    else:
        with pytest.raises(ImportError, match=complaint):
            compat.check_versions()


def test_setup_and_import_demand_the_same_versions():
    declared = {}
    for text in metadata.requires('dspnet_mm'):
        requirement = Requirement(text)
        declared.setdefault(requirement.name, set()).add(requirement.specifier)
    assert {'mmengine', 'mmcls', 'mmselfsup', 'mmdet'} <= set(declared)
    for table in (compat.REQUIRED_VERSIONS, compat.OPTIONAL_VERSIONS):
        for names, needed in table.items():
            for name in names:
                for specifier in declared.get(name, ()):
                    assert str(specifier) == str(
                        Requirement(f'x{needed}').specifier), name


def test_numpys_core_is_found(monkeypatch):
    """Where cv2 has imported numpy 1.26's stub of the new one, too."""
    import cv2  # noqa: F401
    allowed = []
    monkeypatch.setattr(
        torch.serialization, 'add_safe_globals', allowed.extend, raising=False)
    compat.allow_checkpoint_classes()
    assert np.zeros(1).__reduce__()[0] in allowed


@pytest.mark.skipif(
    not hasattr(torch.serialization, 'add_safe_globals'),
    reason='PyTorch has no allow-list before 2.4')
def test_mmengines_checkpoints_load_with_weights_only(tmp_path):
    buffer = HistoryBuffer()
    buffer.update(1.5)
    path = str(tmp_path / 'checkpoint.pth')
    torch.save(dict(buffer=buffer, meta=dict(cfg=str(Config()))), path)
    assert torch.load(path, weights_only=True)['buffer'].current() == 1.5
    for owner, name in ((collections.OrderedDict, 'fromkeys'), (HistoryBuffer,
                                                                '__init__')):
        torch.save([RunsCode(getattr, owner, name)], path)
        with pytest.raises(Exception, match='getattr'):
            torch.load(path, weights_only=True)

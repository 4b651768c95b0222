# Copyright (c) The dspnet_mm authors. All rights reserved.
import glob
import os

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmselfsup.registry import MODELS, TRANSFORMS
from mmselfsup.structures import SelfSupDataSample

from dspnet_mm.models import SupernetAlgorithm

CONFIGS = sorted(
    glob.glob(os.path.join(ROOT, 'configs', 'dspnet', 'dspnet_*.py')))
NAMES = [os.path.basename(path) for path in CONFIGS]


def test_there_are_configs():
    assert len(CONFIGS) >= 4


@pytest.mark.parametrize('path', CONFIGS, ids=NAMES)
def test_a_config_parses_builds_and_trains_a_step(path):
    torch.manual_seed(0)
    cfg = Config.fromfile(path)
    stem = os.path.splitext(os.path.basename(path))[0]
    assert cfg.work_dir == f'./work_dirs/{stem}'
    assert cfg.model_wrapper_cfg.type == 'SupernetDistributed'
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    assert isinstance(model, SupernetAlgorithm)
    model.init_weights()
    # Through the config's own views, of made-up images.
    size = model.family.input_size
    image = np.random.default_rng(0).integers(
        0, 256, (size, size + 8, 3), dtype=np.uint8)
    pipeline = [
        TRANSFORMS.build(step)
        for step in cfg.train_dataloader.dataset.pipeline
        if step['type'] == 'MultiView'
    ]
    assert len(pipeline) == 1
    views = [pipeline[0](dict(img=image))['img'] for _ in range(2)]
    inputs = [
        torch.from_numpy(
            np.stack([np.ascontiguousarray(v[i])
                      for v in views])).permute(0, 3, 1, 2) for i in range(2)
    ]
    assert inputs[0].shape == (2, 3, size, size)
    data = dict(
        inputs=inputs, data_samples=[SelfSupDataSample() for _ in range(2)])
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = model.backbone.conv1.weight.clone()
    for _ in range(cfg.optim_wrapper.get('accumulative_counts', 1)):
        logged = model.train_step(data, wrapper)
        assert all(torch.isfinite(value) for value in logged.values())
    assert not torch.equal(before, model.backbone.conv1.weight)

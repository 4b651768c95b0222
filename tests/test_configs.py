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
from mmengine.runner import Runner
from mmselfsup.registry import MODELS
from PIL import Image

from dspnet_mm.models import SupernetAlgorithm

CONFIGS = sorted(
    glob.glob(os.path.join(ROOT, 'configs', 'dspnet', 'dspnet_*.py')))
NAMES = [os.path.basename(path) for path in CONFIGS]


def test_there_are_configs():
    assert len(CONFIGS) >= 4


@pytest.mark.smoke
@pytest.mark.parametrize('path', CONFIGS, ids=NAMES)
def test_a_config_parses_builds_and_trains_a_step(path, tmp_path):
    torch.manual_seed(0)
    cfg = Config.fromfile(path)
    stem = os.path.splitext(os.path.basename(path))[0]
    assert cfg.work_dir == f'./work_dirs/{stem}'
    assert cfg.model_wrapper_cfg.type == 'SupernetDistributed'
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    assert isinstance(model, SupernetAlgorithm)
    model.init_weights()
    # Through the config's own data loader, on made-up images.
    loader = cfg.train_dataloader
    if 'data_root' in loader.dataset:
        size = model.family.input_size
        pixels = np.random.default_rng(0).integers(
            0, 256, (4, size, size, 3), dtype=np.uint8)
        for number, image in enumerate(pixels):
            Image.fromarray(image).save(tmp_path / f'{number}.png')
        loader.dataset.data_root = str(tmp_path)
    loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    data = next(iter(Runner.build_dataloader(loader, seed=0)))
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = model.backbone.conv1.weight.clone()
    for _ in range(cfg.optim_wrapper.get('accumulative_counts', 1)):
        logged = model.train_step(data, wrapper)
        assert all(torch.isfinite(value) for value in logged.values())
    assert not torch.equal(before, model.backbone.conv1.weight)

# Copyright (c) The dspnet_mm authors. All rights reserved.
import glob
import math
import os

import numpy as np
import pytest
import torch
from conftest import DIGITS_CONFIG, ROOT
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner
from mmselfsup.registry import MODELS
from PIL import Image

from dspnet_mm.models import SupernetAlgorithm
from dspnet_mm.models.backbones import build_family

CONFIGS = sorted(
    path for method in ('dspnet', 'sdr', 'slimclr', 'us3l')
    for path in glob.glob(os.path.join(ROOT, 'configs', method, '*.py')))
NAMES = [os.path.basename(path) for path in CONFIGS]


def test_there_are_configs():
    assert len(CONFIGS) >= 15


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
    if 'batch_sampler' in loader:
        # So few images make no clusters.
        loader.batch_sampler.phases = [dict(levels=0, until=1)]
    loader = Runner.build_dataloader(loader, seed=0)
    loader.batch_sampler.max_epochs = cfg.train_cfg.max_epochs
    data = next(iter(loader))
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    # In the phases at the start and at the end, one tenth being the
    # predictor's alone.
    info = MessageHub.get_current_instance()
    info.update_info('max_iters', 100)
    for iteration in (10, 99):
        info.update_info('iter', iteration)
        before = model.backbone.conv1.weight.clone()
        for _ in range(cfg.optim_wrapper.get('accumulative_counts', 1)):
            logged = model.train_step(data, wrapper)
            assert all(torch.isfinite(value) for value in logged.values())
        assert not torch.equal(before, model.backbone.conv1.weight)
    # Of clusters, the one whose batch it was.
    names = ('smallest', ) if model.method == 'sdr' else ('largest',
                                                          'smallest')
    labels = (model.family.label_of(model.family[name]) for name in names)
    assert {f'loss_{label}' for label in labels} <= set(logged)


def test_on_small_images_the_supernet_grows():
    init_default_scope('mmselfsup')
    model = MODELS.build(Config.fromfile(DIGITS_CONFIG).model)
    everything = set(model.family.desired.values())
    alone = {model.family['small']}
    for progress, trained, target in ((0., alone, 'shallowest'),
                                      (0.5, everything, 'shallowest'),
                                      (0.7, everything, 'largest')):
        assert set(model.sampler(3, 0, progress)) == trained
        assert model.targets.at(progress) == target


@pytest.mark.parametrize(
    'path', [path for path in CONFIGS if f'{os.sep}sdr{os.sep}' in path])
def test_batches_are_of_the_clusters_that_sdr_has_subnets_for(path):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    family = build_family(cfg.model.family.to_dict())
    batches = cfg.train_dataloader.batch_sampler
    assert batches.num_groups == family.num_groups
    # One network at first, and all of them at the end.
    levels = [phase.levels for phase in batches.phases]
    assert levels[0] == 0 and levels[-1] == family.levels
    assert cfg.custom_hooks[-1].type == 'ClusterHook'


def test_us3l_gets_smaller_in_four_phases_and_distills():
    init_default_scope('mmselfsup')
    cfg = Config.fromfile(
        DIGITS_CONFIG.replace(f'dspnet{os.sep}dspnet', f'us3l{os.sep}us3l'))
    model = MODELS.build(cfg.model)
    # What exported networks and reports say they are of.
    assert model.method == 'us3l'
    for progress, name in ((0.2, 'large'), (0.3, 'medium'), (0.6, 'small'),
                           (0.8, 'tiny')):
        drawn = model.sampler(3, 0, progress)
        assert drawn[0] == model.family.full
        assert drawn[-1] == model.family[name]
        assert all(len({*s.widths}) == 1 for s in drawn)
    assert model.distillation == 'second_predictor' and model.group_decay > 0
    assert cfg.optim_wrapper.optimizer.weight_decay == 0


@pytest.mark.parametrize('name, model, optimizer, epochs, decays', [
    ('mocov2',
     dict(
         type='SlimCLRMoCoV2',
         queue_size=65536,
         base_momentum=0.999,
         momentum_schedule='constant',
         distillation_temperature=5,
         temperature=0.2,
         out_channels=128,
         hid_channels=2048), dict(type='SGD', lr=0.2, weight_decay=1e-4), 200,
     lambda name: 'bias' not in name),
    ('mocov3',
     dict(
         type='SlimCLRMoCoV3',
         base_momentum=0.99,
         momentum_schedule='cosine',
         distillation_temperature=1,
         temperature=1,
         out_channels=256,
         hid_channels=4096), dict(type='LARS', lr=3.2, weight_decay=1e-6), 300,
     lambda name: name.endswith('weight')),
])
def test_slimclr_has_the_authors_recipe_on_imagenet(name, model, optimizer,
                                                    epochs, decays):
    init_default_scope('mmselfsup')
    path, = [path for path in CONFIGS if f'{name}_resnet50' in path]
    cfg = Config.fromfile(path)
    assert cfg.train_dataloader.batch_size * 8 == 1024
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert dict(
        cfg.optim_wrapper.optimizer, momentum=0.9) == dict(
            optimizer, momentum=0.9)
    built = MODELS.build(
        dict(cfg.model, family=dict(cfg.model.family, base_channels=8)))
    # What the config leaves to the class counts as well.
    found = dict(
        type=type(built).__name__,
        temperature=built.head.temperature,
        **{
            key: cfg.model.neck[key]
            for key in ('out_channels', 'hid_channels')
        })
    for key in model.keys() - found.keys():
        found[key] = len(built.queue.features) if key == 'queue_size' \
            else getattr(built, key)
    assert found == model
    assert [subnet.widths[0] for subnet in built.family.desired.values()
            ] == [1, 0.75, 0.5, 0.25]
    assert built.backbone.starts_as_identity
    wrapper = build_optim_wrapper(built, cfg.optim_wrapper)
    decay = {
        id(group['params'][0]): group['weight_decay']
        for group in wrapper.optimizer.param_groups
    }
    for key, parameter in built.named_parameters():
        if parameter.requires_grad:
            assert (decay[id(parameter)] > 0) == decays(key), key


def test_slimclr_starts_slowly():
    init_default_scope('mmselfsup')
    path, = [path for path in CONFIGS if 'mocov3_resnet50' in path]
    cfg = Config.fromfile(path)
    model = MODELS.build(
        dict(cfg.model, family=dict(cfg.model.family, base_channels=8)))
    everything = list(model.family.desired.values())
    assert model.sampler(0, 0, 0.49) == everything[:1]
    assert model.sampler(0, 0, 0.5) == everything
    # 1.2 after the warm-up, 3.2 from the half on (MMEngine ends a constant
    # rate one step early), and a cosine over both.
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [
        PARAM_SCHEDULERS.build(
            dict(
                # As the runner does where no end is given.
                dict(end=cfg.train_cfg.max_epochs, **each)
                if 'end' not in each else each,
                convert_to_iter_based=False,
                optimizer=optimizer)) for each in cfg.param_scheduler
    ]
    rates = []
    for _ in range(cfg.train_cfg.max_epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    cosine = [(1 + math.cos(math.pi * (epoch - 10) / 290)) / 2
              for epoch in range(300)]
    assert rates[0] == pytest.approx(1.2e-4)
    for epoch, peak in ((11, 1.2), (148, 1.2), (150, 3.2), (299, 3.2)):
        assert rates[epoch] == pytest.approx(peak * cosine[epoch], rel=0.01)

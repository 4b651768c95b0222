# Copyright (c) The dspnet_mm authors. All rights reserved.
import json
import math

import numpy as np
import pytest
import torch
from conftest import digits_cfg, model_cfg, run_tool, train
from matplotlib import pyplot as plt
from mmengine.optim import OptimWrapper
from mmselfsup.registry import MODELS
from mmselfsup.structures import SelfSupDataSample

from dspnet_mm import InputError
from dspnet_mm.engine import GradientHook
from dspnet_mm.models.gradient_probe import GradientProbe


def test_the_figures_are_those_of_the_gradients():
    # The smaller network has the first two of the eight parameters of the
    # convolutions, and all of the other layer's.
    shapes = (2, 4, 1, 1), (1, 4, 2, 1), (3, )
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
    large = [
        np.array([1., -2., 3., 1., 1., 1., 2., 1.]),
        np.array([2., 1., -1., 1., 3., 1., 1., 1.]),
        np.array([5., 5., 1.])
    ]
    small = [
        np.array([4., 1., 0., 0., 0., 0., 0., 0.]),
        np.array([-3., 1., 0., 0., 0., 0., 0., 0.]),
        np.array([1., 2., 1.])
    ]
    probe = GradientProbe(parameters, 'large')
    # Mixed precision's scale may change, but gradients stay what they are.
    for label, gradients, scale in (('large', large, 1), ('small', small, 8)):
        with probe.watch(label, scale):
            sum((parameter.flatten() *
                 torch.tensor(scale * gradient, dtype=torch.float32)).sum() for
                parameter, gradient in zip(parameters, gradients)).backward()

    def excess(gradients):
        return np.mean([
            np.sqrt((gradient[:2]**2).mean() / (gradient[2:]**2).mean())
            for gradient in gradients[:2]
        ])

    total = [one + other for one, other in zip(large, small)]
    ours, theirs = (
        np.concatenate([part[:2] for part in gradients[:2]] + [gradients[2]])
        for gradients in (large, small))
    cosine = ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)
    # The supernet has no others.
    assert probe.summary() == pytest.approx(
        dict(
            imbalance_small=excess(total) / excess(large),
            norm_large=np.linalg.norm(np.concatenate(total)),
            norm_small=np.linalg.norm(
                np.concatenate([part[:2] for part in total[:2]] + [total[2]])),
            cosine_large_small=cosine))


def step(probed=True, iterations=1, lr=0.1, anew=True, **kwargs):
    """Make a step of the optimizer: the state, and what was seen.

    Of as many iterations, with the same images unless they are drawn anew.
    """
    torch.manual_seed(0)
    model = MODELS.build(
        model_cfg(sampler=dict(type='AllDesiredSampler'), **kwargs))
    probe = GradientProbe(list(model.backbone.parameters()), 'large')
    model.gradient_probe = probe if probed else None
    generator = torch.Generator().manual_seed(1)
    wrapper = OptimWrapper(
        torch.optim.SGD(model.parameters(), lr=lr),
        accumulative_counts=iterations)
    for _ in range(iterations):
        if not anew:
            generator.manual_seed(1)
        inputs = [
            torch.rand(4, 3, 16, 16, generator=generator) for _ in range(2)
        ]
        samples = [SelfSupDataSample() for _ in range(4)]
        model.train_step(dict(inputs=inputs, data_samples=samples), wrapper)
    assert wrapper.inner_count == iterations
    return model.state_dict(), probe.summary()


WAYS = [
    dict(step_each_subnet=True),
    dict(step_each_subnet=False),
    dict(step_each_subnet=False, iterations=2)
]


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('group_decay', [0., 0.01])
def test_it_sees_each_subnets_gradient_and_changes_nothing(way, group_decay):
    alone, _ = step(False, group_decay=group_decay, **way)
    state, figures = step(group_decay=group_decay, **way)
    for key, tensor in alone.items():
        assert torch.equal(tensor, state[key]), key
    assert set(figures) == {
        'imbalance_middle', 'imbalance_tiny', 'norm_large', 'norm_middle',
        'norm_tiny', 'cosine_large_middle', 'cosine_large_tiny',
        'cosine_middle_tiny'
    }
    assert figures['imbalance_tiny'] > 0
    assert all(-1 <= value <= 1 for name, value in figures.items()
               if 'cos' in name)


def test_accumulation_does_not_make_gradients_smaller():
    """Each iteration's is seen whole; those of one name are added."""
    (_, one), (_, two) = (
        step(lr=0., iterations=iterations, anew=False, step_each_subnet=False)
        for iterations in (1, 2))
    for name, value in one.items():
        factor = 2 if name.startswith('norm') else 1
        assert two[name] == pytest.approx(factor * value, rel=1e-3), name


@pytest.mark.parametrize('way', WAYS)
def test_it_does_not_see_decay(way):
    """Which all parameters have, also those of other sub-networks."""
    # At a standstill, else decay would change what is seen next.
    (_, without), (_, decayed) = (
        step(lr=0., group_decay=decay, **way) for decay in (0., 0.5))
    assert decayed == pytest.approx(without, rel=1e-3)


def test_what_is_left_out_cancels_behind_earlier_gradients():
    """To exactly nothing, where it is all that is added."""
    generator = torch.Generator().manual_seed(0)
    weight, earlier = torch.randn(2, 8, 8, 3, 3, generator=generator)
    weight.requires_grad_()
    seen = []
    for decay in (0., 0.1):
        weight.grad = earlier.clone()
        probe = GradientProbe([weight], 'large')
        for label, part in (('large', weight), ('small', weight[:4])):
            decayed, = probe.leave_out([weight])
            with probe.watch(label):
                loss = part.pow(3).sum() + decay * decayed.square().sum()
                loss.backward()
        seen.append(probe.summary())
    assert seen[0]['imbalance_small'] > 1.5
    assert seen[1] == pytest.approx(seen[0], rel=1e-3)


def test_a_run_records_them(tmp_path):
    # Of six iterations of two epochs, the third and the sixth.
    cfg = digits_cfg(tmp_path, epochs=2)
    cfg.custom_hooks = [dict(type='GradientHook', interval=3)]
    cfg.model.sampler = dict(type='AllDesiredSampler')
    runner = train(cfg)
    assert runner.model.gradient_probe is None
    path, = tmp_path.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    steps = [
        line['step'] for line in lines if 'gradients/cosine_large_tiny' in line
    ]
    assert steps == [3, 6]

    picture = tmp_path / 'gradients.png'
    done = run_tool('plot_gradients.py', tmp_path, '--out', picture)
    assert done.returncode == 0, done.stderr
    height, width, _ = plt.imread(picture).shape
    assert width > 3 * height
    report = json.loads(picture.with_suffix('.json').read_text())
    # Of two recorded iterations one is in the second half.
    assert 'cosine_large_tiny' in {row['figure'] for row in report['rows']}
    assert report['seeds'] == {tmp_path.name: [cfg.randomness.seed]}


def record(run, *points, part='now'):
    """Write what GradientHook records, at some steps."""
    folder = run / part / 'vis_data'
    folder.mkdir(parents=True)
    lines = [
        json.dumps({
            'gradients/cosine_a_b': value,
            'step': step
        }) for step, value in points
    ]
    (folder / 'scalars.json').write_text('\n'.join(lines))


def test_means_are_of_the_second_half_and_errors_of_seeds(tmp_path):
    alone, first, second = (tmp_path / name for name in ('one', 'a', 'b'))
    record(alone, (10, 9.), (20, 9.), (30, 1.), (40, 2.))
    record(first, (10, 9.), (20, 9.), (30, 0.), (40, 2.))
    record(second, (10, 9.), (20, 9.), (30, 4.), (40, 6.))
    done = run_tool('plot_gradients.py', alone, f'two={first},{second}',
                    '--out', tmp_path / 'gradients.png')
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / 'gradients.json').read_text())
    assert report['seeds'] == dict(one=[None], two=[None, None])
    assert report['rows'] == [
        dict(
            training='one', figure='cosine_a_b', second_half=1.5, trainings=1),
        dict(
            training='two',
            figure='cosine_a_b',
            second_half=dict(mean=3., se=2.),
            trainings=2)
    ]


def test_what_a_later_run_does_not_go_on_from_is_left_out(tmp_path):
    record(tmp_path / 'run', (10, 9.), (20, 9.), (30, 9.), part='1')
    # Resumed from the checkpoint of step 15.
    record(tmp_path / 'run', (20, 1.), part='2')
    done = run_tool('plot_gradients.py', tmp_path / 'run', '--out',
                    tmp_path / 'gradients.png')
    assert done.returncode == 0, done.stderr
    row, = json.loads((tmp_path / 'gradients.json').read_text())['rows']
    assert row['second_half'] == 1


def test_two_rows_of_one_name_are_refused(tmp_path):
    for parent in ('a', 'b'):
        record(tmp_path / parent / 'run', (1, 1.))
    picture = tmp_path / 'gradients.png'
    done = run_tool('plot_gradients.py', tmp_path / 'a' / 'run',
                    tmp_path / 'b' / 'run', '--out', picture)
    assert done.returncode == 2
    assert 'two rows are called run' in done.stderr
    assert not picture.exists()


def test_two_trainings_of_one_seed_are_no_means(tmp_path):
    for name, seed in (('a', 3), ('b', 3), ('c', 4)):
        record(tmp_path / name, (1, 1.))
        config, = (tmp_path / name).glob('*/vis_data')
        (config / 'config.py').write_text(f'randomness = dict(seed={seed})')
    picture = tmp_path / 'out' / 'gradients.png'
    row = ','.join(str(tmp_path / name) for name in 'abc')
    done = run_tool('plot_gradients.py', row, '--out', picture)
    assert done.returncode == 2
    assert 'two trainings are of seed 3' in done.stderr
    assert not picture.parent.exists()


def test_a_folder_that_is_not_there_is_told(tmp_path):
    done = run_tool('plot_gradients.py', tmp_path / 'none', '--out',
                    tmp_path / 'gradients.png')
    assert done.returncode == 2
    assert f'there is no folder {tmp_path / "none"}' in done.stderr


@pytest.mark.parametrize('line, name, complaint', [
    ('{"gradients/cosine_a_b": 1', 'a.png', 'scalars.json, line 1 is not'),
    ('[1]', 'a.png', 'scalars.json, line 1 is not'),
    ('{"gradients/cosine_a_b": NaN, "step": 1}', 'a.png', 'no gradients'),
    ('{"gradients/cosine_a_b": 1, "step": 1}', 'picture', 'with one of .eps'),
    ('{"gradients/cosine_a_b": 1, "step": 1}', 'a.pgf', 'with one of .eps'),
])
def test_what_cannot_be_drawn_is_refused(tmp_path, line, name, complaint):
    folder = tmp_path / 'run' / 'now' / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(line)
    done = run_tool('plot_gradients.py', tmp_path / 'run', '--out',
                    tmp_path / 'out' / name)
    assert done.returncode == 2
    assert complaint in done.stderr and done.stderr.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_a_run_without_them_is_refused(tmp_path):
    done = run_tool('plot_gradients.py', tmp_path, '--out',
                    tmp_path / 'gradients.png')
    assert done.returncode == 2
    assert "dict(type='GradientHook')" in done.stderr
    assert not list(tmp_path.iterdir())


def test_where_the_predictor_learns_alone_there_is_nothing(tmp_path):
    cfg = digits_cfg(tmp_path, epochs=2)
    cfg.custom_hooks = [dict(type='GradientHook', interval=1)]
    # In the first three of six iterations.
    cfg.model.predictor_warmup = 0.5
    train(cfg)
    path, = tmp_path.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    recorded = [line for line in lines if 'gradients' in str(line)]
    assert [line['step'] for line in recorded] == [4, 5, 6]
    assert all(math.isfinite(value) for value in recorded[0].values())


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(InputError, match='interval=0 is not allowed'):
        GradientHook(interval=0)

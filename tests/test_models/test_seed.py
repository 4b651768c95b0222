# Copyright (c) The dspnet_mm authors. All rights reserved.
import copy
import os

import pytest
import torch
from conftest import model_cfg
from mmengine.optim import OptimWrapper
from mmselfsup.registry import MODELS
from mmselfsup.structures import SelfSupDataSample
from torch.nn import functional as F

from dspnet_mm import InputError
from dspnet_mm.models import SEEDHead, activate


def parts():
    return dict(
        backbone=dict(
            type='SlimResNet',
            block='BasicBlock',
            inner_channels=[8, 16, 32, 64],
            depths=[2, 2, 2, 2],
            stem='small'),
        neck=dict(
            type='NonLinearNeck',
            in_channels=64,
            hid_channels=16,
            out_channels=8,
            num_layers=2,
            with_bias=True,
            with_last_bn=False,
            norm_cfg=dict(type='BN1d')))


@pytest.fixture
def teacher(tmp_path):
    """A trained-like plain network's checkpoint, statistics included."""
    torch.manual_seed(5)
    modules = {name: MODELS.build(cfg) for name, cfg in parts().items()}
    for part in modules.values():
        for name, buffer in part.named_buffers():
            if name.endswith('running_var'):
                buffer.uniform_(0.5, 2)
    path = tmp_path / 'teacher.pth'
    torch.save(
        dict(
            state_dict={
                f'{name}.{key}': tensor
                for name, part in modules.items()
                for key, tensor in part.state_dict().items()
            }), path)
    return dict(**parts(), checkpoint=str(path))


def build(teacher, **kwargs):
    torch.manual_seed(0)
    cfg = model_cfg(
        type='SEED',
        sampler=dict(type='FixedSampler', name='tiny'),
        head=dict(type='SEEDHead', channels=8, queue_size=24),
        teacher=teacher,
        **kwargs)
    return MODELS.build(cfg)


def batch(number=8):
    return dict(
        inputs=[torch.rand(number, 3, 16, 16) for _ in range(2)],
        data_samples=[SelfSupDataSample() for _ in range(number)])


def test_the_loss_is_the_papers():
    torch.manual_seed(0)
    head = SEEDHead(4, 6, student_temperature=0.2, teacher_temperature=0.1)
    student, teacher = torch.randn(3, 4), torch.randn(3, 4)
    expected = 0.
    for one, other in zip(F.normalize(student), F.normalize(teacher)):
        instances = torch.cat([head.queue.features, other[None]])
        target = torch.softmax(instances @ other / 0.1, 0)
        seen = torch.softmax(instances @ one / 0.2, 0)
        expected -= (target * seen.log()).sum() / 3
    assert head(student, teacher) == pytest.approx(expected.item(), rel=1e-5)
    paper = SEEDHead(4, 6)
    assert (paper.student_temperature, paper.teacher_temperature) == (0.2,
                                                                      0.01)


def test_the_queue_holds_the_last_features():
    head = SEEDHead(2, 5)
    features = F.normalize(torch.randn(9, 2))
    for chunk in features.split(3):
        head.queue.enqueue(3 * chunk)
    # The last five, in a ring.
    assert torch.allclose(
        head.queue.features.roll(1, 0), features[4:], atol=1e-6)
    # What one bad image spoils is not kept.
    before = head.queue.features.clone()
    wrong = torch.tensor([[float('inf'), 1.], [float('nan'), 1.]])
    head.queue.enqueue(torch.cat([wrong, features[:1]]))
    assert torch.allclose(head.queue.features[4], features[0], atol=1e-6)
    assert torch.equal(head.queue.features[:4], before[:4])
    with pytest.raises(InputError, match='queue_size=5.*6 features'):
        head.queue.enqueue(torch.randn(6, 2))
    with pytest.raises(InputError, match='above 0'):
        SEEDHead(2, 5, teacher_temperature=0)


def test_the_student_learns_of_each_view_from_the_same_one(teacher):
    model = build(teacher)
    model.init_weights()
    model.train()
    views = batch()['inputs']
    with torch.no_grad(), activate(model.family['tiny'],
                                   *model.slimmable_networks):
        loss, _ = model.subnet_loss(views, model.compute_targets(views))
        expected = sum(
            model.head(
                model.neck(model.backbone(view))[0],
                model.target_net(view)[0]) for view in views) / 2
        swapped = model.head(
            model.neck(model.backbone(views[0]))[0],
            model.target_net(views[1])[0])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert loss.item() != pytest.approx(swapped.item(), rel=1e-3)


def test_a_step_contrasts_with_what_came_before(teacher):
    """Its own features come into the queue behind it."""
    model = build(teacher)
    model.init_weights()
    model.train()
    data = batch()
    before = copy.deepcopy(model)
    with torch.no_grad(), activate(before.family['tiny'],
                                   *before.slimmable_networks):
        expected = sum(
            before.head(
                before.neck(before.backbone(view))[0],
                before.target_net(view)[0]) for view in data['inputs']) / 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.)
    losses = model.train_step(data, OptimWrapper(optimizer))
    assert losses['loss'].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_teacher_stays_and_the_student_learns(teacher):
    model = build(teacher)
    model.init_weights()
    model.train()
    original = torch.load(teacher['checkpoint'])['state_dict']
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    wrapper, data = OptimWrapper(optimizer), batch()
    untouched = model.backbone.conv1.weight[2:].clone()
    losses = [model.train_step(data, wrapper) for _ in range(30)]
    assert losses[-1]['loss_tiny'] < losses[3]['loss_tiny']
    # A quarter of the stem is the student's.
    assert torch.equal(model.backbone.conv1.weight[2:], untouched)
    for index, name in enumerate(('backbone', 'neck')):
        for key, tensor in model.target_net[index].state_dict().items():
            assert torch.equal(tensor, original[f'{name}.{key}']), key
    with torch.no_grad():
        last = F.normalize(model.target_net(data['inputs'][1])[0], dim=1)
    # 30 steps of 16 features in a ring of 24.
    assert torch.allclose(model.head.queue.features[-8:], last, atol=1e-6)


@pytest.mark.parametrize('option', [
    dict(base_momentum=0.9),
    dict(momentum_schedule='constant'),
    dict(follow_each_step=True)
])
def test_the_teacher_has_no_options_of_what_follows(teacher, option):
    name, = option
    with pytest.raises(InputError, match=f'SEED has no target.* for {name}'):
        build(teacher, **option)


def test_a_checkpoint_of_another_network_is_refused(teacher):
    teacher['backbone']['depths'] = [2, 2, 2, 1]
    with pytest.raises(InputError, match="not hold the teacher's backbone"):
        build(teacher).init_weights()


def test_the_teacher_is_not_initialised(teacher):
    # Of such layers, a slimmable student has none.
    model = build(
        teacher, init_cfg=dict(type='Constant', layer='Conv2d', val=0.5))
    model.init_weights()
    original = torch.load(teacher['checkpoint'])['state_dict']
    for key, tensor in model.target_net[0].state_dict().items():
        assert torch.equal(tensor, original[f'backbone.{key}']), key


def test_a_trained_student_needs_no_file_of_its_teacher(teacher):
    trained = build(teacher)
    trained.init_weights()
    os.remove(teacher['checkpoint'])
    model = build(teacher)
    model.load_state_dict(trained.state_dict())
    image = batch()['inputs'][0]
    assert torch.equal(*(each.eval().target_net(image)[0]
                         for each in (model, trained)))

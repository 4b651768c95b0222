# Copyright (c) The dspnet_mm authors. All rights reserved.
import numpy as np
import pytest
import torch
from conftest import CIFAR_CONFIG, model_cfg
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmselfsup.registry import MODELS, TRANSFORMS
from mmselfsup.structures import SelfSupDataSample
from sklearn.datasets import load_sample_images

from dspnet_mm import InputError
from dspnet_mm.randomness import seeded

# BYOL's second view as MMSelfSup has it (its imagenet_byol.py), at 32 pixels.
PER_IMAGE = [
    dict(type='RandomResizedCrop', size=32, scale=(0.2, 1.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomApply',
        transforms=[
            dict(
                type='ColorJitter',
                brightness=0.4,
                contrast=0.4,
                saturation=0.2,
                hue=0.1)
        ],
        prob=0.8),
    dict(
        type='RandomGrayscale',
        prob=0.2,
        keep_channels=True,
        channel_weights=(0.114, 0.587, 0.2989)),
    dict(type='RandomGaussianBlur', sigma_min=0.1, sigma_max=2.0, prob=0.5),
    dict(type='RandomSolarize', prob=0.2),
]


def cifar_view():
    cfg = Config.fromfile(CIFAR_CONFIG).model.data_preprocessor
    return [dict(transform) for transform in cfg.views[0]]


def build(views, **kwargs):
    settings = dict(
        type='AugmentingDataPreprocessor',
        mean=(0., 0., 0.),
        std=(1., 1., 1.),
        bgr_to_rgb=True)
    return MODELS.build(dict(settings, views=views, **kwargs))


def photographs():
    """Four parts of two photographs, uint8, shape (4, 32, 32, 3), BGR."""
    parts = []
    for image in load_sample_images().images:
        small = image[::10, ::10]
        parts += [small[:32, :32], small[8:40, 20:52]]
    return np.stack(parts)[..., ::-1]


def as_batch(images):
    tensor = torch.from_numpy(np.ascontiguousarray(images))
    return dict(
        inputs=[tensor.permute(0, 3, 1, 2)],
        data_samples=[SelfSupDataSample() for _ in images])


def moments(images):
    """Of images of shape (N, 3, H, W), RGB in [0, 255], many of each."""
    means = images.mean((2, 3))
    steps = np.abs(np.diff(images, axis=3)).mean((1, 2, 3))
    colour = np.abs(images[:, 0] - images[:, 2]).mean((1, 2))
    return dict(
        mean=means.mean(0),
        spread_of_means=means.std(0),
        contrast=images.std((2, 3)).mean(0),
        spread_of_contrasts=images.std((2, 3)).std(0),
        sharpness=steps.mean(),
        spread_of_sharpness=steps.std(),
        colour=colour.mean(),
        grey=(colour < 1).mean() * 255,
        dark=(images < 32).mean() * 255,
        light=(images > 224).mean() * 255)


def test_views_are_distributed_as_by_the_per_image_pipeline():
    """Over 3,000 draws of each of four photographs."""
    draws, batch = 3000, 100
    per_image = Compose([TRANSFORMS.build(cfg) for cfg in PER_IMAGE])
    view = cifar_view() + [
        dict(
            type='RandomGaussianBlur',
            kernel_size=(13, 13),
            sigma=(0.1, 2.0),
            p=0.5),
        dict(
            type='RandomSolarize', thresholds=(0.5, 0.5), additions=0., p=0.2)
    ]
    ours = build([view])
    for number, image in enumerate(photographs()):
        with seeded(number):
            one_by_one = np.stack([
                per_image(dict(img=image.copy(), img_shape=(32, 32)))['img']
                for _ in range(draws)
            ])
            repeated = as_batch(np.repeat(image[None], batch, axis=0))
            together = torch.cat([
                ours(repeated, True)[0][0] for _ in range(draws // batch)
            ]).numpy()
        expected = moments(
            one_by_one.transpose(0, 3, 1, 2)[:, ::-1].astype(np.float32))
        for name, value in moments(together).items():
            # Of 255. The order of the colour's parts is drawn for each batch,
            # so the draws are fewer than they look.
            assert np.abs(value - expected[name]).max() < 8, name


def test_a_view_that_lacks_a_part_is_told_from_one_that_does_not():
    """The comparison above can fail."""
    image = as_batch(np.repeat(photographs()[1:2], 500, axis=0))
    whole = cifar_view()
    with seeded(0):
        expected = moments(build([whole])(image, True)[0][0].numpy())
    for index, part in enumerate(whole):
        if part['type'] == 'RandomHorizontalFlip':
            continue  # It changes none of the moments.
        with seeded(1):
            lacking = moments(
                build([whole[:index] + whole[index + 1:]])(image,
                                                           True)[0][0].numpy())
        assert max(
            np.abs(lacking[name] - expected[name]).max()
            for name in expected) > 8, part['type']


def test_each_image_of_a_batch_gets_its_own_view():
    data = as_batch(np.repeat(photographs()[:1], 8, axis=0))
    first, second = build([cifar_view(), cifar_view()])(data, True)[0]
    views = torch.cat([first, second]).flatten(1)
    assert views.shape == (16, 3 * 32 * 32)
    assert torch.unique(views, dim=0).shape[0] == 16


def test_views_can_begin_from_an_image_of_each():
    data = as_batch(photographs())
    data['inputs'] = [data['inputs'][0], 255 - data['inputs'][0]]
    nothing = [dict(type='RandomHorizontalFlip', p=0.0)]
    first, second = build([nothing, nothing])(data, True)[0]
    assert torch.allclose(first, data['inputs'][0].flip(1).float(), atol=1e-3)
    assert torch.allclose(255 - first, second, atol=1e-3)
    with pytest.raises(InputError, match='2 images of each .* 3 views'):
        build([nothing] * 3)(data, True)


def test_images_are_normalised_as_by_mmselfsup():
    data = as_batch(photographs())
    nothing = [dict(type='RandomHorizontalFlip', p=0.0)]
    settings = dict(mean=(10., 20., 30.), std=(2., 3., 4.), bgr_to_rgb=True)
    theirs = MODELS.build(dict(type='SelfSupDataPreprocessor', **settings))
    ours = build([nothing], **settings)
    expected = theirs(data)[0][0]
    assert torch.allclose(ours(data, True)[0][0], expected, atol=1e-3)
    assert torch.equal(ours(data)[0][0], expected)
    assert not ours.state_dict() and not list(ours.parameters())


def test_a_step_makes_its_views_once_and_by_seed_and_iteration():

    def inputs_of_a_step(iteration, **sampler):
        torch.manual_seed(0)
        MessageHub.get_current_instance().update_info('iter', iteration)
        view = cifar_view()
        view[0]['size'] = (16, 16)
        model = MODELS.build(
            model_cfg(
                sampler=sampler,
                data_preprocessor=dict(
                    type='AugmentingDataPreprocessor',
                    bgr_to_rgb=True,
                    views=[view, view])))
        seen = []
        model.data_preprocessor.register_forward_hook(
            lambda *args: seen.append(args[2][0]))
        torch.rand(iteration + 3)  # What was drawn before does not matter.
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        state = torch.get_rng_state()
        model.train_step(as_batch(photographs()), wrapper)
        assert torch.equal(state, torch.get_rng_state())
        assert len(seen) == 1
        return torch.stack(seen[0])

    first = inputs_of_a_step(3, type='FixedSampler')
    assert torch.equal(first, inputs_of_a_step(3, type='AllDesiredSampler'))
    assert not torch.equal(first, inputs_of_a_step(4, type='FixedSampler'))


@pytest.mark.parametrize('change, complaint', [
    (dict(views=[[dict(type='Sequential')]], bgr_to_rgb=False), 'bgr_to_rgb'),
    (dict(views=[[dict(type='RandomMagic')]]), "'RandomMagic' is neither"),
    (dict(views=[[dict(type='RandomGrayscale', prob=1)]]), 'RandomGrayscale.*'
     'arguments'),
])
def test_what_cannot_be_built_is_refused(change, complaint):
    with pytest.raises(InputError, match=complaint):
        build(**change)

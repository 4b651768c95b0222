# Copyright (c) The dspnet_mm authors. All rights reserved.
import pickle

import cv2
import numpy as np
import pytest
from conftest import CIFAR_CONFIG, run_tool, train
from mmengine.config import Config
from mmselfsup.registry import DATASETS, TRANSFORMS
from PIL import Image
from torch.utils.data import DataLoader

from dspnet_mm import InputError
from dspnet_mm.datasets import Draw, ImageFolder, UnreadableImage
from dspnet_mm.evaluation import ImageFormat, evaluation_dataset, iterate
from dspnet_mm.slimming import load_plain

GRADIENT = np.linspace(0, 255, 20 * 30 * 3).reshape(20, 30, 3).astype(np.uint8)


def load(path):
    return TRANSFORMS.build(dict(type='LoadImage'))(dict(img_path=str(path)))


def make_images(folder, number):
    folder.mkdir()
    for index in range(number):
        Image.fromarray(GRADIENT).save(folder / f'{index:03}.png')
    return folder


def test_an_image_is_loaded_as_by_mmcv(tmp_path):
    Image.fromarray(GRADIENT).save(tmp_path / 'image.png')
    results = load(tmp_path / 'image.png')
    theirs = TRANSFORMS.build(dict(type='LoadImageFromFile'))(
        dict(img_path=str(tmp_path / 'image.png')))
    assert np.array_equal(results['img'], theirs['img'])
    assert results['img'].flags.c_contiguous
    assert results['img_shape'] == theirs['img_shape'] == (20, 30)
    assert results['converted'] is None


def test_images_of_other_kinds_are_converted(tmp_path):
    grey = np.linspace(0, 65535, 600).reshape(20, 30)
    cv2.imwrite(str(tmp_path / '16.png'), grey.astype(np.uint16))
    image = Image.fromarray(GRADIENT)
    image.convert('CMYK').save(tmp_path / 'cmyk.jpg')
    transparent = image.convert('RGBA')
    transparent.putalpha(0)
    transparent.save(tmp_path / 'rgba.png')
    Image.fromarray((grey / 65535).astype(np.float32)).save(tmp_path / 'f.tif')
    converted = {}
    for path in sorted(tmp_path.iterdir()):
        results = load(path)
        assert results['img'].shape == (20, 30, 3)
        assert results['img'].dtype == np.uint8
        converted[path.name] = results['converted']
    assert converted['cmyk.jpg'] == 'CMYK' and converted['rgba.png'] == 'RGBA'
    assert converted['16.png'].startswith('I') and converted['f.tif'] == 'F'
    # Over the whole range, not cut off at 255.
    for name in ('16.png', 'f.tif'):
        assert np.abs(load(tmp_path / name)['img'][..., 0] -
                      grey / 257).max() <= 1
    assert load(tmp_path / 'rgba.png')['img'].max() == 0
    # JPEG, and inks that are not quite the colours.
    ours = load(tmp_path / 'cmyk.jpg')['img'].astype(int)
    assert np.abs(ours - GRADIENT[..., ::-1]).mean() < 8


def test_grey_and_palette_images_are_nothing_special(tmp_path):
    for mode in ('L', 'P', '1'):
        path = tmp_path / f'{mode}.png'
        Image.fromarray(GRADIENT).convert(mode).save(path)
        assert load(path)['converted'] is None
        assert load(path)['img'].shape == (20, 30, 3)


def test_an_image_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned by 90 degrees.
    Image.fromarray(GRADIENT).save(tmp_path / 'image.jpg', exif=exif)
    assert load(tmp_path / 'image.jpg')['img'].shape == (30, 20, 3)


def spoil(path, fault):
    """Make a good image file one that cannot be used."""
    if fault == 'zero bytes':
        path.write_bytes(b'')
    elif fault == 'truncated':
        path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    elif fault == 'something else':
        path.write_text('<html>404</html>')
    elif fault == 'one pixel':
        Image.new('RGB', (1, 1)).save(path)


FAULTS = ('zero bytes', 'truncated', 'something else', 'one pixel')


@pytest.mark.parametrize('extension', ['png', 'jpg'])
@pytest.mark.parametrize('fault', FAULTS)
def test_what_is_no_image_is_named(tmp_path, fault, extension):
    path = tmp_path / f'image.{extension}'
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    spoil(path, fault)
    with pytest.raises(UnreadableImage, match=f'image.{extension} cannot'):
        load(path)
    try:
        load(path)
    except UnreadableImage as error:
        # As it comes from a worker's process.
        copy = pickle.loads(pickle.dumps(error))
        assert (copy.path, str(copy)) == (str(path), str(error))


def folder_dataset(folder, **kwargs):
    return DATASETS.build(
        dict(
            type='ImageFolder',
            data_root=str(folder),
            pipeline=[
                dict(type='LoadImage'),
                dict(
                    type='MultiView',
                    num_views=2,
                    transforms=[[dict(type='RandomResizedCrop', size=8)]]),
                dict(type='PackSelfSupInputs', meta_keys=['img_path'])
            ],
            **kwargs))


def test_another_image_takes_the_place_of_an_unreadable_one(tmp_path):
    folder = make_images(tmp_path / 'images', 6)
    spoil(folder / '002.png', 'truncated')
    dataset = folder_dataset(folder)
    item = dataset[Draw(2, (0, 0, 2))]
    sample = item['data_samples']
    assert [path for path, _ in sample.unreadable] == [str(folder / '002.png')]
    assert sample.img_path != str(folder / '002.png')
    again = dataset[Draw(2, (0, 0, 2))]
    assert again['data_samples'].img_path == sample.img_path
    assert all(map(np.array_equal, item['inputs'], again['inputs']))
    assert 'unreadable' not in dataset[Draw(1, (0, 0, 1))]['data_samples']
    # In evaluation, or if so configured, it is an error.
    with pytest.raises(UnreadableImage, match='002.png'):
        dataset[2]
    with pytest.raises(UnreadableImage, match='002.png'):
        folder_dataset(folder, on_error='raise')[Draw(2, (0, 0, 2))]
    loader = DataLoader(
        folder_dataset(folder, on_error='raise'),
        sampler=[Draw(2, (0, 0, 2))],
        num_workers=1)
    with pytest.raises(UnreadableImage, match='002.png cannot'):
        next(iter(loader))
    with pytest.raises(InputError, match="'skip' or 'raise'"):
        folder_dataset(folder, on_error='ignore')


def test_views_depend_on_the_draw_alone(tmp_path):
    dataset = folder_dataset(make_images(tmp_path / 'images', 3))

    def views(*key):
        state = np.random.get_state()[1].copy()
        inputs = dataset[Draw(1, key)]['inputs']
        assert np.array_equal(state, np.random.get_state()[1])
        return np.stack([view.numpy() for view in inputs])

    first = views(0, 0, 1)
    np.random.rand()
    assert np.array_equal(first, views(0, 0, 1))
    for other in ((1, 0, 1), (0, 1, 1), (0, 0, 2)):
        assert not np.array_equal(first, views(*other))
    copy = pickle.loads(pickle.dumps(Draw(1, (0, 2, 3))))
    assert copy == 1 and copy.key == (0, 2, 3)


def test_evaluation_may_leave_out_what_cannot_be_read(tmp_path):
    """While training: where each image counts, it is an error."""
    folder = make_images(tmp_path / 'images', 5)
    spoil(folder / '002.png', 'truncated')
    dataset = evaluation_dataset(
        dict(type='ImageFolder', data_root=str(folder)), 16)
    image_format = ImageFormat(16)
    for workers in (0, 1):
        batches = list(
            iterate(
                dataset,
                image_format,
                num_workers=workers,
                skip_unreadable=True))
        assert [len(images) for images, _ in batches] == [4]
    assert not list(iterate(dataset, image_format, [2], skip_unreadable=True))
    with pytest.raises(UnreadableImage, match='002.png'):
        list(iterate(dataset, image_format))


def folder_cfg(folder, work_dir):
    cfg = Config.fromfile(CIFAR_CONFIG)
    cfg.merge_from_dict({
        'model.family.base_channels': 8,
        'model.family.input_size': 20,
        'train_cfg.max_epochs': 1,
        'train_dataloader.batch_size': 10,
        'train_dataloader.dataset.data_root': str(folder),
        'custom_hooks': [],
        'work_dir': str(work_dir),
    })
    cfg.experiment_name = cfg.visualizer.name = str(work_dir)
    return cfg


def test_a_run_skips_and_reports_what_cannot_be_read(tmp_path):
    folder = make_images(tmp_path / 'images', 100)
    spoil(folder / '042.png', 'zero bytes')
    transparent = Image.open(folder / '007.png').convert('RGBA')
    transparent.save(folder / '007.png')
    work_dir = tmp_path / 'run'
    train(folder_cfg(folder, work_dir))
    log = next(work_dir.glob('*/*.log')).read_text()
    assert '042.png: cannot identify image file' in log
    assert '007.png: converted from RGBA' in log
    assert '1 image(s) could not be read, others took their place: ' in log
    assert '1 image(s) were converted: ' in log
    assert (work_dir / 'epoch_1.pth').exists()
    assert not (work_dir / 'unreadable_images.txt').exists()
    # Nor does it prevent slimming.
    config, = work_dir.glob('*.py')
    done = run_tool('slim_export.py', config, work_dir / 'epoch_1.pth',
                    '--subnet', 'tiny', '--out-dir', tmp_path / 'exports')
    assert done.returncode == 0, done.stderr
    assert '1 of them cannot be read and are left out' in done.stdout
    plain = load_plain(str(tmp_path / 'exports' / 'tiny.pth'))
    assert plain.meta['calibration']['images'] == 99


@pytest.mark.parametrize('number', [1, 4])
def test_a_run_stops_where_too_much_cannot_be_read(tmp_path, number):
    """Before its first step."""
    folder = make_images(tmp_path / 'images', number * 20)
    for index in range(number):
        spoil(folder / f'{index:03}.png', FAULTS[index])
    work_dir = tmp_path / 'run'
    with pytest.raises(
            InputError, match=f'{number} of {number * 20} images cannot'):
        train(folder_cfg(folder, work_dir))
    listed = (work_dir / 'unreadable_images.txt').read_text().splitlines()
    assert [line.split('\t')[0] for line in listed
            ] == [str(folder / f'{index:03}.png') for index in range(number)]


@pytest.mark.parametrize(
    'spoiled, probed, complaint',
    [
        # A third of those that are tried, but few of all.
        (range(1), 3, 'at least 1 of 3 images cannot'),
        # None of those that are tried.
        (range(1, 4), 2, 'at least [23] of 150 images cannot'),
    ])
def test_a_run_stops_where_what_is_tried_or_trained_on_is_unreadable(
        tmp_path, monkeypatch, spoiled, probed, complaint):
    monkeypatch.setattr('dspnet_mm.engine.hooks.image_report_hook._MAX_PROBED',
                        probed)
    folder = make_images(tmp_path / 'images', 150)
    for index in spoiled:
        spoil(folder / f'{index:03}.png', FAULTS[0])
    with pytest.raises(InputError, match=complaint):
        train(folder_cfg(folder, tmp_path / 'run'))
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_what_nothing_can_take_the_place_of_is_told(tmp_path):
    folder = make_images(tmp_path / 'images', 4)
    for index in range(4):
        spoil(folder / f'{index:03}.png', FAULTS[0])
    dataset = ImageFolder(
        data_root=str(folder), pipeline=[dict(type='LoadImage')])
    with pytest.raises(InputError, match='20 images in a row cannot be'):
        dataset[Draw(0, (0, 0, 0))]


def test_a_folder_with_too_little_is_refused_with_its_name(tmp_path):
    folder = make_images(tmp_path / 'images', 2)
    with pytest.raises(InputError, match='images holds 2 image'):
        train(folder_cfg(folder, tmp_path / 'run'))
    (folder / 'cats').mkdir()
    (folder / '.hidden').mkdir()
    with pytest.raises(InputError, match='cats holds no image'):
        train(folder_cfg(folder, tmp_path / 'run'))
    with pytest.raises(InputError, match='nowhere.*is not a folder'):
        train(folder_cfg('nowhere', tmp_path / 'run'))

# Copyright (c) The dspnet_mm authors. All rights reserved.
from conftest import digits_cfg, train


def collapsing_cfg(work_dir, **kwargs):
    cfg = digits_cfg(work_dir, epochs=3)
    cfg.default_hooks.collapse.update(kwargs)
    return cfg


def test_a_collapse_is_told_once(tmp_path):
    # A spread is never above 1.1 or so.
    train(collapsing_cfg(tmp_path, threshold=2.0, patience=4))
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert log.count('have collapsed. Try a lower learning rate') == 1
    # The network that is trained alone in the first half.
    assert 'spread_small has been below 2 for 4 iterations' in log


def test_a_good_training_is_not_warned_of(tmp_path):
    train(collapsing_cfg(tmp_path, patience=1))
    train(collapsing_cfg(tmp_path / 'impatient', threshold=2.0))
    for log in tmp_path.glob('**/*.log'):
        assert 'collapsed' not in log.read_text()

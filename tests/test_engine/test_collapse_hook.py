# Copyright (c) The dspnet_mm authors. All rights reserved.
from unittest import mock

from conftest import digits_cfg, train

from dspnet_mm.engine import CollapseHook


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
    logs = [*tmp_path.glob('**/*.log')]
    assert len(logs) == 2
    assert not any('collapsed' in log.read_text() for log in logs)


def test_iterations_are_counted_in_a_row():
    hook, runner = CollapseHook(threshold=0.1, patience=3), mock.Mock()
    low, high = dict(spread_tiny=0.01), dict(spread_tiny=0.5)
    for outputs in (low, low, high, low, low):
        hook.after_train_iter(runner, 0, outputs=outputs)
    # Nor do iterations count in which others were trained.
    hook.after_train_iter(runner, 0, outputs=dict(spread_large=0.01))
    runner.logger.log.assert_not_called()
    hook.after_train_iter(runner, 0, outputs=low)
    runner.logger.log.assert_called_once()

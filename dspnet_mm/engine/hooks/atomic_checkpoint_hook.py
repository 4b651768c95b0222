# Copyright (c) The dspnet_mm authors. All rights reserved.
import errno
import glob
import logging
import os
import shutil
from collections import deque
from typing import List

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner, find_latest_checkpoint
from mmselfsup.registry import HOOKS

from dspnet_mm.checkpoint import NotOnTheList, load_checkpoint
from dspnet_mm.engine.model_wrapper import algorithm_of
from dspnet_mm.errors import InputError
from dspnet_mm.files import whole_file


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook, for a world in which runs are killed.

    A checkpoint is written under a temporary name and renamed, and only then
    the oldest one goes: at each moment there is a complete one to resume
    from. MMEngine's own hook removes the old one first. What is loaded, to be
    resumed or not, lies on a local disk and goes through
    :func:`dspnet_mm.checkpoint.load_checkpoint` before, which runs nothing
    that is not on a list.

    While steps are skipped because something is not finite, nothing is saved:
    the weights may be ruined, and the last good checkpoint stays the last.
    Behind a single step that a loss scaler skipped, or at the end of a run, it
    is saved all the same, unless several steps in a row were skipped.

    Args:
        *args: See MMEngine's CheckpointHook.
        **kwargs: See MMEngine's CheckpointHook.

    Raises:
        InputError: If checkpoints would be saved between two steps of
            gradient accumulation, or on anything but a local disk, or
            what to load is no checkpoint or lies elsewhere, or the first one
            that is saved could not be loaded.
        OSError: If there is no space; what was saved before is still there.
    """

    # Whether a checkpoint of this run has been.
    _looked_at = False

    def before_run(self, runner: Runner) -> None:
        """Look at what will be loaded."""
        path = runner._load_from
        if runner._resume and path is None:
            path = find_latest_checkpoint(runner.work_dir)
        if path is None:
            return
        # MMEngine would download it, and run what it holds.
        if '://' in path:
            raise InputError(f'load_from={path!r} is not on a local disk: '
                             'download it first, and give the file')
        load_checkpoint(path)

    def before_train(self, runner: Runner) -> None:
        """Check where and when checkpoints will be saved."""
        if '://' in (self.out_dir or ''):
            raise InputError(f'out_dir={self.out_dir!r} is not on a local '
                             "disk: give a folder, or type='CheckpointHook'")
        super().before_train(runner)
        batches = runner.optim_wrapper._accumulative_counts
        for name in ('interval', 'save_begin'):
            value = getattr(self, name)
            if not self.by_epoch and value > 0 and value % batches:
                raise InputError(
                    f'checkpoint.{name}={value} iterations falls between '
                    f'steps of the optimizer, which take {batches}: give a '
                    f'multiple of {batches}')
        if is_main_process():
            # Left by a run that was killed while it wrote.
            folder = glob.escape(self.out_dir)
            for name in ('*.pth', 'last_checkpoint'):
                for path in glob.glob(os.path.join(folder, f'.tmp-{name}')):
                    os.remove(path)

    def _save_checkpoint_with_step(self, runner: Runner, step: int,
                                   meta: dict) -> None:
        if self._in_doubt(runner):
            print_log(
                f'No checkpoint {self.filename_tmpl.format(step)}: the last '
                'step was skipped, so the weights may be ruined',
                logger='current',
                level=logging.WARNING)
            return
        path = os.path.join(self.out_dir, self.filename_tmpl.format(step))
        self.last_ckpt = path
        runner.message_hub.update_info('last_ckpt', path)
        outdated = self._keep(runner, step)
        if not is_main_process():
            return
        last = os.path.join(runner.work_dir, 'last_checkpoint')
        try:
            with whole_file(path) as temporary:
                runner.save_checkpoint(
                    self.out_dir,
                    os.path.basename(temporary),
                    save_optimizer=self.save_optimizer,
                    save_param_scheduler=self.save_param_scheduler,
                    meta=meta,
                    by_epoch=self.by_epoch,
                    **self.args)
                if not self._looked_at:
                    self._look_at(temporary)
            with whole_file(last) as temporary, open(temporary, 'w') as file:
                file.write(path)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            free = shutil.disk_usage(self.out_dir).free
            raise OSError(
                error.errno, f'no space for a checkpoint, {free / 1e6:.1f} MB '
                'are free: free some, or lower checkpoint.max_keep_ckpts, and '
                'go on with --resume; the checkpoints before this one are '
                'whole', path) from error
        for name in outdated:
            if os.path.exists(name):
                os.remove(name)

    def _look_at(self, path: str) -> None:
        """See whether what this run saves can be loaded again."""
        try:
            load_checkpoint(path)
        except NotOnTheList as error:
            raise InputError(
                'what this training saves could not be resumed, slimmed or '
                f'evaluated ({str(error).partition(";")[0]}): leave out the '
                'schedule or the hook whose state that is')
        self._looked_at = True

    def _in_doubt(self, runner: Runner) -> bool:
        is_last = self.is_last_train_epoch if self.by_epoch \
            else self.is_last_train_iter
        algorithm = algorithm_of(runner)
        # Other algorithms do not say.
        skipped = getattr(algorithm, 'skipped_in_a_row', 0)
        harmless = getattr(algorithm, 'only_scale_overflowed', False)
        return skipped > int(harmless or is_last(runner))

    def _keep(self, runner: Runner, step: int) -> List[str]:
        """Note a step's checkpoint, and name those that it makes outdated."""
        if self.max_keep_ckpts <= 0:
            return []
        steps = [*self.keep_ckpt_ids]
        if step not in steps:
            steps.append(step)
        # The new checkpoint lists the outdated ones too, so that a run that
        # is killed before they are removed does so when it is resumed.
        runner.message_hub.update_info('keep_ckpt_ids', steps)
        self.keep_ckpt_ids = deque(steps, self.max_keep_ckpts)
        return [
            os.path.join(self.out_dir, self.filename_tmpl.format(outdated))
            for outdated in steps[:-self.max_keep_ckpts]
        ]

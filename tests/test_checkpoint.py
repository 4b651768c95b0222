# Copyright (c) The dspnet_mm authors. All rights reserved.
import collections
import os
import pickle

import numpy as np
import pytest
import torch
from conftest import RunsCode
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

from dspnet_mm import InputError
from dspnet_mm.checkpoint import load_checkpoint, sha256_of


def test_what_mmengine_writes_is_loaded(tmp_path):
    buffer = HistoryBuffer()
    buffer.update(1.5)
    content = dict(
        state_dict=collections.OrderedDict(a=torch.arange(3)),
        meta=dict(seed=0, time='now'),
        param_schedulers=[
            dict(milestones=collections.Counter([2])),
            dict(anneal_func=OneCycleParamScheduler._annealing_cos),
            dict(anneal_func=OneCycleParamScheduler._annealing_linear)
        ],
        message_hub=dict(log_scalars={'loss': buffer}),
        other=[np.arange(2),
               np.float64(1.5),
               torch.Size((2, )), None])
    path = str(tmp_path / 'good.pth')
    torch.save(content, path)
    loaded = load_checkpoint(path)
    assert torch.equal(loaded['state_dict']['a'], torch.arange(3))
    assert loaded['message_hub']['log_scalars']['loss'].current() == 1.5
    assert loaded['other'][0].tolist() == [0, 1]
    assert loaded['other'][1] == 1.5
    milestones, *curves = loaded['param_schedulers']
    assert milestones['milestones'][2] == 1
    assert [curve['anneal_func'](1., 3., 0.25)
            for curve in curves] == [pytest.approx(2 - 0.5**0.5), 1.5]


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('payload, named', [
    (RunsCode(os.mkdir, 'proof'), 'mkdir'),
    (RunsCode(eval, '__import__("os").mkdir("proof")'), 'eval'),
    (RunsCode(getattr, collections.OrderedDict, 'fromkeys'), 'getattr'),
    (RunsCode(getattr, HistoryBuffer, '__init__'), 'getattr'),
    (RunsCode(getattr, OneCycleParamScheduler, '__init__'), 'getattr'),
    (RunsCode(OneCycleParamScheduler, 'x'), 'OneCycleParamScheduler'),
    (RunsCode(torch.load, 'x'), 'load'),
    (RunsCode(pickle.loads, b'x'), 'loads'),
    (RunsCode(torch.storage._load_from_bytes, b'x'), '_load_from_bytes'),
    (RunsCode(np.load, 'x'), 'load'),
])
def test_what_is_not_on_the_list_is_not_run(tmp_path, monkeypatch, payload,
                                            named, legacy):
    monkeypatch.chdir(tmp_path)
    torch.save(
        dict(state_dict={}, evil=payload),
        'evil.pth',
        _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match='not on the list') as error:
        load_checkpoint('evil.pth')
    assert named in str(error.value) and '\n' not in str(error.value)
    assert os.listdir() == ['evil.pth']


class Calls:
    """Is unpickled by a call, and given a state afterwards."""

    def __init__(self, function, arguments, state=None):
        self.reduced = (function, arguments) + (() if state is None else
                                                (state, ))

    def __reduce__(self):
        return self.reduced


def number_type(name, **changes):
    """A dtype as files hold it, altered."""
    state = dict(
        version=3,
        order='|',
        subtype=None,
        names=None,
        fields=None,
        size=-1,
        alignment=-1,
        flags=0)
    return Calls(np.dtype, (name, False, True),
                 tuple({
                     **state,
                     **changes
                 }.values()))


_OBJECT = dict(names=('a', ), fields=dict(a=(np.dtype('O'), 0)))


@pytest.mark.parametrize('payload, named', [
    (number_type('V8', **_OBJECT, size=8, alignment=1), 'dtype'),
    (number_type('f8', **_OBJECT), 'dtype'),
    (number_type('f8', flags=63), 'dtype'),
    (number_type('f8', order='x'), 'dtype'),
    (number_type('f8', order=''), 'dtype'),
    (number_type('O'), 'dtype'),
    (Calls(np.dtype, ([('a', 'O')], )), 'dtype'),
    (np.array(['text', None]), 'dtype'),
    (Calls(np.ndarray, ((1, ), number_type('f8'), b'A' * 8)), 'ndarray'),
    (Calls(np.arange(1).__reduce__()[0], (np.ndarray, (9, ), 'O')), 'array'),
    (torch.UntypedStorage, 'UntypedStorage'),
])
def test_what_reads_memory_where_a_file_says_is_refused(
        tmp_path, payload, named):
    path = str(tmp_path / 'evil.pth')
    torch.save(dict(state_dict={}, evil=payload), path)
    with pytest.raises(InputError, match='not on the list') as error:
        load_checkpoint(path)
    assert named in str(error.value)


def test_damaged_and_foreign_files_are_refused_in_one_line(tmp_path):
    good = tmp_path / 'good.pth'
    torch.save(dict(state_dict=dict(a=torch.rand(1000))), good)
    content = good.read_bytes()
    for name, data, complaint in [
        ('empty', b'', 'cannot be read as a checkpoint'),
        ('text', b'no checkpoint', 'cannot be read as a checkpoint'),
        ('truncated', content[:len(content) // 2],
         'cannot be read as a checkpoint'),
    ]:
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(InputError, match=complaint) as error:
            load_checkpoint(str(path))
        assert '\n' not in str(error.value)
    for path, complaint in ((tmp_path / 'missing.pth', 'does not exist'),
                            (tmp_path, 'is a folder')):
        with pytest.raises(
                InputError, match=f'{path} {complaint}: give {good}'):
            load_checkpoint(str(path))
    for content in (dict(model={}), [1], dict(state_dict=3)):
        torch.save(content, good)
        with pytest.raises(InputError, match='no state_dict'):
            load_checkpoint(str(good))
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(good))
    with pytest.raises(InputError, match='TorchScript'):
        load_checkpoint(str(good))


def test_sha256(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'abc')
    assert sha256_of(str(path)).startswith('ba7816bf8f01cfea')

# Copyright (c) The dspnet_mm authors. All rights reserved.
import json
import multiprocessing
import os
import time

import pytest

from dspnet_mm.files import kept_result


def work_until(folder, begun, end):
    """What a process of the tests does; tells of its own work by a file."""

    def work():
        open(os.path.join(begun, str(os.getpid())), 'w').close()
        wait_for(lambda: os.path.exists(end))
        return dict(worker=os.getpid())

    kept_result(folder, work)


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def begun(tmp_path):
    path = tmp_path / 'begun'
    path.mkdir()
    return path


@pytest.fixture
def start(tmp_path, begun):
    # A fork has everything imported.
    context = multiprocessing.get_context('fork')
    processes = []

    def start_():
        process = context.Process(
            target=work_until,
            args=(str(tmp_path / 'work'), str(begun), str(tmp_path / 'end')))
        process.start()
        processes.append(process)
        return process

    yield start_
    for process in processes:
        process.kill()


def test_two_processes_do_the_work_once(tmp_path, begun, start, capfd):
    first = start()
    wait_for(lambda: list(begun.iterdir()))
    second = start()
    told = []

    def second_waits():
        told.append(capfd.readouterr().err)
        return 'another process is at work there' in ''.join(told)

    wait_for(second_waits)
    (tmp_path / 'end').touch()
    for process in (first, second):
        process.join(60)
        assert process.exitcode == 0
    assert [path.name for path in begun.iterdir()] == [str(first.pid)]
    with open(tmp_path / 'work' / 'result.json') as file:
        assert json.load(file) == dict(worker=first.pid)


def test_who_was_killed_holds_nothing(tmp_path, begun, start):
    first = start()
    wait_for(lambda: list(begun.iterdir()))
    first.kill()
    first.join()
    (tmp_path / 'end').touch()
    second = start()
    second.join(60)
    assert second.exitcode == 0
    with open(tmp_path / 'work' / 'result.json') as file:
        assert json.load(file) == dict(worker=second.pid)


def test_work_may_begin_with_an_empty_folder_and_fail(tmp_path):
    folder = str(tmp_path / 'work')

    def fail():
        raise ValueError

    with pytest.raises(ValueError):
        kept_result(folder, fail)
    assert kept_result(folder, lambda: dict(value=1)) == dict(value=1)
    # What is there is not done again.
    assert kept_result(folder, fail) == dict(value=1)
    # Nothing that a shell's pattern for results would find.
    assert [
        path.name for path in tmp_path.iterdir()
        if not path.name.startswith('.')
    ] == ['work']

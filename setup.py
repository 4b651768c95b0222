# Copyright (c) The dspnet_mm authors. Licensed under Apache-2.0.
"""The commands of setuptools, taught to fill `dspnet_mm/.mim`.

`mim` looks for a package's configs and tools in `.mim` inside it. OpenMMLab's
usual recipe fills it after a look at `sys.argv`, which misses the editable
installs of newer versions of pip and setuptools. Here each command does its
own part:

* Building a wheel copies the files into the build directory.
* An editable install, of either kind, puts links into the source tree.
"""
import atexit
import os
import os.path as osp
import shutil
import tempfile
from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.develop import develop
from setuptools.command.egg_info import egg_info

try:
    from setuptools.command.build import build
except ImportError:  # setuptools < 62.4
    from distutils.command.build import build

PACKAGE = 'dspnet_mm'
ROOT = osp.dirname(osp.abspath(__file__))
MIM = osp.join(PACKAGE, '.mim')
MIM_CONTENT = ('configs', 'tools', 'model-index.yml')
IGNORED = shutil.ignore_patterns('__pycache__', '*.py[co]', '.*')


def read_version():
    """Read the version without importing the package, which needs torch."""
    scope = {}
    with open(osp.join(ROOT, PACKAGE, 'version.py'), encoding='utf-8') as f:
        exec(f.read(), scope)
    return scope['__version__']


def remove(path):
    """Remove a file, a directory or a link, whether it is there or not."""
    if osp.isdir(path) and not osp.islink(path):
        shutil.rmtree(path)
    elif osp.lexists(path):
        os.remove(path)


def mim_sources():
    """List the entries of `.mim` with what they stand for."""
    for name in MIM_CONTENT:
        source = osp.join(ROOT, name)
        if not osp.exists(source):
            raise FileNotFoundError(
                f'{source} is missing: it belongs into {MIM}')
        yield name, source


def copy_mim(build_lib):
    """Copy the content of `.mim` into a build directory."""
    target = osp.join(build_lib, MIM)
    # Files that are gone from the source tree must not come back.
    remove(target)
    os.makedirs(target)
    for name, source in mim_sources():
        if osp.isdir(source):
            shutil.copytree(source, osp.join(target, name), ignore=IGNORED)
        else:
            shutil.copy2(source, osp.join(target, name))


def link_mim():
    """Link the content of `.mim` into the source tree."""
    mim = osp.join(ROOT, MIM)
    remove(mim)
    os.makedirs(mim)
    for name, source in mim_sources():
        try:
            os.symlink(osp.relpath(source, mim), osp.join(mim, name))
        except OSError:  # Windows lets only some users make links.
            if osp.isdir(source):
                shutil.copytree(source, osp.join(mim, name), ignore=IGNORED)
            else:
                shutil.copy2(source, osp.join(mim, name))


def temporary_directory(command):
    """Make a directory that goes when this process ends.

    Builds of a wheel work there. In the source tree they would leave `build`
    and `*.egg-info` behind, and the next wheel would get what was deleted
    since.
    """
    path = tempfile.mkdtemp(prefix=f'{PACKAGE}-{command}-')
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


class Build(build):

    def finalize_options(self):
        if (self.build_base == 'build'
                and 'bdist_wheel' in self.distribution.command_obj):
            self.build_base = temporary_directory('build')
        super().finalize_options()


class EggInfo(egg_info):

    def finalize_options(self):
        if (self.egg_base is None
                and 'bdist_wheel' in self.distribution.command_obj):
            self.egg_base = temporary_directory('egg-info')
        super().finalize_options()


class BuildPy(build_py):

    def run(self):
        super().run()
        if getattr(self, 'editable_mode', False):
            link_mim()
        else:
            copy_mim(self.build_lib)

    def get_output_mapping(self):
        """Name the files of `.mim` as well: strict editable installs link
        what is named here, one by one."""
        mapping = super().get_output_mapping()
        for name, source in mim_sources():
            files = [source]
            if osp.isdir(source):
                files = []
                for folder, _, names in os.walk(source):
                    ignored = IGNORED(folder, names)
                    files += [
                        osp.join(folder, name)
                        for name in sorted(set(names) - ignored)
                        if '__pycache__' not in folder
                    ]
            for file in files:
                target = osp.join(self.build_lib, MIM, osp.relpath(file, ROOT))
                mapping[target] = osp.relpath(file)
        return mapping


class Develop(develop):

    def run(self):
        super().run()
        if getattr(self, 'uninstall', False):
            remove(osp.join(ROOT, MIM))
        else:
            link_mim()


if __name__ == '__main__':
    setup(
        version=read_version(),
        packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
        # With it, what the links in .mim lead to would count as package data.
        include_package_data=False,
        cmdclass=dict(
            build=Build,
            build_py=BuildPy,
            develop=Develop,
            egg_info=EggInfo,
        ),
    )

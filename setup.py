"""Builds the package. Here is what is computed, from ``mmdet_iouquery/version.py``; ``pyproject.toml`` has the rest."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
VERSION = runpy.run_path(str(ROOT / 'mmdet_iouquery' / 'version.py'), run_name='mmdet_iouquery_version')
REPOSITORY = VERSION['REPOSITORY']
IMAGE_SUFFIXES = ('.gif', '.jpg', '.png', '.svg', '.webp')
SHIPPED = ('configs', 'tools', 'model-index.yml')


class BuildWithConfigs(build_py):
    """Puts configs, tools and the model index into ``mmdet_iouquery/.mim`` of the build, where ``mim`` looks for them.

    Nothing is copied in the source tree, and nothing at all for an editable installation, which reads the checkout.
    """

    def run(self) -> None:
        """Build the modules, then copy what a wheel ships beside them."""
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        target = Path(self.build_lib) / 'mmdet_iouquery' / '.mim'
        shutil.rmtree(target, ignore_errors=True)  # an earlier build may have left a config that is gone since
        target.mkdir(parents=True)
        for name in SHIPPED:
            self.copy_shipped(ROOT / name, target / name)

    def copy_shipped(self, source: Path, target: Path) -> None:
        """Copy one file or folder, leaving compiled Python files behind."""
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__', '*.py[cod]', '.*'))
        elif source.is_file():
            shutil.copyfile(source, target)


def family(name: str) -> list[str]:
    """The requirements of one package family."""
    return [package.requirement for package in VERSION['FAMILIES'][name]]


def absolute(link: re.Match[str]) -> str:
    """The address of what a page links to by its place in the repository."""
    target = link.group()
    return f'{REPOSITORY}/{"raw" if target.endswith(IMAGE_SUFFIXES) else "blob"}/main/{target}'


def long_description() -> str:
    """The README, where there is one; its links are made absolute, which the package index needs."""
    readme = ROOT / 'README.md'
    text = readme.read_text(encoding='utf-8') if readme.is_file() else ''
    return re.sub(r'(?<=]\()(?!\w+:)\w[\w./-]*', absolute, text)


setup(
    version=VERSION['__version__'],
    long_description=long_description(),
    long_description_content_type='text/markdown',
    python_requires='>=' + '.'.join(map(str, VERSION['PYTHON_MINIMUM'])),
    project_urls={
        'Homepage': REPOSITORY,
        'Documentation': f'{REPOSITORY}/tree/main/docs',
        'Changelog': f'{REPOSITORY}/blob/main/CHANGELOG.md',
        'Issues': f'{REPOSITORY}/issues',
    },
    cmdclass={'build_py': BuildWithConfigs},
    extras_require={
        'onedl': [*family('onedl'), 'setuptools; python_version >= "3.12"'],
        'openmmlab': [*family('openmmlab'), 'setuptools<82'],  # mmengine imports pkg_resources, dropped in 82
        'quickstart': ['Pillow', 'scikit-learn'],
        'convert': ['safetensors'],
        'export': ['onnx>=1.16', 'onnxruntime>=1.17', 'onnxslim>=0.1.50'],
        'export-dynamo': ['onnxscript>=0.5'],
        'openvino': ['openvino>=2024.6'],
        'quantize': ['nncf>=2.14', 'openvino>=2024.6'],
        'hub': ['huggingface_hub>=0.30', 'safetensors'],
        'scale': ['pyarrow', 'ray[data]>=2.60,<3; python_version >= "3.10"', 'tqdm'],
        'log-mlflow': ['alembic', 'mlflow-skinny>=3.5', 'sqlalchemy'],  # MLflow's page is in `mlflow` alone
        'log-tensorboard': ['tensorboard'],
        'log-wandb': ['wandb'],
        'fast': [VERSION['FASTER_COCO_EVAL'].requirement],
        'demo': ['gradio>=6; python_version >= "3.10"'],  # which has no release 6 for older ones
        'completion': ['shtab'],
        'docs': [
            'mkdocs>=1.6.1,<2',
            'mkdocs-material>=9.8',
            'mkdocstrings>=1.0.8',
            'mkdocstrings-python>=2.0.11',
            'ruff',
        ],
        'test': [
            VERSION['FASTER_COCO_EVAL'].requirement,
            'alembic',
            'duckdb',
            'griffelib>=2; python_version >= "3.10"',
            'hypothesis',
            'litserve; python_version >= "3.10"',
            'mlflow-skinny>=3.5; python_version >= "3.10"',
            'moto[server,s3]',
            'pytest',
            'pytest-cov',
            'pytest-timeout',
            'pytest-xdist[psutil]',
            'safetensors',
            'setuptools>=77',
            'shtab',
            'sqlalchemy',
            'supervision; python_version >= "3.10"',
            'tensorboard',
            'transformers',
        ],
        'test-demo': ['selenium'],
        'test-triton': ['triton; platform_system == "Linux"'],  # torch's CUDA builds bring it
        'dev': ['check-jsonschema', 'mypy', 'pre-commit', 'ruff'],
        'release': ['build', 'check-wheel-contents', 'twine'],
    },
)

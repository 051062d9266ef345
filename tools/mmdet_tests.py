"""Run mmdet's own tests with mmdet_iouquery imported: python tools/mmdet_tests.py [--adapters] [--source TREE] [...]

Further arguments go to pytest. Needs a checkout of this project; see docs/mmdet-tests.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from mmdet_iouquery.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


def parse_args(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """Read the command line; what is not known here is pytest's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--adapters', action='store_true', help="the detectors' tests, on the adapters of this package")
    parser.add_argument('--source', type=Path, help='a source tree of mmdet with tests (default: fetched)')
    parser.add_argument('--cache', type=Path, default=ROOT / 'build' / 'mmdet-tests', help='what is fetched goes here')
    return parser.parse_known_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run; returns pytest's exit status, 2 for input that a person can mend."""
    args, pytest_arguments = parse_args(arguments)
    sys.path.insert(0, str(ROOT / 'tests'))
    from mmdet_suite import sources  # which imports mmengine

    try:
        installed = sources.installed_mmdet()
        tree = sources.find_tests(installed, args.cache.resolve(), args.source)
        requirements = sources.fetch_requirement(args.cache.resolve())
        with tempfile.TemporaryDirectory() as folder:
            sources.lay_out(Path(folder), installed.package, tree)
            print(f'tests of {tree}, {installed.name} {installed.version}', flush=True)
            return sources.run(Path(folder), requirements, adapters=args.adapters, arguments=pytest_arguments)
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    raise SystemExit(main())

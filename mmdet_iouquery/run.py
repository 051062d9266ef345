"""``python -m mmdet_iouquery.run TOOL ARGS``: a tool of mmdet's, or any Python file, with this package imported first.

Where mmcv has no compiled operators, a program that imports mmdet first fails at that import; with this package
imported before it, operators are stood in for. The tool runs as ``__main__`` and its exit status is that of this
program. TOOL is a path, or the name of a tool that came with mmdet: ``get_flops``, ``analysis_tools/get_flops.py``.
Names of this package's configs among its arguments become their paths.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from . import compat, register
from .config_files import config_path
from .errors import InputError

NAME = 'mmdet_iouquery.run'
_RUNNING = 'MMDET_IOUQUERY_RUN'  # the file that is run, in the environment of the processes that it starts


def mmdet_tools(package: Path | None = None) -> dict[str, Path]:
    """The Python programs that came with mmdet, by their path within its folder ``tools``; its demos as ``demo/...``.

    Args:
        package: mmdet's package folder; None: that of the installed one. A wheel carries the programs inside, in
            ``.mim``; in a source tree they are beside it.
    """
    if package is None:
        spec = compat.find_module('mmdet')
        if spec is None or spec.origin is None:
            return {}
        package = Path(spec.origin).parent
    in_source = (package.parent / 'setup.py').is_file()
    tools_found = {}
    for folder, prefix in (('tools', ''), ('demo', 'demo/')):
        root = package.parent / folder if in_source else package / '.mim' / folder
        tools_found.update({prefix + path.relative_to(root).as_posix(): path for path in sorted(root.rglob('*.py'))})
    return tools_found


def find_tool(name: str, tools: dict[str, Path]) -> Path:
    """The file that a path or a tool's name stands for, the ending ``.py`` given or not.

    Of several tools of one file name the one in the fewest folders is meant.

    Raises:
        InputError: there is none; the message lists names that come close.
    """
    if Path(name).is_file():
        return Path(name).resolve()
    wanted = name.removesuffix('.py')
    known = {tool.removesuffix('.py'): path for tool, path in tools.items()}
    if wanted in known:
        return known[wanted]
    same = sorted((tool for tool in known if tool.rsplit('/', 1)[-1] == wanted), key=lambda tool: tool.count('/'))
    if same and (len(same) == 1 or same[0].count('/') < same[1].count('/')):
        return known[same[0]]
    if same:
        raise InputError(f'{name!r} may be any of {", ".join(same)}; name one of them')
    if not known:
        raise InputError(f'there is no file {name}, and the mmdet installed here came without tools; give a path')
    by_file = {tool.rsplit('/', 1)[-1]: tool for tool in known}
    close = [by_file[match] for match in _alike(wanted.rsplit('/', 1)[-1], by_file)]
    hint = f'close to it: {", ".join(close)}' if close else f'`python -m {NAME}` lists them'
    raise InputError(f'there is no file {name}, and no tool of that name came with mmdet; {hint}')


def _alike(name: str, known: Iterable[str]) -> list[str]:
    """Names close to a misspelt one; a word of theirs, as ``browse`` of ``browse_dataset``, counts as well."""
    words: dict[str, list[str]] = {}
    for tool in known:
        for word in {tool, *tool.split('_')}:
            words.setdefault(word, []).append(tool)
    close = difflib.get_close_matches(name, words, n=5)
    return [*dict.fromkeys(tool for word in close for tool in words[word])][:5]


def run_file(path: Path, arguments: Sequence[str]) -> None:
    """Run a Python file as the main program, its folder first in ``sys.path``.

    A process that is spawned from it imports this module in place of the file, see the end of it: so it, too, has this
    package imported before the file.
    """
    sys.argv, os.environ[_RUNNING] = [str(path), *arguments], str(path)
    sys.path.insert(0, str(path.parent))
    main = ModuleType('__main__')
    main.__file__ = str(path)
    main.__spec__ = ModuleSpec(NAME, loader=None)
    sys.modules['__main__'] = main
    exec(compile(path.read_bytes(), str(path), 'exec'), main.__dict__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a tool; what it raises, its exit status among it, goes through. 2 where there is no such tool."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    tools = mmdet_tools()
    if given[:1] in ([], ['-h'], ['--help']):
        print(f'usage: python -m {NAME} TOOL ARGS\n\nTOOL is a path, or one of those that came with mmdet:')
        print('\n'.join(f'  {name}' for name in tools) or '  (none)')
        return 0
    try:
        path = find_tool(given[0], tools)
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return error.status
    register()
    run_file(path, [_with_config(argument) for argument in given[1:]])
    return 0


def _with_config(argument: str) -> str:
    """The path of a shipped config where an argument is its name, and no file."""
    if not argument.endswith('.py') or Path(argument).exists():
        return argument
    try:
        return config_path(argument)
    except InputError:
        return argument


if __name__ == '__main__':
    sys.exit(main())
elif __name__ == '__mp_main__':  # a process spawned from the tool, which may be sent what the tool defines
    import runpy

    globals().update(runpy.run_path(os.environ[_RUNNING], run_name='__mp_main__'))

#!/usr/bin/env bash
# Makes the environment that the make targets run in. Called by make, with everything in the environment:
#   PYTHON       interpreter to start from                        (python3)
#   VENV         folder of the virtual environment                (.venv)
#   USE_CURRENT  1: install into PYTHON's own environment instead
#   FAMILY       onedl or openmmlab
#   TORCH        requirement used when the environment has no torch; a torch that is there is never touched
#   EXTRAS       extras of this package, separated by commas
# A file in the environment records what is done, so that a second call is quick; it is written last, so that a set-up
# that failed is continued by the next call.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
FAMILY=${FAMILY:-onedl}
TORCH=${TORCH:-torch==2.13.0}
EXTRAS=${EXTRAS:-quickstart,convert,test,dev}

say() { printf 'setup: %s\n' "$*"; }
refuse() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

case $FAMILY in
onedl) oldest=10 ;;
openmmlab) oldest=9 ;;
*) refuse "FAMILY is onedl or openmmlab, not '$FAMILY'." ;;
esac

check_python() {
    command -v "$PYTHON" >/dev/null || refuse "there is no '$PYTHON' here; name an interpreter with PYTHON=..."
    "$PYTHON" -c "import sys; sys.exit(sys.version_info < (3, $oldest))" ||
        refuse "the $FAMILY packages need Python >= 3.$oldest and '$PYTHON' is older; name another with PYTHON=..."
}

make_venv() {
    python=$VENV/bin/python
    if [ -x "$python" ] && "$python" -m pip --version >/dev/null 2>&1; then return; fi
    check_python
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
        refuse "'$PYTHON' lacks the venv module; on Debian and Ubuntu: apt install python3-venv"
    say "making $VENV with $("$PYTHON" --version)"
    "$PYTHON" -m venv "$VENV"
}

if [ "${USE_CURRENT:-}" = 1 ]; then
    check_python
    python=$PYTHON
    "$python" -m pip --version >/dev/null 2>&1 || refuse "'$python' has no pip; install it or leave USE_CURRENT out"
else
    make_venv
fi
home=$("$python" -c 'import sys; print(sys.prefix)')

# The checkout that this package is installed from, where that is another one that is still there.
other_checkout() {
    "$python" - <<'PY'
import importlib.metadata
import json
import os
import sys
import urllib.request

for found in importlib.metadata.distributions(name='mmdet-iouquery', path=sys.path[1:]):  # without this folder
    origin = json.loads(found.read_text('direct_url.json') or '{}')
    if origin.get('dir_info', {}).get('editable'):
        path = urllib.request.url2pathname(origin['url'].partition('file://')[2])
        if os.path.isdir(path) and not os.path.samefile(path, '.'):
            print(path)
PY
}

other=$(other_checkout)
[ -z "$other" ] || refuse "$home has this package from another checkout, $other, which would no longer be the one in use;" \
    "choose another folder with VENV=..., or first: $python -m pip uninstall mmdet-iouquery"

inputs=$(cat setup.py pyproject.toml mmdet_iouquery/version.py tools/setup_env.sh | cksum | tr ' ' '-')
stamp=$home/.mmdet_iouquery-$FAMILY-$inputs

# Which of the extras asked for are not installed yet, separated by blanks.
pending() {
    local extra
    for extra in ${EXTRAS//,/ }; do
        grep -qsxF "$extra@$PWD" "$stamp" || printf '%s ' "$extra"
    done
}

todo=$(pending)
[ -n "$todo" ] || exit 0

# One line for each package of the family that is missing; leaves with the sentence to say when the other family is here.
missing_pins() {
    "$python" - "$FAMILY" <<'PY'
import importlib.metadata
import runpy
import sys

chosen, families = sys.argv[1], runpy.run_path('mmdet_iouquery/version.py', run_name='version')['FAMILIES']


def installed(name):
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


for family, packages in families.items():
    here = [name for package in packages for name in package.distributions if installed(name)]
    if family != chosen and here:
        sys.exit(f'setup: {sys.prefix} holds the {family} family ({", ".join(here)}), which writes the same files as '
                 f'{chosen}; use another folder, for instance VENV=.venv-{chosen}.')
for package in families[chosen]:
    if not any(map(installed, package.distributions)):
        print(package.pin)
PY
}

found_torch() {
    "$python" -c 'import importlib.metadata as metadata; print(metadata.version("torch"))' 2>/dev/null || true
}

# pip writes RECORD last: what lacks it was being installed when a set-up was stopped, and would count as installed.
if [ "${USE_CURRENT:-}" != 1 ]; then
    for folder in "$home"/lib/python*/site-packages/*.dist-info; do
        if [ -d "$folder" ] && ! [ -e "$folder/RECORD" ]; then
            say "installing $(basename "$folder" .dist-info) again: its installation was stopped half-way"
            rm -rf "$folder"
        fi
    done
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
constraints=$scratch/constraints.txt

pip_install() {
    "$python" -m pip install -qq --disable-pip-version-check "$@" ||
        refuse 'pip failed, see above; mend what it says and call make again: it goes on from here.'
}

pins=$(missing_pins)
if [ -z "$(found_torch)" ]; then
    say "installing $TORCH (once; this is the large download)"
    pip_install "$TORCH"
fi
printf 'torch==%s\n' "$(found_torch)" >"$constraints"
if [ "$FAMILY" = openmmlab ]; then printf 'setuptools<82\n' >>"$constraints"; fi
say "torch $(found_torch) stays as it is"

if [ -n "$pins" ]; then
    say "installing the $FAMILY family:" $pins
    # shellcheck disable=SC2086 # one argument a line
    pip_install -c "$constraints" $pins
fi
# two environments made at once would write this checkout's egg-info at the same time
if command -v flock >/dev/null; then exec 9<. && flock 9; fi
say "installing this package with ${todo% }"
pip_install -c "$constraints" -e ".[$(printf '%s' "${todo% }" | tr ' ' ',')]"

for extra in $todo; do printf '%s@%s\n' "$extra" "$PWD" >>"$stamp"; done
say "ready: $home"

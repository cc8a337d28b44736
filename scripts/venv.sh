#!/bin/sh
# Makes .venv exactly as a lock says, with the project itself in it (editable). Called by make from the project's root: `venv.sh` for all that the
# checks and tests need, `venv.sh run` for what Mainstay and its jobs run on, which is a fifth of it.
set -eu
kind=${1:-done}
case $kind in
run) lock=requirements.lock ;;
done) lock=requirements-dev.lock ;;
*) echo "venv.sh: run or nothing, not $kind" >&2; exit 2 ;;
esac

fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

python=
for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if command -v "$name" >/dev/null && fits "$name"; then python=$name; break; fi
done
if [ -z "$python" ]; then
    echo "make: no Python 3.11 or newer found (looked for ${PYTHON:-python3, python3.13, python3.12, python3.11} in PATH)." >&2
    echo "      Debian 12+, Ubuntu 24.04+: apt-get install python3 python3-venv. Ubuntu 22.04: apt-get install python3.11 python3.11-venv" >&2
    echo "      Another place: make venv PYTHON=/path/to/python3.12" >&2
    exit 1
fi
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "make: $(command -v "$python") cannot make virtual environments: apt-get install python$version-venv (or python3-venv)" >&2
    exit 1
fi

# A .venv from elsewhere (the directory was moved, its Python was removed or is another release) is made anew, a good one is kept.
wanted=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! [ "$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$wanted" ] ||
    ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "make: .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi
rm -f ".venv/.$kind"
echo "make: installing the packages of $lock"
.venv/bin/python -m pip install --disable-pip-version-check -qq --require-hashes -r "$lock"
# "compat": a plain path entry instead of an import hook, which would cost every start of the daemon several milliseconds.
.venv/bin/python -m pip install --disable-pip-version-check -qq --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
touch ".venv/.$kind"
[ "$kind" = run ] || touch .venv/.run # the larger lock holds the smaller one

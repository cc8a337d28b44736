#!/bin/sh
# Gives data/source, what the example jobs read: the real data set where it lies beside the project, else a made-up community of the same
# shape. Called by `make data`, from the project's root; a second call does nothing. SOURCE=DIR takes a directory of your own.
set -eu
mkdir -p data
if [ -n "${SOURCE:-}" ]; then
    [ -e "$SOURCE" ] || { echo "make: no such data: $SOURCE" >&2; exit 1; }
    ln -sfn "$(cd "$(dirname "$SOURCE")" && pwd)/$(basename "$SOURCE")" data/source
elif [ -e data/source ]; then
    exit 0
elif [ -d ../shared/data/uci-messages ]; then
    ln -sfn ../../shared/data/uci-messages data/source
else
    [ -x .venv/bin/python ] || make venv
    .venv/bin/python jobs/community.py --output data/community.db
    ln -sfn community.db data/source
fi
echo "make: data/source -> $(readlink data/source)"

#!/bin/sh
# Draws the pictures and trains on them; with SHAPES_ROOT=s3://bucket/prefix they go there and are read from there.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
PATH="$PATH:$here/../../.venv/bin"              # raypipe from PATH, or else from this checkout
PATH="$(dirname "$(command -v raypipe)"):$PATH" # and the python3 beside it, which has what make_data.py imports
python3 "$here/make_data.py" ${SHAPES_ROOT:+"$SHAPES_ROOT"} >&2
exec raypipe run "$here/pipeline.yaml" --no-wait ${SHAPES_ROOT:+--set "data.root=$SHAPES_ROOT"} "$@"

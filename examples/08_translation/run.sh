#!/bin/sh
# Makes the phrases and trains on them. Extra words go to `raypipe run`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
PATH="$PATH:$here/../../.venv/bin" # raypipe from PATH, or else from this checkout
python3 "$here/make_data.py" >&2
exec raypipe run "$here/pipeline.yaml" --no-wait "$@"

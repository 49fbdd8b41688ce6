#!/bin/sh
# Makes the sounds and trains on them. Extra words go to `raypipe run`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
PATH="$PATH:$here/../../.venv/bin"              # raypipe from PATH, or else from this checkout
PATH="$(dirname "$(command -v raypipe)"):$PATH" # and the python3 beside it, which has what make_data.py imports
python3 "$here/make_data.py" >&2
exec raypipe run "$here/pipeline.yaml" --no-wait "$@"

#!/bin/sh
# Makes the data, then the classifier (with a search) and the regression. Extra words go to both `raypipe run`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
PATH="$PATH:$here/../../.venv/bin" # raypipe from PATH, or else from this checkout
python3 "$here/make_data.py" >&2
raypipe run "$here/classification.yaml" --no-wait "$@"
raypipe run "$here/regression.yaml" --no-wait "$@"

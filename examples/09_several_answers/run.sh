#!/bin/sh
# Makes the data, then all three models. Extra words go to each `raypipe run`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
PATH="$PATH:$here/../../.venv/bin" # raypipe from PATH, or else from this checkout
python3 "$here/make_data.py" >&2
for file in labels numbers rare; do
    raypipe run "$here/$file.yaml" --no-wait "$@"
done

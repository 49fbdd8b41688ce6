#!/bin/sh
# Makes the data, then the classifier (with a search) and the regression. Extra words go to both `raypipe run`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
PATH="$PATH:$here/../../.venv/bin" # raypipe from PATH, or else from this checkout
python3 "$here/make_data.py" >&2
# Masks the sellers' addresses. For data of your own keep the key, as a secret: another key gives other values.
: "${FLATS_KEY:=$(python3 -c 'import secrets; print(secrets.token_hex(32))')}"
export FLATS_KEY
raypipe run "$here/classification.yaml" --no-wait "$@"
raypipe run "$here/regression.yaml" --no-wait "$@"

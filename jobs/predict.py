"""Ray job: predict whole files with a registered model.

ray job submit --address URL --working-dir . -- python jobs/predict.py --model digits --input s3://b/in --output s3://b/out
"""

import argparse
from pathlib import Path

from raypipe.cli.output import exit_codes, show
from raypipe.cli.serving import BY_PATH, predict_files

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", required=True, help="MODEL, MODEL@ALIAS or MODEL@VERSION")
parser.add_argument("--input", required=True, help="file, folder, glob or s3:// prefix")
parser.add_argument("--format", help=f"{BY_PATH}; unset: by the input's ending, else as in training")
parser.add_argument("--read", action="append", metavar="FIELD=VALUE", help="of data.source, else as in training")
parser.add_argument("--output", required=True, help="folder or s3:// prefix")
parser.add_argument("--workers", type=int, default=1, help="scoring processes")
parser.add_argument("--store", help="folder or s3://bucket/prefix")
parser.add_argument("--code", type=Path, default=Path(), help="folder of the model's own module; unset: the job's own")
args = parser.parse_args()

with exit_codes():
    files = args.model, args.input, args.output, args.format, args.workers
    written = predict_files(*files, read=args.read, store=args.store, code_dir=args.code)
    show(written.model_dump_json())

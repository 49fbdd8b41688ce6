"""Ray job: give the model its version.

ray job submit --address URL --working-dir . -- python jobs/register.py --config pipeline.yaml --store s3://bucket/prefix
"""

import argparse

from raypipe import Pipeline
from raypipe.cli.output import exit_codes, show

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--config", required=True, help="pipeline file")
parser.add_argument("--set", dest="sets", action="append", default=[], help="field=value; repeatable")
parser.add_argument("--store", help="folder or s3://bucket/prefix")
parser.add_argument("--run", help="run to work in; made if new")
args = parser.parse_args()

with exit_codes():
    pipeline = Pipeline.load(args.config, args.sets, args.store)
    result = pipeline.run(only="register", run_id=args.run)
    show(result.records["register"].model_dump_json())

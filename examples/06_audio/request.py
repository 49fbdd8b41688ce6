"""Prints the request that asks what a sound is.

python request.py FILE
"""

import json
import sys
import wave

import numpy as np

with wave.open(sys.argv[1]) as file:
    samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768  # [8000] in [-1, 1)
print(json.dumps({"instances": [{"audio": samples.tolist()}]}))

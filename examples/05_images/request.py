"""Prints the request that asks what is in a picture.

python request.py FILE
"""

import json
import sys

import numpy as np
from PIL import Image

image = np.asarray(Image.open(sys.argv[1]).convert("RGB"))  # [48, 48, 3], 0 to 255: the model resizes and normalizes
print(json.dumps({"instances": [{"image": image.tolist()}]}))

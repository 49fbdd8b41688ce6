"""LitServe as its documentation writes it, so without annotations, which it would read: PORT MAX_BATCH_SIZE."""

import sys

import litserve
import numpy as np
from network import plain_answers, probabilities


class Digits(litserve.LitAPI):
    def setup(self, device):
        self.batched = self.max_batch_size > 1

    def decode_request(self, request):
        return np.array(request["instances"][0]["image"], dtype=np.uint8)

    def predict(self, x):
        rows = plain_answers(probabilities(np.stack(x) if self.batched else x[None]))
        return rows if self.batched else rows[0]

    def encode_response(self, output):
        return {"predictions": [output]}


if __name__ == "__main__":
    port, max_batch_size = int(sys.argv[1]), int(sys.argv[2])
    api = Digits(max_batch_size=max_batch_size, batch_timeout=0.001 if max_batch_size > 1 else 0.0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=port, num_api_servers=1, generate_client_file=False, log_level="error")

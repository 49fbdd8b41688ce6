"""NVIDIA's tritonclient over gRPC."""

import numpy as np
import tritonclient.grpc as triton
from asking import Endpoint, main


def ask(endpoint: Endpoint, tensor: np.ndarray) -> np.ndarray:
    client = triton.InferenceServerClient(endpoint.grpc)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(endpoint.model)
    assert client.get_model_metadata(endpoint.model).inputs[0].name == "x"
    sent = triton.InferInput("x", list(tensor.shape), "FP32")
    sent.set_data_from_numpy(tensor)
    return client.infer(endpoint.model, [sent]).as_numpy("probabilities")


main(ask)

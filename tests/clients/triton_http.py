"""NVIDIA's tritonclient over HTTP: tensors as JSON, or as bytes behind it."""

import numpy as np
import tritonclient.http as triton
from asking import Endpoint, main


def ask(endpoint: Endpoint, tensor: np.ndarray) -> np.ndarray:
    is_binary = endpoint.how == "binary"
    client = triton.InferenceServerClient(endpoint.address)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(endpoint.model)
    assert client.get_model_metadata(endpoint.model)["inputs"][0]["name"] == "x"
    sent = triton.InferInput("x", list(tensor.shape), "FP32")
    sent.set_data_from_numpy(tensor, binary_data=is_binary)
    wanted = [triton.InferRequestedOutput(name, binary_data=is_binary) for name in ("probabilities", "label")]
    compression = "gzip" if endpoint.how == "gzip" else None
    answer = client.infer(
        endpoint.model,
        [sent],
        outputs=wanted,
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    probabilities, labels = answer.as_numpy("probabilities"), answer.as_numpy("label")
    assert labels.shape == (len(tensor),)
    return probabilities


main(ask)

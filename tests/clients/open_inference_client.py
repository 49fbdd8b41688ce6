"""The Open Inference working group's client, made from the protocol's OpenAPI document."""

import numpy as np
from asking import Endpoint, main
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.types import InferenceRequest, RequestInput, TensorData


def ask(endpoint: Endpoint, tensor: np.ndarray) -> object:
    client = OpenInferenceClient(base_url=endpoint.url)
    client.check_server_liveness()
    client.check_server_readiness()
    client.check_model_readiness(endpoint.model)
    assert client.read_model_metadata(endpoint.model).inputs[0].name == "x"
    data = TensorData(__root__=tensor.ravel().tolist())
    sent = RequestInput(name="x", shape=list(tensor.shape), datatype="FP32", data=data)
    answer = client.model_infer(endpoint.model, request=InferenceRequest(inputs=[sent]))
    (output,) = (output for output in answer.outputs if output.name == "probabilities")
    return np.reshape(output.data.__root__, output.shape)


main(ask)

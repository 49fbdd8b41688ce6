"""KServe's own clients: v1 over REST, v2 over REST (JSON and bytes) and over gRPC."""

import asyncio
import sys

import numpy as np
from asking import NOT_INSTALLED, Endpoint, main, probabilities_of

try:
    from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
except ImportError:  # it has no wheel for the newest Pythons
    sys.exit(NOT_INSTALLED)


async def ask_v1(endpoint: Endpoint, tensor: np.ndarray) -> object:
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    assert await client.is_model_ready(endpoint.url, endpoint.model)
    answer = await client.infer(endpoint.url, {"instances": tensor.tolist()}, model_name=endpoint.model)
    return probabilities_of(answer["predictions"])


async def ask_v2(endpoint: Endpoint, tensor: np.ndarray) -> object:
    sent = InferInput("x", list(tensor.shape), "FP32")
    sent.set_data_from_numpy(tensor, binary_data=endpoint.how != "v2-json")
    request = InferRequest(endpoint.model, [sent])
    if endpoint.how == "v2-grpc":
        async with InferenceGRPCClient(endpoint.grpc) as client:
            assert await client.is_server_ready() and await client.is_model_ready(endpoint.model)
            answer = await client.infer(request)
    else:
        async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
            assert await client.is_server_ready(endpoint.url) and await client.is_server_live(endpoint.url)
            assert await client.is_model_ready(endpoint.url, endpoint.model)
            answer = await client.infer(endpoint.url, request, model_name=endpoint.model)
    (output,) = (output for output in answer.outputs if output.name == "probabilities")
    return output.as_numpy()


main(lambda endpoint, tensor: asyncio.run((ask_v1 if endpoint.how == "v1" else ask_v2)(endpoint, tensor)))

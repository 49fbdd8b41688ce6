"""AWS's sagemaker-runtime client, pointed at an endpoint of one's own: JSON, and CSV both ways."""

import csv
import io
import json

import boto3
import numpy as np
from asking import Endpoint, main, probabilities_of
from botocore.config import Config


def ask(endpoint: Endpoint, tensor: np.ndarray) -> object:
    client = boto3.client(
        "sagemaker-runtime",
        endpoint_url=endpoint.url,
        region_name="us-east-1",
        aws_access_key_id="nobody",
        aws_secret_access_key="nothing",
        config=Config(retries={"total_max_attempts": 1}),
    )
    if endpoint.how == "csv":
        lines = "\n".join(",".join(map(str, row.ravel().tolist())) for row in tensor)
        answer = client.invoke_endpoint(
            EndpointName=endpoint.model, ContentType="text/csv", Accept="text/csv", Body=lines
        )
        assert answer["ContentType"] == "text/csv"
        return [line[1:] for line in csv.reader(io.StringIO(answer["Body"].read().decode()))]
    body = json.dumps({"instances": tensor.tolist()})
    answer = client.invoke_endpoint(EndpointName=endpoint.model, ContentType="application/json", Body=body)
    return probabilities_of(json.loads(answer["Body"].read())["predictions"])


main(ask)

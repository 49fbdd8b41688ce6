"""MLflow's scoring client: an array, or a DataFrame whose cells are lists."""

import sys

import numpy as np
from asking import NOT_INSTALLED, Endpoint, main, probabilities_of
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

try:
    import pandas as pd
    import scipy  # noqa: F401  # MLflow's own code imports it
except ImportError:  # mlflow-skinny comes without both, and cannot write a request then
    sys.exit(NOT_INSTALLED)


def ask(endpoint: Endpoint, tensor: np.ndarray) -> object:
    host, port = endpoint.address.split(":")
    client = ScoringServerClient(host, int(port))
    client.ping()
    assert client.get_version()
    sent = pd.DataFrame({"x": tensor.tolist()}) if endpoint.how == "dataframe" else tensor
    return probabilities_of(client.invoke(sent).get_predictions(predictions_format="ndarray").tolist())


main(ask)

# boto3 builds its classes at run time and ships no types; here its names are Any, so that strict rooms can use them.
from typing import Any

def __getattr__(name: str) -> Any: ...

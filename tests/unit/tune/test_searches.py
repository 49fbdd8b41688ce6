"""Every search, without Ray: a trial's epochs are a function of its point."""

from __future__ import annotations

import pytest

from raypipe.testing.contracts import SearchContract
from raypipe.tune.search import SEARCHES


@pytest.mark.parametrize("name", SEARCHES)
def test_search_of_every_kind_keeps_the_contract(name: str) -> None:
    contract = SearchContract(name)
    contract.check_search()
    contract.check_goes_on()
    contract.check_side_by_side()

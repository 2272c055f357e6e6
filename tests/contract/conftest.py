import pytest

from maotune.contract import AbstractLearner
from tests.contract.members import TABLE, make


@pytest.fixture(params=TABLE, ids=lambda row: row[0] + "+dept" * row[1])
def learner(request: pytest.FixtureRequest) -> AbstractLearner:
    return make(*request.param).eval()

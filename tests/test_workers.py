import pytest


def test_groups_stay_on_one_worker(request):
    """pytest-xdist reads a group from the node id; where it cannot, servers and fixtures are made again everywhere."""
    if not request.config.getoption("loadgroup", False):
        pytest.skip("this is one process")
    assert request.node.nodeid.endswith(f"@{request.node.path}")

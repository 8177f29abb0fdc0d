"""Exported files have the bytes that they had when they were recorded."""

import pytest
import small


@pytest.mark.parametrize("case", small.golden("exports")["cases"])
def test_file_has_the_recorded_bytes(case, compare):
    recorded, found, exact = compare(case)
    if not exact:  # Another machine's rounding, or another converter.
        recorded, found = recorded["operators"], found["operators"]
    assert found == recorded

"""What a run of an example must show."""

STUDENTS = ["student on labels", "student distilled"]


def gains(result, least_share, over=0.0):
    """Checks that a file of so small a slice, too, closes so much of a gap wider than `over`."""
    assert list(result) == ["teacher", *STUDENTS, "distilled, int8", "bytes"]
    gap = result["teacher"] - result["student on labels"]
    assert gap > over
    for name in ("student distilled", "distilled, int8"):
        assert result[name] - result["student on labels"] > least_share * gap

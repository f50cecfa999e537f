"""What was measured gets into the page where its fault is named."""

from faults.figures import filled

PAGE = """
| What | Promised | Tested as | Measured |
|---|---|---|---|
| a | b | `kill-a` | - |
| c | d | `kill-b` | 9 s |
| e | f | `kill-a`, `kill-b` | - |
| g | h | `kill-c` | - |
"""


def test_figures_replace_the_last_column() -> None:
    lines = {
        "kill-a": {"recovery": 1.5, "stall": 0.2, "kept": True},
        "kill-c": {"recovery": 1.5, "stall": 0.2, "kept": False},
    }
    changed = PAGE.replace("`kill-a` | - |\n| c", "`kill-a` | 1.5 s (0.2 s) |\n| c")
    assert filled(PAGE, lines) == changed
    assert filled(PAGE, {}) == PAGE

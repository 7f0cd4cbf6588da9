"""The example in `docs/theory/adding.md` works as it stands, and is as short as promised."""

from __future__ import annotations

import re
from pathlib import Path

from latentia.theory import beyond, verify
from latentia.theory.statement import at_most

PAGE = Path(__file__).parents[2] / "docs" / "theory" / "adding.md"


def test_the_example_is_a_statement_that_holds() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.splitlines()) < 30
    names = {**vars(beyond), "at_most": at_most}
    exec(code, names)  # as if it stood in that module
    (verdict,) = verify([names["triangle_inequality"]], seed=0)
    assert verdict.holds, verdict.failure
    assert len(verdict.relations) == 6

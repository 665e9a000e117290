"""What is common to all refusals: one line of words for the person at the keyboard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ncf.core.errors import PairError


def refused(telling: str, call: Callable[..., object], *args: Any) -> None:
    """Holds that the call raises PairError in one line that matches."""
    with pytest.raises(PairError, match=telling) as caught:
        call(*args)
    assert "\n" not in str(caught.value)

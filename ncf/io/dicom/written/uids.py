"""UIDs that follow from content, and objects that lead back to no scan."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

UUID_ROOT = "2.25."  # PS3.5 B.2: UIDs made of a UUID
STANDARD_ROOT = "1.2.840.10008."  # UIDs of the standard itself: classes and transfer syntaxes
NO_DATE, NO_TIME = "19000101", "000000"


def uid_of(*parts: str | bytes) -> str:
    """Return a UID that follows from its parts and from nothing else, as a UUID by name (RFC 4122, version 5).

    Args:
        parts: texts and bytes.
    """
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return f"{UUID_ROOT}{uuid.uuid5(uuid.NAMESPACE_OID, total.hexdigest()).int}"


def without_traces(data: Any) -> Any:
    """Take out of a data set what leads back to its scans, in all sequences.

    Every UID that is not the standard's is replaced by one made of it, every date of the object by a fixed one, and
    dates and times within sequences are removed.

    Args:
        data: the object.

    Returns:
        The same data set.
    """
    for element in list(data):
        if element.VR == "SQ":
            for item in element.value:
                for inner in [e.tag for e in item if e.VR in ("DA", "TM", "DT")]:
                    del item[inner]
                without_traces(item)
        elif element.VR == "UI" and element.value:
            many = element.value if element.VM > 1 else [element.value]
            new = [str(u) if str(u).startswith(STANDARD_ROOT) else uid_of("anonymous", str(u)) for u in many]
            element.value = new if len(new) > 1 else new[0]
        elif element.VR in ("DA", "TM"):
            element.value = NO_DATE if element.VR == "DA" else NO_TIME
    return data

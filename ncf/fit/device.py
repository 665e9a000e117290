"""The check that a device can be used, and what it is good at."""

from __future__ import annotations

import torch

from ncf.core.errors import PairError

NO_DEVICE = "device type at start of device string"  # in torch's message, which lists twenty kinds


def check_device(device: str | torch.device) -> None:
    """Raise PairError unless a tensor can be made on the device.

    Args:
        device: as torch names it, such as cpu or cuda:1.

    Raises:
        PairError: there is no such device, or torch cannot use it.
    """
    try:
        torch.zeros(1, device=torch.device(device)).item()  # the device meta makes tensors, and keeps no values
    except Exception as error:  # for devices of other makers also ImportError, AttributeError and others
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        why = "there is none of that name" if NO_DEVICE in reason else reason
        advice = "name another, such as cpu, cuda or cuda:1, or none for the default"
        raise PairError(f"device {str(device)!r:.60} cannot be used ({why:.200}); {advice}") from error


def has_bfloat16(device: str | torch.device) -> bool:
    """Tell whether a processor multiplies matrices in bfloat16; others emulate it, slowly.

    Args:
        device: as torch names it. False for all but the CPU: a GPU's network takes a small part of a step.
    """
    try:
        if torch.device(device).type != "cpu":
            return False
    except (RuntimeError, TypeError):  # `check_device` tells it
        return False
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # an older torch cannot say
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))

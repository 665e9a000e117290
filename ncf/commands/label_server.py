"""``ncf label_server``: registrations for 3D Slicer and other viewers."""

from __future__ import annotations

from fire.decorators import SetParseFn

from ncf.commands.common import CallJob, absolute, plain, refuse, whole_number

LARGEST_PORT = 65535


@SetParseFn(str)
def label_server(*, studies: str, port: str = "8000", device: str | None = None) -> CallJob:
    """Serve the scans of a folder to MONAI Label's viewers on this machine: labels carried over by a registration.

    Args:
        studies: folder of scans (ID.nii.gz); its labels are in labels/final (ID.nii.gz), results go to registrations.
        port: of the address http://127.0.0.1:PORT.
        device: the one that registers: cpu, cuda, cuda:1, mps; by default a CUDA device where there is one.
    """
    folder, number = absolute("studies", studies), whole_number("port", port)
    if not 0 < number <= LARGEST_PORT:
        refuse(f"--port is 1 to {LARGEST_PORT}, got {port}")
    wanted = None if device is None else plain("device", device)

    def call() -> None:
        """Run the server until it is stopped."""
        from ncf.label.server import serve

        serve(folder, port=number, device=wanted)

    return CallJob(call, libraries=False)

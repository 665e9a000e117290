"""``ncf view``: a result in the browser, with every slice."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fire.decorators import SetParseFn

from ncf.commands.common import CallJob, absolute, moved_files, or_refused, refuse, true_or_false
from ncf.core.paths import there


@SetParseFn(str)
def view(
    result: str,
    *,
    browser: str = "true",
    fixed: str | None = None,
    moving: str | None = None,
    fixed_label: str | None = None,
    moving_label: str | None = None,
    landmarks: str | None = None,
) -> CallJob:
    """Show RESULT in the browser with every voxel, served to this machine alone until Ctrl-C.

    Args:
        result: the folder of one result.
        browser: false prints the address and opens no browser.
        fixed: the fixed scan, where it has moved since.
        moving: the moving scan.
        fixed_label: the label map on the fixed grid.
        moving_label: the label map on the moving grid.
        landmarks: the CSV with six columns.
    """
    given = dict(locals())
    folder, opens = absolute("result", result), true_or_false("browser", browser)
    if not or_refused(there, folder).is_dir():
        refuse(f"{folder} is no folder; give the folder of one result")
    return CallJob(partial(_serve, folder, moved_files(given), opens))


def _serve(folder: Path, inputs: dict[str, Path], opens: bool) -> None:
    """Serve a result until Ctrl-C."""
    import webbrowser

    from ncf.core.drawing import load_matplotlib
    from ncf.core.names import RUN_FILE

    if not (folder / RUN_FILE).exists():
        refuse(f"{folder} holds no result (no {RUN_FILE} in it); give the folder of one")
    load_matplotlib()
    from ncf.report.serve import result_server

    with result_server(folder, inputs) as server:
        try:
            print(f"  view        {server.url}\n  Ctrl-C ends it", flush=True)
            if opens:
                webbrowser.open(server.url)
            server.serve_forever()
        except KeyboardInterrupt:
            print()

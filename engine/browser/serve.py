"""Shows the page until Ctrl-C."""

import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from alps.engine.base.errors import SettingsError
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import alone_naming
from alps.engine.stages.naming import Suggestion, refuse_unnameable

HOST = "127.0.0.1"
GOODBYE_SECONDS = 3.0  # that answers under way are waited for


def serve(
    folder: RunFolder,
    port: int = 0,
    open_browser: bool = True,
    suggest: Callable[[], Mapping[int, Suggestion]] | None = None,
) -> None:
    """Show the classes of a run in the browser, to be named; ends by Ctrl-C alone.

    What is changed there is in names.json when the page says so.

    Args:
        folder: a run with clusters.
        port: of this machine's loopback; 0: any that is free.
        open_browser: whether to open the page, too, and not only print its address.
        suggest: names by the numbers of classes, as by ``suggested_names``; asked again once label
            maps are painted.

    Raises:
        SettingsError: the port is taken, or what the page needs is not installed.
        RunFolderError: the run has no clusters, or another page of it is open.
    """
    try:
        from alps.engine.browser.app import make_app, make_server
        from alps.engine.browser.desk import Desk
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise SettingsError(
            f"the page for naming needs {error.name}, which is not installed: "
            "pip install 'alps-engine[name]'; or name classes with --set 17=water"
        ) from error
    folder.read_run()  # before a lock makes a folder of a mistyped path
    refuse_unnameable(folder)
    with alone_naming(folder), _listening(port) as listener:
        desk = Desk(folder, suggest)
        token = secrets.token_urlsafe(24)
        server = make_server(make_app(desk, token))
        # This thread does the work, since it is the one that signals come to.
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, name="page", daemon=True
        )
        thread.start()
        try:
            _say(f"http://{HOST}:{listener.getsockname()[1]}/{token}/", open_browser)
            desk.work()
        finally:
            server.should_exit = True
            thread.join(GOODBYE_SECONDS)


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    """A socket that only this machine reaches. Raises SettingsError."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise SettingsError(
                f"cannot use port {port} ({why}); give another --port, or 0 for any that is free"
            ) from error
        listener.listen(64)
        yield listener


def _say(address: str, open_browser: bool) -> None:
    """Print where the page is, and open it where there is a browser with windows."""
    print(f"naming at {address}\nCtrl-C ends it; what was changed is kept", flush=True)
    if os.environ.get("SSH_CONNECTION"):
        port = address.rsplit(":", 1)[1].partition("/")[0]
        print(
            f"from another machine: ssh -L {port}:{HOST}:{port} THIS_MACHINE, then open it there",
            file=sys.stderr,
            flush=True,
        )
    if not open_browser:
        return
    with suppress(webbrowser.Error, OSError):
        # A GenericBrowser is one of text, which would take the terminal, and cannot show pictures.
        if type(webbrowser.get()) is not webbrowser.GenericBrowser:
            webbrowser.open(address)

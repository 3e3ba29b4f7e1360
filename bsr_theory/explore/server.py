"""Serve the explorer to the browser of this machine, and to nobody else."""

from __future__ import annotations

import os
import signal
import socket
import threading
import webbrowser
from collections.abc import Callable
from typing import Any

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.server.server import Server
from bokeh.settings import settings
from tornado.web import RequestHandler

from .model import Exploration, View, explore
from .page import add_page

__all__ = ["HOST", "PORT", "make_server", "serve"]

HOST = "127.0.0.1"
"""The one address that the explorer listens at."""

PORT = 5006
"""The port it takes when nobody says another; the next free one if it is taken."""

_TRIES = 100

_FILES: dict[str, tuple[str, Callable[[Exploration], str | bytes]]] = {
    "csv": ("text/csv; charset=utf-8", Exploration.to_csv),
    "json": ("application/json", Exploration.to_json),
    "nc": ("application/x-netcdf", Exploration.to_netcdf),
}


class _Data(RequestHandler):  # type: ignore[misc]  # of Tornado, which mypy takes for Any
    """The data of a view as a file; the query string says which view."""

    def initialize(self, view: View) -> None:
        """Remember where parameters come from that the address does not name."""
        self.view = view

    def get(self, kind: str) -> None:
        """Answer with the file, or with what is wrong with the address."""
        words = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        view, problems = View.read(words, self.view)
        if problems:
            self.set_status(400)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish("\n".join(problems) + "\n")
            return
        mime, write = _FILES[kind]
        self.set_header("Content-Type", mime)
        self.set_header("Content-Disposition", f'attachment; filename="bsr_explore.{kind}"')
        self.finish(write(explore(view)))


def make_server(view: View | None = None, port: int | None = None) -> Server:
    """Return the server of the explorer, which listens already.

    Parameters
    ----------
    view : View, optional
        What a page shows whose address does not say otherwise.
    port : int, optional
        Port to listen at; by default 5006, or the first free one above it.

    Returns
    -------
    bokeh.server.server.Server
        Not yet answering: that begins with its ``io_loop``.

    Raises
    ------
    OSError
        If the port, or every port tried, is taken.
    """
    view = View() if view is None else view
    application = Application(FunctionHandler(lambda document: add_page(document, view)))
    # everything the page needs comes from this server, also where the environment says otherwise
    settings.resources.set_value("server")
    port = _free_port() if port is None else port
    _listen(port)
    origins = [f"{HOST}:{port}", f"localhost:{port}"]
    settings.allowed_ws_origin.set_value(origins)
    return Server(
        {"/": application},
        address=HOST,
        port=port,
        allow_websocket_origin=origins,
        extra_patterns=[(r"/data\.(csv|json|nc)", _Data, {"view": view})],
    )


def _listen(port: int) -> None:
    """Raise an OSError if nobody can listen at a port."""
    with socket.socket() as probe:
        if os.name == "posix":  # a port whose last user has just gone is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        probe.listen()


def _free_port() -> int:
    """Return the first free port from `PORT` on."""
    for port in range(PORT, PORT + _TRIES):
        try:
            _listen(port)
        except OSError:
            if port == PORT + _TRIES - 1:
                raise
        else:
            return port
    raise AssertionError("there is a port to try")


def serve(
    view: View | None = None,
    port: int | None = None,
    *,
    browser: bool = True,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the explorer until Ctrl-C.

    Parameters
    ----------
    view : View, optional
        What is shown first.
    port : int, optional
        Port to listen at; by default 5006, or the first free one above it.
    browser : bool
        Whether to open the page.
    ready : callable, optional
        Called with the address once the server listens.

    Raises
    ------
    OSError
        If the port is taken.
    """
    view = View() if view is None else view
    server = make_server(view, port)
    address = f"http://{HOST}:{server.port}/"
    explore(view)  # what is compiled or loaded at the first call is then ready
    loop = server.io_loop

    def stop(*_: Any) -> None:
        loop.add_callback_from_signal(loop.stop)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.start()
        if ready is not None:
            ready(address)
        if browser:
            # some browsers keep the call waiting
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        loop.start()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        server.stop()
        loop.close()

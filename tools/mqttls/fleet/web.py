"""How boards are, as a page of this PC: it is read, and nothing is written."""

import asyncio
import json
import secrets
from pathlib import Path

from ..messages import Failure
from . import hosts

try:
    from aiohttp import web
except ImportError:
    web = None

_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def application(boards, listener, port):
    """
    Return the aiohttp application.

    boards    fleet.boards.Boards
    listener  what has `connected`
    port      that it is asked for at

    Raises Failure where aiohttp is not installed.
    """
    if web is None:
        raise Failure(
            "--web needs aiohttp, which is not installed",
            "pip install 'mqttls[fleet,web]', in the Python that mqttls runs in",
            stage="files",
        )
    allowed, run = hosts.allowed(port), secrets.token_hex(4)

    @web.middleware
    async def guarded(request, handler):
        if request.headers.get("Host") not in allowed:
            return web.Response(status=403, text=hosts.REFUSED)
        try:
            return await handler(request)
        except web.HTTPException as answer:
            return web.Response(status=answer.status, text=f"{answer.reason}\n")

    async def secured(_, response):
        response.headers.update(_HEADERS)

    async def file(request):
        name, kind = _FILES[request.path]
        text = (Path(__file__).parent / name).read_text("utf-8")
        return web.Response(text=text, content_type=kind)

    async def rows(request):
        after = request.query.get("after", "")
        known = request.query.get("run") == run and after.isdecimal() and len(after) < 16
        changes = boards.changes  # first: what comes meanwhile is sent again
        said = {
            "run": run,
            "changes": changes,
            "now": boards.now(),
            "connected": listener.connected,
            "ignored": boards.ignored,
            "whole": not known,
            "names": boards.count,
            "boards": boards.rows(int(after) if known else 0),
        }
        text = await asyncio.to_thread(json.dumps, said)
        return web.Response(text=text, content_type="application/json")

    made = web.Application(middlewares=[guarded])
    made.on_response_prepare.append(secured)
    for path in _FILES:
        made.router.add_get(path, file)
    made.router.add_get("/boards.json", rows)
    return made


def serve(boards, listener, port, ready):
    """
    Serve the page until Ctrl-C; `ready()` is called when it is there. Raises Failure, also where
    the port is taken.
    """
    made = application(boards, listener, port)
    try:
        web.run_app(made, host=hosts.ADDRESS, port=port, print=lambda _: ready(), access_log=None)
    except OSError as error:
        raise hosts.taken(port, error) from None

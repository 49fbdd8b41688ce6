"""A page as one HTML file that asks nobody but its own endpoint; everything from a model is escaped.

Each page names the digests of its only style and script in its Content-Security-Policy: nothing else runs in it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from raypipe.serve.openapi import REFUSALS, error_examples
from raypipe.serve.protocols.base import CODES, JSON, Protocol, Reply, Route, Served
from raypipe.serve.schema import expected

HERE = Path(__file__).parent

TRY_SCRIPTS = ("calls.js", "values.js", "pen.js", "files.js", "fields.js", "answer.js", "try.js")
"""Of the page to try the model, in order: later ones call earlier ones."""

MAX_EXAMPLE_CHARS = 20_000
"""A longer body is not printed on the reference page."""

UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""What could end a script element, or a line of a script."""


def try_page(served: Served) -> Reply:
    """The page where a person tries the model."""
    model, signature = served.model, served.signature
    data = {
        "model": model.model,
        "version": model.version,
        "task": signature.task,
        "target": signature.target,
        "classes": signature.classes,
        "inputs": [column.model_dump() for column in signature.inputs],
    }
    return _page("try.html.j2", TRY_SCRIPTS, model=model, signature=signature, data=in_script(data))


def docs_page(served: Served, routes: Sequence[tuple[str, Protocol, Route]]) -> Reply:
    """The reference page: every route with its example, each way it refuses."""
    base = _address(served)
    protocols: dict[str, dict[str, Any]] = {}
    for name, protocol, route in routes:
        about = protocols.setdefault(name, {"says": (type(protocol).__doc__ or "").split("\n")[0], "routes": []})
        about["routes"].append({"route": route, "calls": _calls(route, base + route.path)})
        about["error"] = json.dumps(error_examples(protocol)[0], indent=1)
    return _page(
        "docs.html.j2",
        ("calls.js", "docs.js"),
        model=served.model,
        signature=served.signature,
        expected=expected,
        protocols=protocols,
        base=base,
        codes=CODES,
        refusals=REFUSALS,
    )


def in_script(document: Any) -> Markup:
    """JSON that may stand in a script element, whatever names it holds."""
    text = json.dumps(document)
    return Markup("".join(UNSAFE.get(character, character) for character in text))


def _calls(route: Route, url: str) -> dict[str, str]:
    """The route's example for a shell and for Python; empty where there is none, or it is too long to print."""
    curl, given = f"curl -s {shlex.quote(url)}", [repr(url)]
    if route.accepts:
        text = json.dumps(route.example)
        if route.example is None or JSON not in route.accepts or len(text) > MAX_EXAMPLE_CHARS:
            return {}
        curl += f" \\\n  -H 'content-type: {JSON}' \\\n  -d {shlex.quote(text)}"
        given.append(f"json={route.example!r}")
    reads = "json()" if JSON in route.answers else "text"
    call = f"requests.{route.method.lower()}({', '.join([*given, 'timeout=30'])})"
    return {"curl": curl, "Python": f"import requests\n\nanswer = {call}\nprint(answer.{reads})"}


def _address(served: Served) -> str:
    """The endpoint's address as far as it is known here; the page's script puts its own in the place of it."""
    spec = served.spec
    host = "localhost" if spec.host in ("0.0.0.0", "::") else spec.host
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{spec.port}{spec.route_prefix.rstrip('/')}"


def _page(template: str, scripts: Sequence[str], **values: Any) -> Reply:
    style, script = _read("page.css"), _read(*scripts)
    text = _environment().get_template(template).render(style=Markup(style), script=Markup(script), **values)
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }
    return Reply(text.encode("utf-8", "backslashreplace"), media_type="text/html; charset=utf-8", headers=headers)


@cache
def _environment() -> Environment:
    # A name may hold anything: autoescape is on for every file here, whatever its ending.
    return Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


@cache
def _read(*names: str) -> str:
    return "\n".join((HERE / name).read_text("utf-8") for name in names)


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

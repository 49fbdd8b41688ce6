"""A page as one HTML file that asks nobody but its own endpoint; everything from a model is escaped.

Each page names the digests of its only style and script in its Content-Security-Policy: nothing else runs in it. The
templates know one thing, `{{ name }}`: a replica starts 40 ms sooner without jinja2 (measured).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from raypipe.model.tasks import task_of
from raypipe.records import Signature
from raypipe.serve.openapi import REFUSALS, error_examples
from raypipe.serve.protocols.base import JSON, Protocol, Reply, Route, Served
from raypipe.serve.schema import expected
from raypipe.serve.statuses import CODES

HERE = Path(__file__).parent

TRY_SCRIPTS = ("calls.js", "values.js", "pen.js", "files.js", "fields.js", "answer.js", "try.js")
"""Of the page to try the model, in order: later ones call earlier ones."""

MAX_EXAMPLE_CHARS = 20_000
"""A longer body is not printed on the reference page."""

UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""What could end a script element, or a line of a script."""

ROUTE = Markup(
    '<section class="route" aria-label="{name}">\n<h3><span class="method">{method}</span> {path}</h3>\n'
    "<p>{says}</p>\n{calls}</section>\n"
)

CODE = Markup(
    '<div class="code"><button type="button" class="copy" aria-label="Copy {title}" hidden>Copy</button>'
    '<pre class="wrap" tabindex="0" role="group" aria-label="{title}"><code>{text}</code></pre></div>\n'
)

TOO_LONG = Markup('<p class="quiet">The example is too long to print; it is in the OpenAPI document.</p>\n')


def try_page(served: Served) -> Reply:
    """The page where a person tries the model.

    Where keys are asked for it tells nothing of the model, as a browser has no key to send with an address: its script
    learns what it shows from the metadata, with the key that is typed there.
    """
    model, signature = served.model, served.signature
    if served.spec.auth is not None:
        tells = "This endpoint asks for an API key."
        return _page("try.html", TRY_SCRIPTS, name="a model", title="A model", tells=tells, data=in_script(None))
    data = {
        "model": model.model,
        "version": model.version,
        "task": signature.task,
        "target": signature.target_text,
        "classes": signature.classes,
        "inputs": [column.model_dump() for column in signature.inputs],
    }
    return _page(
        "try.html",
        TRY_SCRIPTS,
        name=f"{model.model} {model.version}",
        title=Markup("{} <small>version {}</small>").format(model.model, model.version),
        tells=_tells(signature),
        data=in_script(data),
    )


def docs_page(served: Served, routes: Sequence[tuple[str, Protocol, Route]]) -> Reply:
    """The reference page: every route with its example, each way it refuses."""
    model, signature = served.model, served.signature
    base = _address(served)
    protocols = {name: protocol for name, protocol, _ in routes}
    return _page(
        "docs.html",
        ("calls.js", "docs.js"),
        model=model.model,
        version=model.version,
        base=base,
        contents=_joined(Markup('<li><a href="#{0}">{0}</a></li>\n').format(name) for name in protocols),
        answers=_tells(signature),
        inputs=_joined(
            Markup('<tr><th scope="row">{}</th><td>{}</td></tr>\n').format(column.name, expected(column))
            for column in signature.inputs
        ),
        others="ignored" if signature.extra_columns == "ignore" else "refused",
        protocols=_joined(
            Markup('<section aria-labelledby="{0}">\n<h2 id="{0}">{0}</h2>\n<p>{1}</p>\n{2}</section>\n').format(
                name,
                (type(protocol).__doc__ or "").split("\n")[0],
                _joined(_route(route, base) for owner, _, route in routes if owner == name),
            )
            for name, protocol in protocols.items()
        ),
        errors=_joined(
            Markup("<h3>{}</h3>\n{}").format(
                name, CODE.format(title=f"a refusal of {name}", text=json.dumps(error_examples(protocol)[0], indent=1))
            )
            for name, protocol in protocols.items()
        ),
        statuses=_joined(
            Markup('<tr><td class="status">{}</td><td>{}</td><td>{}</td></tr>\n').format(status, CODES[status], says)
            for status, says in REFUSALS.items()
        ),
    )


def in_script(document: Any) -> Markup:
    """JSON that may stand in a script element, whatever names it holds."""
    text = json.dumps(document)
    return Markup("".join(UNSAFE.get(character, character) for character in text))


def filled(template: str, **values: Any) -> str:
    """A template with its values, each escaped unless it is Markup.

    Raises:
        KeyError: the template names another value.
    """
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: str(escape(values[found[1]])), _read(template))


def _tells(signature: Signature) -> Markup:
    inputs = signature.inputs
    source = Markup("<strong>{}</strong>").format(inputs[0].name) if len(inputs) == 1 else f"{len(inputs)} inputs"
    task = task_of(signature)
    if task.answers_texts:
        return Markup("Writes a text, <strong>{}</strong>, for {}; with its probability.").format(
            signature.target, source
        )
    if signature.language is not None:
        return Markup("Tells how likely a {} is, and goes on with it.").format(source)
    (answer, *others) = task.columns_of("answer")
    if not answer.labels:
        what = f"{1 + len(others)} numbers" if others else "a number"
        return Markup("Predicts {}, <strong>{}</strong>, from {}.").format(what, signature.target_text, source)
    if answer.is_set:
        return Markup(
            "Tells which of {} labels <strong>{}</strong> holds, from {}; with the probability of each."
        ).format(len(answer.labels), "a row" if len(signature.targets) > 1 else signature.target_text, source)
    return Markup("Tells which of {} classes <strong>{}</strong> is, from {}; with the probability of each.").format(
        len(answer.labels), signature.target_text, source
    )


def _route(route: Route, base: str) -> Markup:
    name = f"{route.method} {route.path}"
    says = [route.summary]
    if route.accepts:
        says.append(f"Reads {', '.join(route.accepts)}.")
    if route.answers:
        says.append(f"Answers {', '.join(route.answers)}.")
    calls = _calls(route, base + route.path)
    blocks = [CODE.format(title=f"the {kind} call of {name}", text=text) for kind, text in calls.items()]
    if route.example is not None and not calls:
        blocks.append(TOO_LONG)
    return ROUTE.format(name=name, method=route.method, path=route.path, says=" ".join(says), calls=_joined(blocks))


def _calls(route: Route, url: str) -> dict[str, str]:
    """The route's example for a shell and for Python; empty where there is none, or it is too long to print."""
    curl, given = f"curl -s {shlex.quote(url)}", [repr(url)]
    if route.method not in ("GET", "POST"):
        curl += f" -X {route.method}"
    if route.accepts:
        text = json.dumps(route.example)
        if route.example is None or JSON not in route.accepts or len(text) > MAX_EXAMPLE_CHARS:
            return {}
        curl += f" \\\n  -H 'content-type: {JSON}' \\\n  -d {shlex.quote(text)}"
        given.append(f"json={route.example!r}")
    elif route.method == "POST":
        curl += " -X POST"
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
    text = filled(template, style=Markup(style), script=Markup(script), **values)
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


def _joined(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


@cache
def _read(*names: str) -> str:
    return "\n".join((HERE / name).read_text("utf-8") for name in names)


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

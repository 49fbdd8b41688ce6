"""POST /generate: {"prompt": text, ...} -> {"text": what follows it or belongs to it, ...}, or server-sent events.

With `stream` each token is an event by itself, `data: {"token": "T"}`, as soon as it is drawn; the last event is
`done`, or `error` with what stopped the text.  Before the first token a refusal has a status, as everywhere.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from functools import partial
from typing import TYPE_CHECKING, Any

from raypipe.errors import RequestError
from raypipe.serve.failures import refusal_of
from raypipe.serve.protocols.base import JSON, Call, Later, Protocol, Reply, Route, error_document, to_json
from raypipe.serve.schema import shown
from raypipe.serve.schemas import closed_object

if TYPE_CHECKING:
    from raypipe.model.text_writer import TextWriter

EVENTS = "text/event-stream"

PATH = "/generate"

MAX_NEW_TOKENS = 16_384

SEEDS = 2**63

MAX_TEMPERATURE = 100.0

MAX_TOP_K = 2**31

HINT = 'send {"prompt": "some text", "max_new_tokens": 100}'


class Generate(Protocol):
    """Texts, where the model writes some; else nothing."""

    predicts = False

    def routes(self) -> list[Route]:
        writer = self.served.writer
        if writer is None:
            return []
        whole, model = {"type": "integer"}, {"const": self.model.model}
        tokens = {**whole, "minimum": 1, "maximum": _most(writer), "default": writer.usual_tokens}
        heat = {"type": "number", "minimum": 0, "maximum": MAX_TEMPERATURE, "default": writer.usual_temperature}
        return [
            Route(
                "POST",
                PATH,
                self.generate,
                accepts=(JSON,),
                summary="Write a text, token by token.",
                request={
                    "type": "object",
                    "properties": {
                        "prompt": {"type": "string", "minLength": 1},
                        "max_new_tokens": tokens,
                        "temperature": heat,
                        "top_k": {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_TOP_K, "default": None},
                        "seed": {"type": ["integer", "null"], "minimum": 0, "maximum": SEEDS - 1, "default": None},
                        "stream": {"type": "boolean", "default": False},
                    },
                    "required": ["prompt"],
                    "additionalProperties": False,
                },
                response=closed_object(
                    text={"type": "string"}, num_tokens=whole, seed=whole, model=model, version=whole
                ),
                example={"prompt": self._example(writer), "max_new_tokens": min(8, _most(writer)), "seed": 0},
                answers=(JSON, EVENTS),
                streams=True,
            )
        ]

    def generate(self, call: Call) -> Later:
        """Checks what is asked for."""
        request = self.json_object(call.body, HINT)
        known = ("prompt", "max_new_tokens", "temperature", "top_k", "seed", "stream")
        for name in request:
            if name not in known:
                raise RequestError(f"unknown field {shown(name)}", f"a request has {', '.join(known)}")
        prompt, stream = request.get("prompt"), request.get("stream", False)
        if not isinstance(prompt, str):
            raise RequestError(f"prompt must be a text; found {shown(prompt)}", HINT)
        if not isinstance(stream, bool):
            raise RequestError(f"stream must be true or false; found {shown(stream)}")
        writer = self.served.writer
        assert writer is not None, "there is no route without"
        num_tokens = _whole(request, "max_new_tokens", 1, _most(writer), writer.usual_tokens)
        top_k = _whole(request, "top_k", 1, MAX_TOP_K, None)
        seed = _whole(request, "seed", 0, SEEDS - 1, None)
        temperature = request.get("temperature", writer.usual_temperature)
        is_number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
        if not is_number or not 0 <= temperature <= MAX_TEMPERATURE:
            raise RequestError(f"temperature must be 0 to {MAX_TEMPERATURE:g}; found {shown(temperature)}")
        assert num_tokens is not None, "it has a usual one"
        seed = secrets.randbelow(SEEDS) if seed is None else seed
        ids = writer.read(prompt)
        begin = partial(writer.write, ids, num_tokens, seed=seed, temperature=float(temperature), top_k=top_k)
        answer = self._events if stream else self._whole
        return Later(begin, partial(answer, seed=seed), ids.shape[1])

    async def _whole(self, tokens: AsyncGenerator[str, None], *, seed: int) -> Reply:
        text = [token async for token in tokens]
        return Reply(to_json({"text": "".join(text), **self._told(len(text), seed)}))

    async def _events(self, tokens: AsyncGenerator[str, None], *, seed: int) -> Reply:
        first = await anext(tokens, None)  # what is refused until here still has a status

        async def events() -> AsyncGenerator[bytes, None]:
            num_tokens = 0
            if first is not None:
                num_tokens = 1
                yield _event({"token": first})
            try:
                async for token in tokens:
                    num_tokens += 1
                    yield _event({"token": token})
            except Exception as error:  # a status was sent already
                yield _event(error_document(refusal_of(error, f"{self.model.model}@{self.model.version}")), "error")
                return
            finally:
                await tokens.aclose()
            yield _event(self._told(num_tokens, seed), "done")

        return Reply(b"", media_type=EVENTS, headers={"cache-control": "no-store"}, pieces=events())

    def _example(self, writer: TextWriter) -> str:
        """The one text that a row holds, where there is one that is answered; else what the writer knows."""
        row = self.served.example or {}
        texts = [value for value in row.values() if isinstance(value, str)]
        return texts[0] if self.task.answers_texts and len(texts) == 1 else writer.example

    def _told(self, num_tokens: int, seed: int) -> dict[str, Any]:
        return {"num_tokens": num_tokens, "seed": seed, "model": self.model.model, "version": self.model.version}


def _most(writer: TextWriter) -> int:
    return MAX_NEW_TOKENS if writer.most_tokens is None else min(MAX_NEW_TOKENS, writer.most_tokens)


def _event(document: dict[str, Any], name: str = "") -> bytes:
    """One server-sent event; JSON has no line breaks of its own."""
    head = f"event: {name}\n" if name else ""
    return head.encode() + b"data: " + to_json(document) + b"\n\n"


def _whole(request: dict[str, Any], name: str, least: int, most: int, unset: int | None) -> int | None:
    value = request.get(name, unset)
    if value is None and unset is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise RequestError(f"{name} must be a whole number from {least} to {most}; found {shown(value)}")
    return value

"""Message classes from a .proto file, without a code generator: the file that clients are given is the one served.

Reads the part of proto3 that such files here need: messages within messages, repeated, map, oneof, enum, and services
of unary calls. The classes live in a pool of their own: two libraries in one process may each bring a file of the same
package (Triton's and KServe's clients do), and in the common pool protobuf refuses the second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

TOKEN = re.compile(r'//[^\n]*|"[^"]*"|[A-Za-z_][\w.]*|\d+|[{}()<>=;,]')

Field = descriptor_pb2.FieldDescriptorProto

SCALARS = {
    "bool": Field.TYPE_BOOL,
    "int32": Field.TYPE_INT32,
    "int64": Field.TYPE_INT64,
    "uint32": Field.TYPE_UINT32,
    "uint64": Field.TYPE_UINT64,
    "float": Field.TYPE_FLOAT,
    "double": Field.TYPE_DOUBLE,
    "string": Field.TYPE_STRING,
    "bytes": Field.TYPE_BYTES,
}


@dataclass(frozen=True)
class ProtoFile:
    """What a file describes.

    Attributes:
        messages: class of each message that is not within another one, by its name.
        service: full name of its service.
        calls: name -> class of the request, class of the answer.
    """

    messages: dict[str, Any]
    service: str
    calls: dict[str, tuple[Any, Any]]


def read_proto(path: Path) -> ProtoFile:
    """Read a file with one service.

    Raises:
        ValueError: it holds what is not read here.
    """
    reader = _Reader(path.read_text(encoding="utf-8"), path.name)
    file = reader.file()
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    messages = {
        each.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{each.name}"))
        for each in file.message_type
    }
    calls = {name: (messages[asked], messages[answer]) for name, (asked, answer) in reader.calls.items()}
    return ProtoFile(messages, f"{file.package}.{reader.service}", calls)


class _Reader:
    def __init__(self, text: str, name: str) -> None:
        found = (token for token in TOKEN.findall(text) if not token.startswith("//"))
        self._tokens: Iterator[str] = iter([*found, ""])
        self._name = name
        self.service = ""
        self.calls: dict[str, tuple[str, str]] = {}

    def file(self) -> descriptor_pb2.FileDescriptorProto:
        file = descriptor_pb2.FileDescriptorProto(name=f"raypipe/{self._name}", syntax="proto3")
        while word := next(self._tokens):
            if word == "syntax":
                self._expect("=", '"proto3"', ";")
            elif word == "package":
                file.package = next(self._tokens)
                self._expect(";")
            elif word == "message":
                self._message(file.message_type.add(name=next(self._tokens)))
            elif word == "service":
                self._service()
            else:
                raise ValueError(f"{self._name}: '{word}' is not read here")
        return file

    def _expect(self, *tokens: str) -> None:
        for token in tokens:
            if (found := next(self._tokens)) != token:
                raise ValueError(f"{self._name}: found '{found}'; expected '{token}'")

    def _service(self) -> None:
        self.service = next(self._tokens)
        self._expect("{")
        while (word := next(self._tokens)) != "}":
            if word != "rpc":
                raise ValueError(f"{self._name}: found '{word}'; expected 'rpc'")
            call = next(self._tokens)
            self._expect("(")
            asked = next(self._tokens)
            self._expect(")", "returns", "(")
            self.calls[call] = (asked, next(self._tokens))
            self._expect(")", "{", "}")

    def _message(self, message: descriptor_pb2.DescriptorProto) -> None:
        self._expect("{")
        while (word := next(self._tokens)) != "}":
            if word == "message":
                self._message(message.nested_type.add(name=next(self._tokens)))
            elif word == "enum":
                self._enum(message.enum_type.add(name=next(self._tokens)))
            elif word == "oneof":
                message.oneof_decl.add(name=next(self._tokens))
                self._expect("{")
                while (kind := next(self._tokens)) != "}":
                    self._field(message, kind).oneof_index = len(message.oneof_decl) - 1
            elif word == "map":
                self._map(message)
            elif word == "repeated":
                self._field(message, next(self._tokens)).label = Field.LABEL_REPEATED
            else:
                self._field(message, word)

    def _field(self, message: descriptor_pb2.DescriptorProto, kind: str) -> Any:
        name = next(self._tokens)
        self._expect("=")
        field = message.field.add(name=name, number=int(next(self._tokens)), label=Field.LABEL_OPTIONAL)
        self._expect(";")
        self._set_type(field, kind)
        return field

    def _map(self, message: descriptor_pb2.DescriptorProto) -> None:
        self._expect("<")
        key = next(self._tokens)
        self._expect(",")
        value = next(self._tokens)
        self._expect(">")
        entry = message.nested_type.add()
        field = self._field(message, "")
        entry.name = field.name.title().replace("_", "") + "Entry"
        entry.options.map_entry = True
        for number, (name, kind) in enumerate((("key", key), ("value", value)), 1):
            self._set_type(entry.field.add(name=name, number=number, label=Field.LABEL_OPTIONAL), kind)
        field.label, field.type_name = Field.LABEL_REPEATED, entry.name

    def _enum(self, enum: descriptor_pb2.EnumDescriptorProto) -> None:
        self._expect("{")
        while (name := next(self._tokens)) != "}":
            self._expect("=")
            enum.value.add(name=name, number=int(next(self._tokens)))
            self._expect(";")

    def _set_type(self, field: Any, kind: str) -> None:
        if kind in SCALARS:
            field.type = SCALARS[kind]
        else:
            field.type_name = kind  # of a message or an enum: protobuf finds it, from the innermost message outwards

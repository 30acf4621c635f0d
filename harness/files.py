"""Write files atomically, and read files from users within limits; problems are a ValueError or OSError."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from harness.errors import StoreError

if TYPE_CHECKING:
    from yaml.nodes import Node

    from harness.types.json import Json

MOST_SETTINGS = 2**22  # bytes of a family file or a config.json
MOST_YAML = 2**18  # characters of a task.yaml; PyYAML reads about 10^5 per second
MOST_NODES = 100_000  # values in a YAML file; values of aliases count at every use
MOST_LINE = 2**26  # characters of one line of documents
MOST_TEXT = 2**30  # characters of documents that are read at once
SURROGATE = re.compile(r"\\u[dD]")  # JSON escapes of surrogates, single or in pairs
REMEDIES = {
    errno.ENOSPC: "free disk space, or choose another folder",
    errno.EDQUOT: "delete files of yours there, or choose another folder",
    errno.EFBIG: "raise the largest size of files (ulimit -f), or choose another folder",
    errno.EROFS: "choose another folder, or mount the file system for writing",
    errno.EACCES: "change the permissions of the folder and its files, or choose another folder",
    errno.EPERM: "change the permissions of the folder and its files, or choose another folder",
    errno.ENAMETOOLONG: "choose a folder with a shorter path",
}  # by errno of writing
BUILDS = (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError)  # errors of PyYAML for a !!tag


def write_whole(path: Path, content: bytes, *, temporary: Path | None = None) -> None:
    """Write a file atomically: it is complete or absent, also after kill -9 or on a full disk.

    `temporary` is the file written first. If a lock guards it, pass a fixed name, so that the next write overwrites the
    remains of a killed one. Raises StoreError, and leaves no file, if writing fails.
    """
    temporary = temporary or path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        _remove(temporary)
        raise StoreError(f"{path} cannot be written: {error.strerror or error}; {how_to_write(error)}") from error


def how_to_write(error: OSError) -> str:
    """Return what a user can do about an error of writing."""
    return REMEDIES.get(error.errno or 0, "choose another folder")


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # an unwritable folder has no such file


def cache_folder() -> Path:
    """Return the user's cache folder of the harness; its contents can be recomputed."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harness"


def digest_of(value: Json) -> str:
    """Return 64 bits, in hexadecimal, of the SHA-256 of a JSON value: enough to identify a million cells."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


# --- files from users -----------------------------------------------------------------------------------------------


def expect_regular(path: Path) -> None:
    """Raise ValueError if a path is a FIFO, a device or a socket, which might never end."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a FIFO, device or socket"
        raise ValueError(f"it is {kind}; expected a regular file")


def read_settings(path: Path) -> str:
    """Return the text of a small UTF-8 file; raise ValueError for other files."""
    expect_regular(path)
    with path.open("rb") as stream:
        content = stream.read(MOST_SETTINGS + 1)
    if len(content) > MOST_SETTINGS:
        raise ValueError(f"it has more than {MOST_SETTINGS} bytes, the limit for such files")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def read_all(stream: TextIO) -> str:
    """Return the rest of a stream; raise ValueError if it has more than MOST_TEXT characters."""
    text = stream.read(MOST_TEXT + 1)
    if len(text) > MOST_TEXT:
        raise ValueError(f"it has more than {MOST_TEXT} characters; split it into several files, or use JSON lines")
    return text


def read_lines(stream: TextIO) -> Iterator[str]:
    """Yield the lines of a stream; raise ValueError if one has more than MOST_LINE characters."""
    while line := stream.readline(MOST_LINE + 1):
        if len(line) > MOST_LINE:
            raise ValueError(f"a line has more than {MOST_LINE} characters")
        yield line


def parse_json(text: str, *, once: bool = False) -> Json:
    r"""Return a JSON value; raise ValueError for invalid JSON, too deep nesting, and lone surrogates.

    An object that has a key twice raises ValueError with `once`; otherwise the last value counts.

    >>> parse_json('["\\ud83d\\ude00"]')
    ['😀']
    >>> parse_json('"\\ud800"')
    Traceback (most recent call last):
    ...
    ValueError: it has half of a surrogate pair, '\ud800', which is not a character
    """
    try:
        value: Json = ONCE.decode(text) if once else json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if SURROGATE.search(text):
        expect_characters(json.dumps(value, ensure_ascii=False))
    return value


def _expect_once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in table if keys.count(key) > 1)
        raise ValueError(f"an object has the key {twice!r} twice; remove one of them")
    return table


ONCE = json.JSONDecoder(object_pairs_hook=_expect_once)


def expect_characters(text: str) -> None:
    """Raise ValueError if text contains half of a surrogate pair, which neither UTF-8 nor a tokenizer can encode."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise ValueError(f"it has half of a surrogate pair, {half!r}, which is not a character") from error


def parse_yaml(text: str) -> Json:
    """Return a YAML value; raise ValueError for invalid YAML, too deep nesting, or too many values after aliases.

    >>> parse_yaml("a: &x [1, 2]\\nb: *x")
    {'a': [1, 2], 'b': [1, 2]}
    """
    import yaml

    if len(text) > MOST_YAML:
        raise ValueError(f"it has more than {MOST_YAML} characters; keep documents in separate files")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _expect_small(node, {})
        value: Json = loader.construct_document(node)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except BUILDS as error:
        raise ValueError(f"{type(error).__name__}: {error}; expected plain YAML") from error
    _expect_distinct(node)
    return value


def licence_of_card(path: Path) -> str:
    """Return the licence that the card (README.md) of a repository of the hub names; "unknown" if it names none."""
    try:
        _, head, _ = read_settings(path).split("---", 2)
        card = parse_yaml(head)
    except (OSError, ValueError):
        return "unknown"
    licence = card.get("license", "unknown") if isinstance(card, dict) else "unknown"
    return ", ".join(map(str, licence)) if isinstance(licence, list) else str(licence)


def _expect_distinct(node: Node) -> None:
    """Raise ValueError for a table with two values of one key, of which YAML would take the last."""
    from yaml import MappingNode

    waiting, seen = [node], set[int]()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        waiting += _inside(part)
        keys = (
            [key.value for key, _ in part.value if isinstance(key.value, str)] if isinstance(part, MappingNode) else []
        )
        if twice := {key for key in keys if keys.count(key) > 1 and key != "<<"}:
            line = part.start_mark.line + 1
            raise ValueError(f"the table at line {line} has the key {min(twice)!r} twice; remove one of them")


def _expect_small(node: Node, sizes: dict[int, int]) -> int:
    """Return the number of values in a YAML node, including aliases; raise ValueError if too many or endless."""
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise ValueError("a value contains itself")
        return sizes[id(node)]
    sizes[id(node)] = 0
    if isinstance(node.value, str):
        expect_characters(node.value)
    size = 1 + sum(_expect_small(inner, sizes) for inner in _inside(node))
    if size > MOST_NODES:
        raise ValueError(f"it has more than {MOST_NODES} values, including those that aliases repeat")
    sizes[id(node)] = size
    return size


def _inside(node: Node) -> Iterator[Node]:
    """Yield the child nodes of a node: items, or keys and values."""
    if not isinstance(node.value, str):
        for item in node.value:
            yield from item if isinstance(item, tuple) else (item,)

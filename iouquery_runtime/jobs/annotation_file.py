"""The images and categories of an annotation file in COCO's form, read as a stream."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from json.decoder import JSONDecoder
from typing import IO, Any

from ..errors import InputError

_CHUNK = 1 << 20
_AFTER_A_VALUE = frozenset(' \t\r\n,:]}')
_LARGEST = 1 << 28
"""Characters of one element at most: what is longer is no entry of such a file."""


class Reader:
    """The elements of the arrays in a JSON object, one after the other.

    Args:
        file: in bytes, UTF-8.
        name: of the file in messages.
    """

    def __init__(self, file: IO[bytes] | Any, name: str) -> None:
        self._file, self.name = file, name
        self._text, self._at, self._ended = '', 0, False
        self._decode_bytes = codecs.getincrementaldecoder('utf-8-sig')().decode
        self._decode = JSONDecoder().raw_decode

    def elements(self) -> Iterator[tuple[str, Any]]:
        """Each element of an array, and each other value, with its key.

        Raises:
            InputError: the file is no JSON object in UTF-8.
        """
        self._expect('{')
        if self._peek() == '}':
            return
        while True:
            key = self._value()
            if not isinstance(key, str):
                raise self._fault('a key that is no text')
            self._expect(':')
            if self._peek() == '[':
                for value in self._array():
                    yield key, value
            else:
                yield key, self._value()
            if self._next() == '}':
                return

    def _array(self) -> Iterator[Any]:
        self._expect('[')
        if self._peek() == ']':
            self._at += 1
            return
        while True:
            yield self._value()
            if self._next() == ']':
                return

    def _value(self) -> Any:
        """The value that begins here. What ends it has been read: of a number the half is a number too."""
        self._peek()
        while True:
            is_last = self._ended or len(self._text) - self._at > _LARGEST
            try:
                value, end = self._decode(self._text, self._at)
            except ValueError as error:
                if is_last:
                    raise self._fault(str(error)) from error
            else:
                if is_last or self._text[end : end + 1] in _AFTER_A_VALUE:
                    self._at = end
                    return value
            self._read()

    def _peek(self) -> str:
        """The next character that is no space; '' at the end of the file."""
        while True:
            while self._at < len(self._text):
                if not self._text[self._at].isspace():
                    return self._text[self._at]
                self._at += 1
            if self._ended:
                return ''
            self._read()

    def _next(self) -> str:
        """What follows a value: a comma, or the end of the array or object."""
        character = self._peek()
        self._at += 1
        if character not in (',', ']', '}'):
            raise self._fault(
                f'{character!r} where a comma or an end should be' if character else 'the file is cut short'
            )
        return character

    def _expect(self, character: str) -> None:
        next_character = self._peek()
        if next_character != character:
            raise self._fault(
                f'{next_character!r} where {character!r} should be' if next_character else 'the file is cut short'
            )
        self._at += 1

    def _read(self) -> None:
        """As much again as is left over, so that a long element is not parsed many times."""
        data = self._file.read(max(_CHUNK, len(self._text) - self._at))
        self._ended = not data
        try:
            self._text = self._text[self._at :] + self._decode_bytes(data, self._ended)
        except UnicodeDecodeError as error:
            raise self._fault('it is not in UTF-8') from error
        self._at = 0

    def _fault(self, fault: str) -> InputError:
        return InputError(
            f"{self.name} is no annotation file in COCO's form: {fault.splitlines()[0]}; copy or export it again"
        )


def images(reader: Reader) -> Iterator[tuple[int, str]]:
    """Id and file name of each image.

    Raises:
        InputError: an entry lacks one of them, or its id is no whole number.
    """
    for key, entry in reader.elements():
        if key != 'images':
            continue
        image_id, name = (entry.get('id'), entry.get('file_name')) if isinstance(entry, dict) else (None, None)
        if isinstance(image_id, bool) or not isinstance(image_id, int) or not isinstance(name, str) or not name:
            raise InputError(
                f'{reader.name} has an image without a whole number as "id" and a "file_name"; add what is missing: '
                f'{json.dumps(entry)[:200]}'
            )
        yield image_id, name


def image_folder(reader: Reader) -> str:
    """``info.image_folder``, which ``iouquery data`` writes first; empty where the file does not begin with it."""
    for key, value in reader.elements():
        if key in ('images', 'annotations'):
            break
        if key == 'info' and isinstance(value, dict):
            return str(value.get('image_folder') or '')
    return ''


def categories(reader: Reader) -> dict[str, int]:
    """Ids of the categories by name; none where the file has no such entries."""
    ids_by_name = {}
    for key, entry in reader.elements():
        if key == 'categories' and isinstance(entry, dict) and isinstance(entry.get('id'), int):
            ids_by_name[str(entry.get('name'))] = entry['id']
    return ids_by_name

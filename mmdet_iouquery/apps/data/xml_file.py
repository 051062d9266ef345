"""XML files of labels: read without what a document can do to its reader."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element


class XmlError(ValueError):
    """A file that is no XML to be read; the message is the reason alone."""


def read_xml(path: Path) -> Element:
    """The root of a document.

    Raises:
        XmlError: it cannot be read, is no XML, or declares entities, by which a small file can fill the memory; no
            program that writes labels does so.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise XmlError(f'a file that cannot be read ({error.strerror})') from error
    if b'<!ENTITY' in data.replace(b'\0', b''):  # the zeros of UTF-16
        raise XmlError('an XML file that declares entities')
    try:
        return ElementTree.parse(BytesIO(data)).getroot()
    except (ElementTree.ParseError, ValueError) as error:  # ValueError: an encoding that is none
        raise XmlError('a broken XML file') from error


def root_tag(path: Path) -> str:
    """The name of a document's outermost element; empty where there is none."""
    try:
        with open(path, 'rb') as file:
            for _, element in ElementTree.iterparse(file, events=('start',)):
                return element.tag
    except (OSError, ElementTree.ParseError, ValueError):
        pass
    return ''


def text_of(element: Element, tag: str) -> str:
    """The stripped text of a child; empty where it is missing."""
    return (element.findtext(tag) or '').strip()

"""What ``mkdocs.yml`` names of :mod:`.docstrings`, as mkdocstrings imports a file by its path."""

from site_pages.docstrings import Markdown

__all__ = ['Markdown']

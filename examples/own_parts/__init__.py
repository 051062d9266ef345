"""Parts of one's own, one a file; an import registers them. docs/own-parts.md explains them."""

from . import backbone, decoder, denoising, loss, selector, transform

__all__ = ['backbone', 'decoder', 'denoising', 'loss', 'selector', 'transform']

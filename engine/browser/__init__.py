"""Naming in the browser: classes as cards, scenes as maps, for this machine alone."""

from alps.engine.browser.serve import serve

__all__ = ["serve"]

"""Algorithms on instances of finite size.  None of them knows state evolution."""

from .amp import amp

__all__ = ["amp"]

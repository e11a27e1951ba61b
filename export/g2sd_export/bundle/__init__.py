"""Bundles: written, sealed, verified, signed, compared and shown."""

from ..edge.manifest import Bundle, Variant, open_bundle
from .writing import BuiltVariant, seal, write_bundle

__all__ = ["BuiltVariant", "Bundle", "Variant", "open_bundle", "seal", "write_bundle"]

"""Tools that read expression as it was measured."""

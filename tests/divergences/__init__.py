"""Tests of divergences; a package, so that they share the table in `pairs`."""

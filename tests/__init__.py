"""Tests of cbmon: tables on pure functions first, then properties, then subprocesses and screens."""

"""Synthetic sweeps live for one test: nobody waits for them to reach the disk."""

import os

import pytest


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)

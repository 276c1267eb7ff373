"""The server's log goes to what is standard error when a line is written."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from octavo.config import EngineConfig
from octavo.errors import UsageError
from octavo.server.config import ServerConfig
from octavo.server.lifecycle.deployment import Deployment, ModelPlan
from octavo.server.lifecycle.run import run_server

NAMES = ("octavo.server", "uvicorn")


@pytest.fixture
def kept_loggers():
    """Puts the loggers back as they were."""
    logs = [logging.getLogger(name) for name in NAMES]
    before = [(log.handlers, log.level, log.propagate) for log in logs]
    yield
    for log, (handlers, level, propagate) in zip(logs, before, strict=True):
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)


@pytest.mark.usefixtures("kept_loggers")
def test_a_server_that_is_run_twice_writes_each_line_once(monkeypatch, tmp_path):
    lacking = tmp_path / "none.pem"
    config = ServerConfig(ssl_certfile=lacking, ssl_keyfile=lacking)
    models = (ModelPlan(names=("m",), engine=EngineConfig(model="m")),)
    streams = []
    for _ in range(2):
        streams.append(io.StringIO())
        monkeypatch.setattr(sys, "stderr", streams[-1])
        with pytest.raises(UsageError):
            run_server(Deployment(models=models, server=config))
        logging.getLogger("octavo.server").info("a line")
    assert [stream.getvalue().count("a line") for stream in streams] == [1, 1]
    streams[-1].close()
    last = io.StringIO()
    logging.getLogger("octavo.server").info("lost, and nothing is told of it")
    monkeypatch.setattr(sys, "stderr", last)
    logging.getLogger("octavo.server").info("another")
    assert last.getvalue().endswith(" another\n")
    assert "Logging error" not in last.getvalue()

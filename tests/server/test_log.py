"""The access log: how many lines it writes in each mode."""

import logging

from jobqueue.server import log


def test_refusals_beyond_a_thousand_a_second_are_summed_up(caplog):
    caplog.set_level(logging.INFO, "jobqueue.access")
    for mode, lines in (("auto", 1000), ("errors", 1000), ("all", 1500), ("off", 0)):
        caplog.clear()
        access = log.AccessLog(mode)
        for _ in range(1500):
            access.request("GET", "/none", 404, 0.0, 0, "10.0.0.1", "r")
        assert len(caplog.records) == lines
        access.flush()
        said = [record.getMessage() for record in caplog.records[lines:]]
        assert said == (["500 more requests were refused in this second"] if lines == 1000 else [])
        access.request("GET", "/none", 404, 0.0, 0, "10.0.0.1", "r")
        assert "GET /none 404" in caplog.records[-1].getMessage() if lines else caplog.records == []

"""No query can name a metric or a label that does not exist."""

from __future__ import annotations

import pytest

from rlpx.engine.watch.queries import increase, quantile, rate, select, total


def test_queries_name_the_samples_of_each_kind() -> None:
    assert select("rlpx_up") == "rlpx_up"
    assert select("rlpx_queue_bytes", process="~worker-.*", queue="progress") == (
        'rlpx_queue_bytes{process=~"worker-.*",queue="progress"}'
    )
    assert total("rlpx_readers", ["reader"]) == "sum by (instance, reader) (rlpx_readers)"
    assert (
        rate("rlpx_peer_bytes", "1m", direction="in")
        == 'sum by (instance) (rate(rlpx_peer_bytes_total{direction="in"}[1m]))'
    )
    assert increase("rlpx_commands", "5m") == "sum by (instance) (increase(rlpx_commands_total[5m]))"
    assert quantile(0.95, "rlpx_handshake_seconds", "5m", ["direction"]) == (
        "histogram_quantile(0.95, sum by (instance, le, direction) (rate(rlpx_handshake_seconds_bucket[5m])))"
    )


def test_what_does_not_exist_is_an_error() -> None:
    with pytest.raises(KeyError):
        select("rlpx_down")
    with pytest.raises(ValueError, match="rlpx_up has no label direction"):
        select("rlpx_up", direction="in")
    with pytest.raises(ValueError, match="rlpx_up has no label direction"):
        total("rlpx_up", ["direction"])
    with pytest.raises(ValueError, match="rlpx_up is a gauge"):
        rate("rlpx_up", "1m")
    with pytest.raises(ValueError, match="rlpx_commands is a counter"):
        total("rlpx_commands")
    with pytest.raises(ValueError, match="rlpx_up is a gauge"):
        increase("rlpx_up", "1m")
    with pytest.raises(ValueError, match="rlpx_up is a gauge"):
        quantile(0.5, "rlpx_up", "1m")

"""What `up` runs."""

from __future__ import annotations

from pathlib import Path

from tallystream.settings.settings import Settings
from tallystream.supervisor.specs import plan


def test_embedded_kafka_runs_only_without_an_external_cluster(tmp_path: Path) -> None:
    ours = plan(Settings(data_dir=tmp_path), port=4318, workers=2, embedded_port=29092)
    assert [spec.name for spec in ours.specs] == ["kafka", "gateway", "worker-1", "worker-2", "exporter", "ledger"]
    assert ours.kafka == "127.0.0.1:29092"
    theirs = plan(Settings(data_dir=tmp_path, kafka="k:9092"), port=4318, workers=1, embedded_port=None)
    assert [spec.name for spec in theirs.specs] == ["gateway", "worker", "exporter", "ledger"]
    assert theirs.kafka == "k:9092"
    for spec in theirs.specs:
        assert spec.argv[spec.argv.index("--kafka") :][:2] == ("--kafka", "k:9092")


def test_accept_loss_is_passed_only_to_workers(tmp_path: Path) -> None:
    planned = plan(Settings(data_dir=tmp_path), port=4318, workers=2, embedded_port=29092, accept_loss=True)
    told = [spec.name for spec in planned.specs if "--accept-loss" in spec.argv]
    assert told == ["worker-1", "worker-2"]

"""What `up` runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def test_several_gateways_share_the_port(tmp_path: Path) -> None:
    planned = plan(Settings(data_dir=tmp_path), port=4318, workers=1, gateways=2, embedded_port=29092)
    both = [spec for spec in planned.specs if spec.name.startswith("gateway")]
    assert [spec.name for spec in both] == ["gateway-1", "gateway-2"]
    assert all("--reuse-port" in spec.argv for spec in both)
    alone = plan(Settings(data_dir=tmp_path), port=4318, workers=1, embedded_port=29092)
    assert not any("--reuse-port" in spec.argv for spec in alone.specs)


def test_accept_loss_is_passed_only_to_workers(tmp_path: Path) -> None:
    planned = plan(Settings(data_dir=tmp_path), port=4318, workers=2, embedded_port=29092, accept_loss=True)
    told = [spec.name for spec in planned.specs if "--accept-loss" in spec.argv]
    assert told == ["worker-1", "worker-2"]


def test_poller_runs_only_if_there_is_a_key(tmp_path: Path) -> None:
    def polls(**settings: Any) -> bool:
        planned = plan(Settings(data_dir=tmp_path, **settings), port=4318, workers=1, embedded_port=29092)
        return "poller" in [spec.name for spec in planned.specs]

    resource = '[[resources]]\npath = "/organization/audit_logs"\nkey = "admin"\n'
    provider = '[[providers]]\nname = "acme"\nbase_url = "https://acme.test"\nkey_file = "k"\n'
    for name, text in (("resource", resource), ("provider", provider), ("broken", "[[")):
        (tmp_path / f"{name}.toml").write_text(text)
    assert not polls()
    assert polls(openai_api_token="k")
    assert not polls(openai_resources=str(tmp_path / "resource.toml"))
    assert polls(openai_resources=str(tmp_path / "provider.toml"))
    assert polls(openai_resources=str(tmp_path / "broken.toml")), "it says what is wrong with the file"

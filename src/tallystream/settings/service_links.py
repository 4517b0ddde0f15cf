"""Reads settings from the environment of a pod, which names the Services around it."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_settings import EnvSettingsSource
from typing_extensions import override


class WithoutServiceLinks(EnvSettingsSource):
    """The environment without the variables that Kubernetes sets for each Service of a namespace.

    A Service `tallystream-grpc` sets TALLYSTREAM_GRPC_PORT=tcp://10.0.0.1:4317 in every pod, which is no setting.
    """

    @override
    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {
            name: value
            for name, value in super()._load_env_vars().items()
            if not (name.endswith("_port") and (value or "").startswith(("tcp://", "udp://", "sctp://")))
        }

"""The scaler's questions to Prometheus, as the production overlay has them."""

from __future__ import annotations

import re

from tests.deploy.kustomize import render
from tests.deploy.renderings import KUBERNETES, named


def scaler_queries() -> dict[str, str]:
    """The query of each trigger by the stream that it asks for; each asks for one."""
    found = {}
    scaler = named(render(KUBERNETES / "overlays" / "production"), "ScaledObject")
    for trigger in scaler["spec"]["triggers"]:
        query: str = trigger["metadata"]["query"]
        (stream,) = set(re.findall(r'stream="([^"]+)"', query))
        found[stream] = query
    return found

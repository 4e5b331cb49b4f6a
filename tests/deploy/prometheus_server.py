"""A real Prometheus on loopback with the project's rules, in a temporary folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.prometheus_rule import RULES
from tests.environment.servers import free_port
from tests.environment.waiting import eventually


class Prometheus:
    """Debian's `prometheus`, scraping targets four times a second.

    Args:
        targets: `host:port` of each target, with the name of the pod it is.
    """

    def __init__(self, folder: Path, targets: Mapping[str, str]) -> None:
        program = shutil.which("prometheus")
        assert program is not None
        self.port = free_port()
        self._log = folder / "prometheus.log"
        configuration = {
            "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms"},
            "rule_files": [str(path) for path in RULES],
            "scrape_configs": [
                {
                    "job_name": "event-router",
                    "static_configs": [
                        {"targets": [address], "labels": {"namespace": "test", "pod": pod}}
                        for address, pod in targets.items()
                    ],
                }
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        words = [
            program,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def __enter__(self) -> Prometheus:
        try:
            eventually(lambda: self.names() is not None, within=15, what=self._said)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def _said(self) -> str:
        return f"Prometheus answers: {self._log.read_text(errors='replace')[-1000:]}"

    def query(self, expression: str) -> list[float]:
        """The values an expression has now, those that are no number left out."""
        found = self._get("query", {"query": expression})
        values = [float(series["value"][1]) for series in found["result"]]
        return [value for value in values if value == value]

    def names(self) -> set[str]:
        """The names of all metrics there are."""
        return set(self._get("label/__name__/values", {}))

    def label_values(self, label: str, metric: str) -> list[str]:
        """The values of a label of a metric."""
        found: list[str] = self._get(f"label/{label}/values", {"match[]": metric})
        return found

    def rules(self) -> list[dict[str, Any]]:
        """The rules as they were last evaluated."""
        return [rule for group in self._get("rules", {})["groups"] for rule in group["rules"]]

    def _get(self, path: str, parameters: Mapping[str, str]) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]

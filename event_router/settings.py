"""The settings: their names, defaults, ranges, and where each value comes from.

The command line wins over the environment, the environment over the TOML file, the file over the defaults.
"""

from __future__ import annotations

import difflib
import os
import socket
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from event_router.core.errors import ConfigurationError
from event_router.core.keys import KeyNames
from event_router.settings_text import (
    check_domain,
    check_import_string,
    check_name,
    check_template,
    one_line,
    parse_list,
    parse_pairs,
)

PREFIX = "EVENT_ROUTER_"
NESTED = "__"
NEAR = 0.75
"""How much of a wrong name in a file is that of a setting before it is taken for a slip of the pen."""

_URLS = ("redis_streams_url", "redis_pubsub_url", "operator_url")
_RESERVED = ("dlq", "outbox", "event-router", "stats", "input", "interaction")
_FOUR_HANDLERS = (
    "handlers.auth:AuthEventHandler",
    "handlers.chat:ChatEventHandler",
    "handlers.scan:ScanEventHandler",
    "handlers.info:InfoEventHandler",
)

Name = Annotated[str, AfterValidator(check_name)]
Domain = Annotated[str, AfterValidator(check_domain)]
ImportString = Annotated[str, AfterValidator(check_import_string)]
ShardCount = Annotated[int, Field(ge=1, le=1024)]
Milliseconds = Annotated[int, Field(ge=1, le=86_400_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class SettingsError(ConfigurationError):
    """A setting is wrong: one line that names it, says what is wrong and what to do."""


class Settings(BaseSettings):
    """Everything that can be set, each field also as the environment variable `EVENT_ROUTER_<FIELD>`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=NESTED,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    redis_streams_url: str | None = Field(
        None,
        description="The Redis that holds streams and state: `redis://`, `rediss://`, `unix://` or"
        " `redis+sentinel://h1:26379,h2:26379/mymaster/0`. Required unless the embedded server is used.",
    )
    embedded: bool = Field(False, description="Start the embedded server instead; for development and tests.")
    redis_pubsub_url: str | None = Field(
        None, description="The Redis that carries the fan-out only. Unset: the streams URL."
    )
    redis_timeout_s: Seconds = Field(5.0, description="How long one Redis command may take, in seconds.")
    handlers: tuple[ImportString, ...] = Field(
        _FOUR_HANDLERS, min_length=1, description="The handlers to run, as import strings `module:Class`."
    )
    app_dir: Path = Field(Path(), description="Folder put on the import path to find the handlers.")
    domains: tuple[Domain, ...] = Field(
        (), description="The domains this router serves. Empty: those of the handlers."
    )
    shards: dict[Domain, ShardCount] = Field(
        default_factory=dict,
        description="Streams a domain is spread over, such as `chat=4,scan=4`; 1 where not named."
        " Producers and routers must agree.",
    )
    stream_template: str = Field(
        "events:{domain}",
        description="Name of a domain's stream, from `{domain}` and `{shard}`; where a domain has several"
        " shards and the template no `{shard}`, `:{shard}` is appended.",
    )
    state_prefix: Name = Field("state", description="First part of the keys of entity state.")
    job_state_template: str = Field(
        "{domain}:state:{job_id}", description="Key of a job's state, from `{domain}` and `{job_id}`."
    )
    job_state_ttl_s: int = Field(3600, ge=1, le=31_536_000, description="Life of a job's state, in seconds.")
    job_channel_template: str = Field(
        "sse:events:{job_id}", description="Channel of a job's progress, from `{job_id}`."
    )
    outbox_maxlen: int = Field(
        100_000, ge=1, description="About how many messages the fan-out log of a domain keeps, in entries."
    )
    presence_ttl_s: Seconds = Field(
        60.0, description="How long a user is present after a sign of life, in seconds."
    )
    presence_last_seen_s: int = Field(
        2_592_000,
        ge=1,
        le=315_360_000,
        description="How long is known when a user was last seen, in seconds.",
    )
    dedupe_window_s: int = Field(
        3600,
        ge=0,
        le=31_536_000,
        description="How long a producer's `id` is remembered, so that a repetition does not count,"
        " in seconds; 0: not at all.",
    )
    group: Name = Field("event-router-group", description="The consumer group.")
    consumer: Name | None = Field(
        None,
        description="This router's name in the group. Unset: `consumer-{POD_NAME}`, without a POD_NAME"
        " `consumer-{hostname}-{pid}`.",
    )
    read_count: int = Field(500, ge=1, le=10_000, description="Most entries one read asks for, in entries.")
    read_block_ms: Milliseconds = Field(
        5000, description="How long a read waits for entries, in milliseconds."
    )
    max_in_flight: int = Field(
        2000, ge=1, le=1_000_000, description="Most events between read and commit, in events."
    )
    concurrency: int = Field(1000, ge=1, le=1_000_000, description="Most handlers that run at once.")
    commit_max_events: int = Field(
        500, ge=1, le=500, description="Most events one commit settles, in events."
    )
    handler_timeout_s: Seconds = Field(
        30.0, description="How long a handler may take for one event, in seconds."
    )
    claim_min_idle_ms: Milliseconds = Field(
        60_000, description="Idle time after which another router takes an entry over, in milliseconds."
    )
    claim_interval_ms: Milliseconds = Field(15_000, description="Time between full sweeps, in milliseconds.")
    max_deliveries: int = Field(
        5, ge=1, le=1000, description="Handler starts after which an event becomes a dead letter."
    )
    retry_backoff_ms: Milliseconds = Field(1000, description="Wait before the first retry, in milliseconds.")
    retry_factor: float = Field(
        2.0, ge=1, le=100, allow_inf_nan=False, description="Growth of the wait from retry to retry."
    )
    max_entry_bytes: int = Field(
        1_048_576, ge=1, le=536_870_912, description="Largest entry that is handled, in bytes."
    )
    unknown_events: Literal["dead-letter", "ack"] = Field(
        "dead-letter", description="What becomes of an event whose type no handler takes."
    )
    stream_min_length: int = Field(
        10_000, ge=0, description="Settled entries that retention leaves in a stream, in entries."
    )
    http_host: Name = Field(
        "0.0.0.0",  # noqa: S104 - a container is reached from outside
        description="Address of the HTTP server.",
    )
    http_port: int = Field(8080, ge=0, le=65_535, description="Port of the HTTP server; 0 takes a free one.")
    shutdown_grace_s: Seconds = Field(
        25.0, description="Time to finish what was begun at a stop, in seconds."
    )
    log_level: Literal["debug", "info", "warning", "error", "critical"] = Field(
        "info", description="Least level that is logged."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="Form of the log; `auto` is console on a terminal and json otherwise."
    )
    tracing: Literal["off", "links", "parent"] = Field(
        "off",
        description="Spans by OpenTelemetry: `off`; `links` (attempts link to the producer's trace); `parent`"
        " (they continue it). Needs the extra `otel`; the `OTEL_*` variables say where they go.",
    )
    operator_url: str | None = Field(
        None, description="The streams Redis for commands that change things. Unset: the streams URL."
    )
    data_dir: Path = Field(
        Path(".event-router"), description="Folder of the embedded server's append-only file and address."
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what is given in code first, then the environment."""
        return init_settings, _Environment(settings_cls)

    @field_validator("handlers", "domains", mode="before")
    @classmethod
    def _list_from_text(cls, value: Any) -> Any:
        return parse_list(value) if isinstance(value, str) else value

    @field_validator("shards", mode="before")
    @classmethod
    def _shards_from_text(cls, value: Any) -> Any:
        return parse_pairs(value) if isinstance(value, str) else value

    @field_validator("log_level", "log_format", "unknown_events", "tracing", mode="before")
    @classmethod
    def _lower_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("handlers", "domains")
    @classmethod
    def _once_each(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if value.count(name) > 1:
                raise ValueError(f"{name} is named twice; name it once")
        return value

    @field_validator("stream_template")
    @classmethod
    def _stream_template(cls, value: str) -> str:
        check_template(value, required={"domain"}, optional={"shard"})
        if value.split(":", 1)[0] in _RESERVED:
            raise ValueError(f"the keys of {value.split(':', 1)[0]}: are the router's own; begin otherwise")
        return value

    @field_validator("job_state_template")
    @classmethod
    def _job_state_template(cls, value: str) -> str:
        return check_template(value, required={"job_id"}, optional={"domain"})

    @field_validator("job_channel_template")
    @classmethod
    def _job_channel_template(cls, value: str) -> str:
        return check_template(value, required={"job_id"}, optional=set())

    @field_validator("state_prefix")
    @classmethod
    def _state_prefix(cls, value: str) -> str:
        if value.split(":", 1)[0] in _RESERVED or value.endswith(":") or set(value) & set("{}*?[]\\"):
            raise ValueError(f"{value!r} cannot begin keys of state; take a plain word such as state")
        return value

    @field_validator(*_URLS)
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        from event_router.redis_client.address import parse_url

        if value is not None:
            parse_url(value)
        return value

    @model_validator(mode="after")
    def _no_contradiction(self) -> Settings:
        if self.embedded and self.redis_streams_url is not None:
            raise _contradiction("embedded", "is on while EVENT_ROUTER_REDIS_STREAMS_URL is set; keep one")
        if self.retry_backoff_ms > self.claim_min_idle_ms:
            raise _contradiction(
                "retry_backoff_ms",
                f"= {self.retry_backoff_ms} is above EVENT_ROUTER_CLAIM_MIN_IDLE_MS ="
                f" {self.claim_min_idle_ms}, the longest wait between attempts; make it smaller",
            )
        if self.presence_last_seen_s < self.presence_ttl_s:
            raise _contradiction(
                "presence_last_seen_s",
                f"= {self.presence_last_seen_s} is below EVENT_ROUTER_PRESENCE_TTL_S ="
                f" {self.presence_ttl_s:g}; make it larger",
            )
        return self

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Show the settings without passwords."""
        return [(name, shown(name, value)) for name, value in self]

    @property
    def consumer_name(self) -> str:
        """The consumer this process is in the group; only the one from POD_NAME outlives a restart."""
        if self.consumer is not None:
            return self.consumer
        pod = os.environ.get("POD_NAME")
        return f"consumer-{pod}" if pod else f"consumer-{socket.gethostname()}-{os.getpid()}"

    def streams(self, domain: str) -> tuple[str, ...]:
        """The names of a domain's streams, in the order of their shards."""
        return self.key_names.streams(domain)

    @property
    def key_names(self) -> KeyNames:
        """The templates of every name on the wire."""
        return KeyNames(
            stream_template=self.stream_template,
            state_prefix=self.state_prefix,
            job_state_template=self.job_state_template,
            job_state_ttl_ms=self.job_state_ttl_s * 1000,
            job_channel_template=self.job_channel_template,
            outbox_maxlen=self.outbox_maxlen,
            shards=self.shards,
        )


@dataclass(frozen=True, slots=True)
class Sourced:
    """One setting: its field name, its value ready to be shown, and where the value comes from."""

    name: str
    value: Any
    source: Literal["default", "file", "environment variable", "command line"]

    @property
    def variable(self) -> str:
        """The environment variable of the setting."""
        return variable(self.name)


def load(config: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings; `overrides` are the command line's, by field name, None where not given.

    Raises SettingsError, whose message is one line, for a wrong value, a contradiction or an unknown name.
    """
    return _resolve(config, overrides)[0]


def sources(config: Path | None = None, **overrides: Any) -> list[Sourced]:
    """Each setting with its value (URLs without passwords) and where it comes from; raises as `load`."""
    settings, layers = _resolve(config, overrides)
    found: list[Sourced] = []
    for name, value in settings:
        source = next((kind for kind, layer in layers.items() if name in layer), "default")
        found.append(Sourced(name, shown(name, value), source))  # type: ignore[arg-type]  # keys of _layers
    return found


def variable(name: str) -> str:
    """The environment variable of a field."""
    return PREFIX + name.upper()


def shown(name: str, value: Any) -> Any:
    """A value as it may be shown: a URL without its password, a path as text."""
    if name in _URLS and isinstance(value, str):
        from event_router.redis_client.address import redact

        return redact(value)
    return str(value) if isinstance(value, Path) else value


class _Environment(EnvSettingsSource):
    """The environment, where a list or mapping may be written with commas instead of JSON."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        # A text that cannot be read is left for the field's validator, whose error names the variable.
        parse: Callable[[str], Any] = parse_pairs if get_origin(field.annotation) is dict else parse_list
        try:
            return parse(value)
        except ValueError:
            return value


def _resolve(config: Path | None, overrides: Mapping[str, Any]) -> tuple[Settings, dict[str, dict[str, Any]]]:
    layers = _layers(config, overrides)
    merged: dict[str, Any] = {"embedded": False, "redis_streams_url": None}
    for layer in reversed(layers.values()):
        merged |= layer
    if isinstance(shards := layers["file"].get("shards"), dict) and not os.environ.get(variable("shards")):
        # EVENT_ROUTER_SHARDS__CHAT alone changes one domain of the file's table.
        merged["shards"] = shards | merged["shards"]
    try:
        return Settings(**merged), layers
    except ValidationError as error:
        raise SettingsError(_explained(error.errors()[0], layers, config)) from None


def _layers(config: Path | None, overrides: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What each source sets, the strongest first."""
    given = {name: value for name, value in overrides.items() if value is not None}
    _refuse_unknown(given, lambda name: f"{name} is no setting")
    _refuse_unknown_variables()
    file = {} if config is None else _read_file(config)
    _refuse_unknown(file, lambda name: f"{name} in {config} is no setting")
    layers = {"command line": given, "environment variable": _Environment(Settings)(), "file": file}
    _choose_server(list(layers.values()))
    return layers


def _choose_server(layers: list[dict[str, Any]]) -> None:
    """Let the strongest source decide which server: `--embedded` wins over a URL in the environment."""
    decided = False
    for layer in layers:
        if decided:
            layer.pop("embedded", None)
            layer.pop("redis_streams_url", None)
        embedded = str(layer.get("embedded", False)).lower() not in ("false", "0", "no", "off", "n", "f")
        decided = decided or embedded or bool(layer.get("redis_streams_url"))


def _read_file(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"{config} cannot be read ({error.strerror}); name a TOML file with --config"
        ) from None
    except ValueError as error:
        raise SettingsError(f"{config} is no TOML file: {one_line(error)}; correct it") from None


def _refuse_unknown_variables() -> None:
    known = Settings.model_fields
    for name in os.environ:
        if not name.upper().startswith(PREFIX):
            continue
        field, nested, _ = name[len(PREFIX) :].lower().partition(NESTED)
        if field not in known or (nested and field != "shards"):
            raise SettingsError(f"{name} is no setting{_instead(field)}")


def _refuse_unknown(names: Mapping[str, Any], message: Callable[[str], str]) -> None:
    for name in names:
        if name not in Settings.model_fields:
            written = name.lower().removeprefix(PREFIX.lower()).replace("-", "_")
            near = difflib.get_close_matches(written, Settings.model_fields, n=1, cutoff=NEAR)
            nearest = f"; the nearest is {near[0]}: correct the name or" if near else ";"
            raise SettingsError(f"{message(name)}{nearest} remove it")


def _instead(field: str) -> str:
    if field.startswith(("service_", "port_")) or field == "port":
        return "; it looks like a Kubernetes service link: set enableServiceLinks: false in the pod"
    near = difflib.get_close_matches(field, Settings.model_fields, n=1, cutoff=0.0)
    return f"; the nearest is {variable(near[0])}: correct the name or remove it"


def _explained(error: ErrorDetails, layers: Mapping[str, Mapping[str, Any]], config: Path | None) -> str:
    context = error.get("ctx", {})
    name = str(error["loc"][0]) if error["loc"] else str(context.get("setting"))
    problem = error["msg"].removeprefix("Value error, ")
    if error["type"] == "setting_contradiction":
        return one_line(f"{variable(name)} {problem}")
    source = next((kind for kind, layer in layers.items() if name in layer), "default")
    where = (
        f" (from {config})"
        if source == "file"
        else " (from the command line)"
        if source == "command line"
        else ""
    )
    is_key = "[key]" in error["loc"]
    detail = "".join(f" {part}" for part in error["loc"][1:] if isinstance(part, str) and not is_key)
    value = "" if name in _URLS else f" {error['input']!r:.200}"
    default = shown(name, Settings.model_fields[name].get_default(call_default_factory=True))
    fallback = (
        ""
        if default is None or isinstance(default, tuple | dict)
        else f", or leave it out for the default {default}"
    )
    return one_line(f"{variable(name)}{where}{detail}{value} is wrong: {problem}; correct it{fallback}")


def _contradiction(name: str, message: str) -> Exception:
    return PydanticCustomError("setting_contradiction", "{problem}", {"setting": name, "problem": message})

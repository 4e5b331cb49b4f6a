# syntax=docker/dockerfile:1
# Where the base must never move, pin it: --build-arg BASE=python:3.11-slim-bookworm@sha256:...
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# Dependencies first: they change less often than the code.
COPY requirements.txt requirements-build.txt ./
RUN python -m venv --without-pip /opt/event-router \
    && python -m pip --python /opt/event-router/bin/python install \
        --require-hashes --only-binary :all: --requirement requirements.txt \
    && python -m pip install --require-hashes --only-binary :all: --requirement requirements-build.txt

COPY pyproject.toml README.md LICENSE ./
COPY event_router event_router
COPY handlers handlers
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && python -m pip --python /opt/event-router/bin/python install --no-deps --no-index /wheels/*.whl

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="event-router" \
      org.opencontainers.image.description="Routes Redis Streams events to handlers and commits each event's effects exactly once" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# Nothing is written at run time, so the root file system may be read-only.
ENV PATH="/opt/event-router/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

COPY --from=builder /opt/event-router /opt/event-router
COPY config /app/config

# Handlers of your own go here (APP_DIR is the working directory) or onto any other import path.
WORKDIR /app
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["event-router"]
CMD ["run"]

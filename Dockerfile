# syntax=docker/dockerfile:1
# Where the base must never move, pin it: --build-arg BASE=python:3.11-slim-bookworm@sha256:...
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# The first process of the container: passes signals on from the first moment (the kernel drops those that a first
# process has no handler for) and reaps what handlers leave behind.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini

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
ARG BASE
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=""
LABEL org.opencontainers.image.title="event-router" \
      org.opencontainers.image.description="Routes Redis Streams events to handlers and commits each event's effects exactly once" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE}"

# Nothing is written at run time, so the root file system may be read-only.
ENV PATH="/opt/event-router/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

COPY --from=builder /usr/bin/tini-static /usr/bin/tini
COPY --from=builder /opt/event-router /opt/event-router
COPY config /app/config

# Handlers of your own go here (APP_DIR is the working directory) or onto any other import path.
WORKDIR /app
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "event-router"]
CMD ["run"]

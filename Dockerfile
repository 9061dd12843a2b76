ARG PYTHON_IMAGE=python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/gateway
WORKDIR /build
# The requirements first: they change less often than the code, so this layer is kept.
COPY requirements.lock ./
RUN /opt/gateway/bin/pip install --require-hashes --no-deps --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY gateway gateway
# The build backend is locked too: nothing is fetched here.
RUN /opt/gateway/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheel . \
    && /opt/gateway/bin/pip install --no-deps --no-index /wheel/*.whl

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="mqtt-timescale-gateway" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.description="MQTT to TimescaleDB ingestion gateway: nothing lost, nothing twice"
# A volume for the spool, mounted at /var/lib/gateway, is its user's from the beginning.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin gateway \
    && install --directory --owner=10001 --group=10001 --mode=700 /var/lib/gateway
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/empty
EXPOSE 9108
STOPSIGNAL SIGTERM
# /live, not /ready: a gateway that waits for its database is in order, and must not be restarted for it.
HEALTHCHECK --interval=15s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 9108, timeout=4); \
c.request('GET', '/live'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["gateway"]
CMD ["run", "--config", "/etc/gateway/gateway.toml"]

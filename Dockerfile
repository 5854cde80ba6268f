# docker build -t extauthz .
# docker run -v $PWD/extauthz.yaml:/etc/extauthz/extauthz.yaml:ro -v $PWD/policies:/policies:ro -p 9191:9191 extauthz
#
# With a configuration file of Cerbos's, on its ports:
# docker run -v $PWD/.cerbos.yaml:/etc/extauthz/extauthz.yaml:ro -v $PWD/policies:/policies:ro -p 3592:3592 -p 3593:3593 \
#     -e EXTAUTHZ_HEALTH=http://127.0.0.1:3592/healthz extauthz
# Policy tests: docker run -v $PWD/policies:/policies:ro extauthz compile /policies

FROM python:3.13-slim AS build
WORKDIR /src
RUN ["python", "-m", "venv", "/opt/extauthz"]
COPY pyproject.toml README.md LICENSE ./
COPY engine engine
COPY extauthz extauthz
COPY envoy/envoy.yaml envoy/envoy.yaml
RUN ["/opt/extauthz/bin/pip", "install", "--no-cache-dir", ".[envoy,stores]"]

FROM python:3.13-slim
COPY --from=build /opt/extauthz /opt/extauthz
ENV PATH=/opt/extauthz/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    EXTAUTHZ_CONFIG=/etc/extauthz/extauthz.yaml \
    EXTAUTHZ_LOG_FORMAT=json \
    EXTAUTHZ_HEALTH=http://127.0.0.1:9192/healthz
# A number, so that Kubernetes can see that it is not root. Nothing is written: the root file system can be read-only.
USER 10001:10001
EXPOSE 9191 9192
STOPSIGNAL SIGTERM
# Where `server.httpListenAddr` is another one, or there is TLS: set EXTAUTHZ_HEALTH, or give --health-cmd.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(os.environ['EXTAUTHZ_HEALTH'], timeout=2)"]
ENTRYPOINT ["extauthz"]
CMD ["serve"]

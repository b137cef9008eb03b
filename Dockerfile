# One image file, two images:
#   service   the control plane: `lorafleet serve` and the other commands. No torch, no compiler.
#   trainer   what runs on Ray: head, workers and drivers. KubeRay starts Ray in it.
# Versions are those of constraints.txt. With --build-arg TORCH_INDEX=URL torch comes from that index (a CPU build of it, say);
# unset, it is the one of the package index that pip asks: on Linux with CUDA.

FROM python:3.11-slim-bookworm AS base
# HOME is the one folder besides /tmp that is written to: the root file system may be read-only, with volumes on these two.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/var/lib/lorafleet \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# A login shell, as KubeRay starts Ray by, sets PATH anew.
RUN groupadd --gid 10001 lorafleet \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/lorafleet --create-home --shell /usr/sbin/nologin lorafleet \
    && echo "export PATH=/opt/venv/bin:\$PATH" > /etc/profile.d/lorafleet.sh

# What builds: neither uv nor a compiler gets from here into the images.
FROM base AS build
WORKDIR /src
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 VIRTUAL_ENV=/opt/venv
COPY constraints.txt ./
RUN python -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt uv \
    && ln -s /opt/uv/bin/uv /usr/local/bin/uv \
    && uv venv --python "$(command -v python)" /opt/venv
COPY pyproject.toml ./

FROM build AS service-build
# Of the 400 services that botocore describes we call one, and the others for its credentials alone: 25 MB less.
RUN uv pip install -c constraints.txt --extra service -r pyproject.toml \
    && find /opt/venv/lib/python3.*/site-packages/botocore/data -mindepth 1 -maxdepth 1 -type d \
    ! -name s3 ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -rf {} +
COPY README.md LICENSE ./
COPY lorafleet lorafleet
COPY service service
RUN uv pip install --no-deps --build-constraints constraints.txt .

FROM build AS trainer-build
ARG TORCH_INDEX=""
# python3-dev: the headers, where the base image's Python is Debian's own.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ python3-dev && rm -rf /var/lib/apt/lists/*
# DeepSpeed comes as source and imports torch while it is built. The one op that training on CPUs needs is built here, not in
# each pod; it takes no flag of this machine's processor. Of a torch from elsewhere only torch itself comes from there.
RUN if [ -n "$TORCH_INDEX" ]; then uv pip install -c constraints.txt --no-deps --default-index "$TORCH_INDEX" torch; fi \
    && uv pip install -c constraints.txt torch setuptools ninja packaging py-cpuinfo \
    && DS_BUILD_OPS=0 DS_BUILD_SHM_COMM=1 DS_ACCELERATOR=cpu uv pip install -c constraints.txt --no-build-isolation-package deepspeed \
    --extra trainer -r pyproject.toml
COPY README.md LICENSE ./
COPY lorafleet lorafleet
COPY trainer trainer
RUN uv pip install --no-deps --build-constraints constraints.txt .

FROM base AS trainer
ARG VERSION=0.1.0
ARG REVISION=""
LABEL org.opencontainers.image.title="lorafleet-trainer" \
      org.opencontainers.image.description="Ray, DeepSpeed and lorafleet's trainer: heads and workers of a Ray cluster" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
# wget: KubeRay's probes. g++: DeepSpeed builds what offload on a GPU needs when it is first asked for.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ libgomp1 wget && rm -rf /var/lib/apt/lists/*
COPY --from=trainer-build /opt/venv /opt/venv
USER 10001:10001
WORKDIR /var/lib/lorafleet
# A cluster's own probes look at Ray; this process is no server.
HEALTHCHECK NONE
CMD ["ray", "--help"]

FROM base AS service
ARG VERSION=0.1.0
ARG REVISION=""
LABEL org.opencontainers.image.title="lorafleet-service" \
      org.opencontainers.image.description="lorafleet's control plane and command line" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=service-build /opt/venv /opt/venv
USER 10001:10001
WORKDIR /var/lib/lorafleet
ENV LORAFLEET_STATE_DIR=/var/lib/lorafleet LORAFLEET_METRICS_LISTEN=0.0.0.0:7601
EXPOSE 7600 7601
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7601/healthz/live', timeout=4)"]
ENTRYPOINT ["lorafleet"]
CMD ["serve"]

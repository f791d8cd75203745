# An image for GPU servers. Weights are not in it: they come in a volume, /models.
#
#   docker build --tag alps .
#   docker run --rm --init --gpus all --user "$(id -u):$(id -g)" --volume "$PWD:/work" \
#       --volume alps-models:/models --volume alps-cache:/cache alps label TILES OUT --device cuda
#
# docs/deploy.md says what to expect of it. CUDA and the extra for it go together: cuda12 wants
# --build-arg CUDA=12.9.1 --build-arg EXTRAS=cuda12,metrics,ray,stores.

ARG CUDA=13.0.2

FROM nvidia/cuda:${CUDA}-runtime-ubuntu24.04 AS base
# A compiler of C and Python's headers: Triton builds what launches its kernels where they run.
# Ubuntu takes older packages out of its archive: pinned ones would not be there tomorrow.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        gcc libc6-dev python3.12 python3.12-dev python3.12-venv \
    && rm -rf /var/lib/apt/lists/*

FROM base AS build
ARG EXTRAS=cuda13,metrics,ray,stores
COPY . /src
RUN python3.12 -m venv /opt/alps \
    && /opt/alps/bin/pip install --no-cache-dir "/src[${EXTRAS}]"

FROM base
# Whoever it runs as: models and compiled kernels have a place, and no thread spins while it waits.
ENV PATH=/opt/alps/bin:$PATH \
    ALPS_HOME=/models \
    TRITON_HOME=/cache \
    XDG_CACHE_HOME=/cache \
    OMP_WAIT_POLICY=PASSIVE \
    PYTHONUNBUFFERED=1
RUN useradd --uid 10001 --create-home alps \
    && mkdir /models /cache /work \
    && chmod 1777 /models /cache /work
COPY --from=build /opt/alps /opt/alps
USER 10001
WORKDIR /work
HEALTHCHECK --interval=5m --timeout=30s --start-period=30s CMD ["alps", "--version"]
ENTRYPOINT ["alps"]
CMD ["--help"]

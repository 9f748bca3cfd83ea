# docker build -t opd .            (the GPU build; --build-arg BUILD=cpu makes the other)
# docker run --gpus all --ipc host -v "$PWD:/work" opd train conf=quickstart
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm

# triton compiles a launcher for each of its kernels, and some verifiers are built here; the CPU build loads libnuma.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ make libnuma1 \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/opd
COPY pyproject.toml Makefile README.md LICENSE constraints-*.txt overrides*.txt ./
COPY conf conf
COPY opd opd
COPY recipes recipes

ARG BUILD=gpu
ARG EXTRA=tasks
ENV UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1
RUN make install BUILD="${BUILD}" EXTRA="${EXTRA}"

# Models and data of the hub, and what opd makes of them, are kept where they can be mounted.
ENV PATH=/opt/opd/.venv/bin:$PATH HF_HOME=/cache/huggingface OPD_CACHE=/cache/opd
WORKDIR /work
ENTRYPOINT ["opd"]
CMD ["--help"]

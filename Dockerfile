# syntax=docker/dockerfile:1
# One lock for development and image; nothing is compiled, every dependency is a wheel.
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY scaler ./scaler
COPY simulations ./simulations
RUN python -m venv /opt/scaler \
 && /opt/scaler/bin/pip install --no-cache-dir --only-binary :all: --constraint requirements.lock hatchling==1.33.0 \
 && /opt/scaler/bin/pip install --no-cache-dir --only-binary :all: --no-build-isolation --constraint requirements.lock '.[reflection]' \
 && /opt/scaler/bin/pip uninstall --yes hatchling pip setuptools \
 && find /opt/scaler -name '__pycache__' -prune -exec rm -rf {} +

FROM python:3.13-slim-bookworm
LABEL org.opencontainers.image.title="vllm-scaler" \
      org.opencontainers.image.description="A KEDA external scaler for vLLM" \
      org.opencontainers.image.licenses="Apache-2.0"
# A collection reads bodies of megabytes.  With a threshold that is given they go back to the system
# each time; else glibc raises it to the largest that was ever freed, and keeps 15 to 20 MiB.
ENV PATH=/opt/scaler/bin:$PATH \
    MALLOC_ARENA_MAX=2 \
    MALLOC_MMAP_THRESHOLD_=1048576 \
    MALLOC_TRIM_THRESHOLD_=1048576 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
COPY --from=build /opt/scaler /opt/scaler
# Runs with a read-only root filesystem: records and checkpoints go to volumes, nothing else is written.
USER 65532:65532
EXPOSE 9090 8080
HEALTHCHECK --interval=15s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["scaler"]
CMD ["serve"]

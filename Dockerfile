# hardray on Ray's GPU image. Nothing secret is built in: credentials come from the environment of the pod.
ARG RAY_IMAGE=rayproject/ray:2.60.0-py311-gpu

FROM ${RAY_IMAGE} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /home/ray/build
COPY --chown=ray:users requirements.txt pyproject.toml setup.py README.md LICENSE ./
RUN python -m venv --copies /home/ray/hardray \
    && /home/ray/hardray/bin/python -m pip install --no-cache-dir --disable-pip-version-check -r requirements.txt
COPY --chown=ray:users hard_ray hard_ray
COPY --chown=ray:users cli cli
COPY --chown=ray:users tune_spaces tune_spaces
COPY --chown=ray:users deploy deploy
RUN /home/ray/hardray/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-deps .

FROM ${RAY_IMAGE}
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
USER 0
# libGL and GLib are OpenCV's, which makes the common corruptions; their versions are the base image's distribution's.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=ray --group=users /runs
COPY --from=build --chown=ray:users /home/ray/hardray /home/ray/hardray
ENV PATH=/home/ray/hardray/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0
USER 1000:100
WORKDIR /home/ray
HEALTHCHECK --interval=60s --timeout=20s --start-period=30s --retries=3 CMD ["hardray", "--version"]
CMD ["hardray", "--help"]

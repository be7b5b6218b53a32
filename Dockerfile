# `make run` in a container: the course's three stages on the CPU, or on a GPU with `docker run --gpus all`.
#   docker build -t summkit .
#   docker run -v summkit-cache:/home/summkit/.cache -v summkit-runs:/home/summkit/app/runs summkit
# Another command goes after the name: `docker run … summkit make run STAGES=task2`.
FROM python:3.11-slim-bookworm

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*

# Its folders are made before they are volumes: a volume takes over whose they are.
RUN useradd --create-home --uid 1000 summkit \
    && install -d -o 1000 -g 1000 /home/summkit/app /home/summkit/app/runs /home/summkit/.cache
USER 1000
ENV HOME=/home/summkit
WORKDIR /home/summkit/app

# What the installation reads comes first: a change in a notebook does not install anew.
COPY --chown=1000:1000 Makefile requirements.txt pyproject.toml ./
COPY --chown=1000:1000 summkit/__init__.py summkit/
RUN make install
COPY --chown=1000:1000 . .

VOLUME ["/home/summkit/.cache", "/home/summkit/app/runs"]
CMD ["make", "run"]

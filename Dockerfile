# `make run` in a container: the three core chapters on the CPU, or on a GPU with `docker run --gpus all`.
#   docker build -t summkit .
#   docker run -v summkit-cache:/home/summkit/.cache -v summkit-runs:/home/summkit/app/runs summkit
# Put another command after the name: `docker run … summkit make run STAGES=task2`.
FROM python:3.11-slim-bookworm

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*

# The folders exist before they become volumes, because a volume keeps the owner of its folder.
RUN useradd --create-home --uid 1000 summkit \
    && install -d -o 1000 -g 1000 /home/summkit/app /home/summkit/app/runs /home/summkit/.cache
USER 1000
ENV HOME=/home/summkit
WORKDIR /home/summkit/app

# Files that the installation reads come first: a change in a notebook does not install everything again.
COPY --chown=1000:1000 Makefile requirements.txt pyproject.toml README.md LICENSE ./
COPY --chown=1000:1000 summkit/__init__.py summkit/
RUN make install
COPY --chown=1000:1000 . .

VOLUME ["/home/summkit/.cache", "/home/summkit/app/runs"]
CMD ["make", "run"]

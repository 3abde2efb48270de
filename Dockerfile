# docker build -t gptshake . && docker run --rm -v "$PWD/runs:/gptshake/runs" -v "$PWD/multirun:/gptshake/multirun" gptshake
# For an NVIDIA GPU: docker build --build-arg VENV_OPTIONS=TORCH_INDEX= -t gptshake . && docker run --gpus all ...
FROM python:3.13-slim
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /gptshake
COPY . .
ARG VENV_OPTIONS=""
RUN make venv $VENV_OPTIONS
ENV PATH=/gptshake/.venv/bin:$PATH
CMD ["make", "demo"]

"""Schemas of the config: of the root and of each packaged option; without Hydra, so that help is instant."""

from dataclasses import dataclass
from typing import Any

from gptshake.data.config import HubConfig, ShakespeareConfig, TextConfig, WikiConfig
from gptshake.model.config import GPTConfig
from gptshake.optim.config import AdamWConfig, ConstantConfig, CosineConfig, GPT3Config, LinearConfig, OneCycleConfig, SGDConfig, WSDConfig
from gptshake.record.trackers.config import TensorBoardConfig, WandbConfig
from gptshake.tokenizer.config import BPEConfig, ByteConfig, CharConfig, GPT2Config, HFBPEConfig, SentencePieceConfig
from gptshake.training.config import TrainerConfig

# Light dataclasses beside the part that they describe; an option names its own in its defaults list, so that an
# option of a user's own needs none.
SCHEMAS: dict[str, dict[str, Any]] = {
    "model": {"gpt_schema": GPTConfig},
    "data": {"wiki_schema": WikiConfig, "shakespeare_schema": ShakespeareConfig, "text_schema": TextConfig, "hf_schema": HubConfig},
    "tokenizer": {
        "char_schema": CharConfig,
        "byte_schema": ByteConfig,
        "bpe_schema": BPEConfig,
        "hf_bpe_schema": HFBPEConfig,
        "sentencepiece_schema": SentencePieceConfig,
        "gpt2_schema": GPT2Config,
    },
    "optimizer": {"adamw_schema": AdamWConfig, "sgd_schema": SGDConfig},
    "scheduler": {
        "gpt3_schema": GPT3Config,
        "one_cycle_schema": OneCycleConfig,
        "cosine_schema": CosineConfig,
        "constant_schema": ConstantConfig,
        "linear_schema": LinearConfig,
        "wsd_schema": WSDConfig,
    },
    "trainer": {"trainer_schema": TrainerConfig},
    "logger": {"wandb_schema": WandbConfig, "tensorboard_schema": TensorBoardConfig},
}


@dataclass
class RootConfig:
    """Root keys; anything else at the root needs a ``+``."""

    seed: int = 1337  # of initial weights, order of blocks, dropout
    note: str = ""  # free text for the record
    dirty: bool = False  # run although sources or config are not committed (also --dirty)
    resume: str | None = None  # run directory, name or id to continue
    init_from: str | None = None  # run whose best weights to start from
    study: str | None = None  # a sweep's name, below multirun/; null: what is swept names it
    deterministic: bool = False  # ask torch for deterministic algorithms (slower on a GPU)
    conf_shadow: bool = False  # allow files in ./conf to replace packaged options of the same name
    preset: Any = None  # what a model recommends: lr, batch_size or batch_tokens
    paths: Any = None
    tokenizer: Any = None
    optimizer: Any = None
    scheduler: Any = None
    data: Any = None
    model: Any = None
    trainer: Any = None
    logger: Any = None
    callbacks: Any = None
    search_space: Any = None
    sampler: Any = None
    pruner: Any = None
    executor: Any = None
    task: Any = None
    experiment: Any = None
    debug: Any = None

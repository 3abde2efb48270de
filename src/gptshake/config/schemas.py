"""Which schema each packaged option has; without Hydra, so that help is instant."""

from typing import Any

from gptshake.data.config import HubConfig, ShakespeareConfig, TextConfig, WikiConfig
from gptshake.model.config import GPTConfig
from gptshake.optim.config import AdamWConfig, ConstantConfig, CosineConfig, GPT3Config, LinearConfig, OneCycleConfig, SGDConfig, WSDConfig
from gptshake.record.sinks.config import TensorBoardConfig, WandbConfig
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

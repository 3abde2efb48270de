"""The yaml files of data and tokenizer: keys = schema fields = what the objects take, and compositions that work."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from gptshake.config.compose import compose
from gptshake.data.config import HubConfig, ShakespeareConfig, TextConfig, WikiConfig
from gptshake.data.source.files import TextFiles
from gptshake.data.source.hub import Hub
from gptshake.data.source.shakespeare import Shakespeare
from gptshake.data.source.wiki import Wiki
from gptshake.setup.resolve import tokenizer_trainer
from gptshake.tokenizer.char import CharTrainer
from gptshake.tokenizer.config import CharConfig

CONF = Path(__file__).parents[2] / "conf"
SCHEMAS = {"wiki": WikiConfig, "shakespeare": ShakespeareConfig, "text": TextConfig, "hf": HubConfig}
PAIRS = [*((f"data/{name}", schema) for name, schema in SCHEMAS.items()), ("tokenizer/char", CharConfig)]


def composed(*overrides: str) -> Any:
    return compose(["model=tiny", *overrides])


@pytest.mark.parametrize(("name", "schema"), PAIRS)
def test_yaml_keys_and_values_are_those_of_the_schema(name: str, schema: type) -> None:
    yaml: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    common: Any = OmegaConf.to_container(OmegaConf.load(CONF / "data" / "_common.yaml")) if name.startswith("data/") else {}
    assert yaml.pop("defaults") == [f"{name.split('/')[1]}_schema", *(["_common"] if common else []), "_self_"]
    yaml = common | yaml
    assert set(yaml) == {field.name for field in fields(schema)}
    elsewhere = ("documents", "batch_size")  # the source's node, and what the model's preset says
    assert {key: yaml[key] for key in yaml if key not in elsewhere} == {
        field.name: field.default for field in fields(schema) if field.name not in elsewhere
    }


def test_wiki_char_gives_the_sources_and_the_trainer_the_shell_asked_for() -> None:
    cfg = composed("data=wiki_char", "data.n_documents=2000", "tokenizer.vocab_size=100", "data.config=20231101.de")
    wiki, trainer = instantiate(cfg.data.documents), tokenizer_trainer(cfg)
    assert isinstance(wiki, Wiki) and isinstance(trainer, CharTrainer)
    assert wiki.label == "hub2k-de"
    assert trainer.settings() == {"kind": "char", "vocab_size": 100, "coverage": 0.9999}
    assert wiki.fingerprint()["revision"] == Wiki.revision == cfg.data.revision


def test_text_char_reads_the_path_of_the_shell(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("x")
    source = instantiate(composed("data=text_char", f"data.path={tmp_path / 'book.txt'}").data.documents)
    assert isinstance(source, TextFiles) and source.label == "book"


def test_several_paths_are_a_list(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    source = instantiate(composed("data=text_char", f"data.path=[{tmp_path / 'a.txt'},{tmp_path / 'b.txt'}]").data.documents)
    assert [document.text for document in source.documents()] == ["a.txt", "b.txt"]


def test_a_data_set_of_the_hub_and_the_plays_take_the_keys_of_the_shell() -> None:
    hub = instantiate(composed("data=hf_char", "data.dataset=some/stories", "data.n_documents=3", "data.order=spread").data.documents)
    assert isinstance(hub, Hub) and hub.label == "stories-3-spread"
    assert isinstance(instantiate(composed("data=shakespeare_char").data.documents), Shakespeare)


def test_a_wrong_type_fails_when_composed() -> None:
    with pytest.raises(ConfigCompositionException) as raised:
        composed("data=wiki_char", "data.n_documents=many")
    assert "could not be converted to Integer" in str(raised.value.__cause__)

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gptshake.data.round_trip import round_trip
from gptshake.errors import DataError
from gptshake.tokenizer.byte import ByteTrainer
from gptshake.tokenizer.char import CharTrainer


def store_of(tokenizer: Any, *excerpts: str) -> Any:
    return cast(Any, SimpleNamespace(tokenizer=tokenizer, excerpts=excerpts, path=Path("store")))


def test_known_text_comes_back_exactly() -> None:
    assert round_trip(store_of(CharTrainer().train(["abc"]), "abc", "cab")) == "round trip exact (6 tokens of 2 training documents)"


def test_the_share_of_unknown_characters_is_said() -> None:
    assert "25.00% of them unknown" in round_trip(store_of(CharTrainer().train(["abc"]), "abcz"))


def test_a_tokenizer_that_mixes_letters_up_is_noticed() -> None:
    tokenizer = CharTrainer().train(["abc"])
    broken = SimpleNamespace(encode=tokenizer.encode, unk_id=tokenizer.unk_id, decode=lambda ids: tokenizer.decode(ids)[::-1])
    with pytest.raises(DataError, match="does not give back"):
        round_trip(store_of(broken, "abc"))


def test_a_lone_surrogate_is_no_reason_to_refuse_a_text() -> None:
    assert (
        round_trip(store_of(ByteTrainer().train([]), "a\ud800b", "c"))
        == "round trip of 2 training documents: 6 tokens, lone surrogates as \ufffd"
    )
    assert round_trip(store_of(CharTrainer().train(["a\ud800b"]), "a\ud800b")) == "round trip exact (3 tokens of 1 training document)"

"""Text while its tokens arrive: together it is what decoding gives, and no character is shown in parts."""

from itertools import accumulate

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptshake.tokenizer.protocol import WINDOW, Tokenizer, decode_stream

from .conftest import LANGUAGES, tokenizer_of


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_pieces_of_any_ids_are_together_what_decoding_gives(kind: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_of(kind)
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=2 * WINDOW))
    pieces = [*decode_stream(tokenizer, ids)]
    assert "".join(pieces) == tokenizer.decode(ids) and all(pieces)


def test_a_character_of_several_tokens_is_shown_when_it_is_whole(tokenizer: Tokenizer) -> None:
    text = "\n".join(LANGUAGES.values())
    shown = [*accumulate(decode_stream(tokenizer, tokenizer.encode(text).tolist()))]
    assert shown[-1] == text and all(text.startswith(part) for part in shown)
    assert len(shown) > len(text) / 20

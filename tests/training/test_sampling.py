"""A continuation ends before the first stop text that is complete; what may be the beginning of one is not shown before."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptshake.errors import ConfigError
from gptshake.model.generate import penalized
from gptshake.model.gpt import GPT
from gptshake.tokenizer.byte import ByteTokenizer
from gptshake.training.sampling import continuation, skip_characters, until_stop

letters = st.text("ab", max_size=12)


@given(parts=st.lists(letters), stop=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1), after=st.integers(0, 10))
def test_the_text_ends_where_the_first_stop_text_begins(parts: list[str], stop: list[str], after: int) -> None:
    whole, shown = "".join(parts), list(until_stop(iter(parts), stop, after))
    places = [place for text in stop if (place := whole.find(text, after)) >= 0]
    # Of stop texts that overlap, the one that is complete first ends the text; it may begin later than another.
    ends = {place: place + len(text) for text in stop for place in [whole.find(text, after)] if place >= 0}
    assert all(shown)
    assert whole.startswith("".join(shown))
    assert len("".join(shown)) == len(whole) if not places else min(places) <= len("".join(shown)) <= min(ends.values())


@given(parts=st.lists(letters), n=st.integers(0, 20))
def test_what_comes_behind(parts: list[str], n: int) -> None:
    assert "".join(skip_characters(iter(parts), n)) == "".join(parts)[n:]


def test_a_prompt_that_holds_the_stop_text_does_not_end_the_continuation() -> None:
    torch.manual_seed(0)
    model, tokenizer = GPT(n_layer=1, n_head=1, n_embd=8, block_size=16, vocab_size=257), ByteTokenizer()
    whole = "".join(continuation(model, tokenizer, "a.b", n_tokens=30))
    assert "".join(continuation(model, tokenizer, "a.b", n_tokens=30, echo=False)) == whole[3:]
    stop = whole[10]
    assert (
        "".join(continuation(model, tokenizer, "a.b", n_tokens=30, stop=["a", stop]))
        == whole[: min(whole.find(text, 3) % 1000 for text in ("a", stop))]
    )


def test_a_prompt_that_is_no_text_is_refused_by_its_type() -> None:
    model = GPT(n_layer=1, n_head=1, n_embd=8, block_size=16, vocab_size=257)
    with pytest.raises(ConfigError, match=r"The prompt is bytes, and must be a text"):
        next(continuation(model, ByteTokenizer(), b"a", n_tokens=1))  # type: ignore[arg-type]


def test_the_penalty_of_repetition_divides_what_is_likely_and_multiplies_what_is_not() -> None:
    logits = torch.tensor([[2.0, -2.0, 0.5, -0.5]])
    assert penalized(logits, torch.tensor([[0, 1, 0]]), 2.0).tolist() == [[1.0, -4.0, 0.5, -0.5]]
    assert penalized(logits, torch.tensor([[0]]), 1.0) is logits

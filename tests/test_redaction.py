"""Secrets by value, by shape and by name; and what must not be hidden, or a record would explain nothing."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gptshake import redaction
from gptshake.redaction import SECRET, add_secret, redact, redact_code, redacted

HEX = "0123456789abcdef0123456789abcdef01234567"  # as long as a commit, and as a key of W&B


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and a home without secrets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("NETRC", "HF_HOME", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(redaction, "_learned", set())
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "WANDB_API_KEY",
        "HF_TOKEN",
        "TOKEN_2",
        "AWS_SECRET_ACCESS_KEY",
        "DB_PASSWORD",
        "MYSQL_PWD",
        "apiToken",
        "SENTRY_DSN",
        "MY_SECRET_THING",
        "KEY1",
        "JWT",
        "SMTP_PW",
        "CHAT_WEBHOOK_URL",
    ],
)
def test_a_variable_whose_name_says_secret_is_hidden_wherever_its_value_stands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "correct'horse 1")
    assert redact("a correct'horse 1, twice: correct'horse 1") == f"a {SECRET}, twice: {SECRET}"
    assert redact(r"note='correct\'horse 1'") == f"note='{SECRET}'"  # in Hydra's quotes
    assert redact("https://x.org/?q=correct%27horse%201") == f"https://x.org/?q={SECRET}"


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "MAX_TOKENS", "PWD", "KEYBOARD", "PATH", "RAY_AUTH_MODE", "MONKEYS_ARE"])
def test_other_variables_are_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "disabled")
    assert redact("W&B is disabled") == "W&B is disabled"


def test_a_password_within_an_address_in_a_variable_is_hidden_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://user:hunter22@db:5432/x")
    assert redact("log in at db with hunter22") == f"log in at db with {SECRET}"


def test_short_values_and_paths_of_key_files_are_shown(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "12345")
    (nowhere / "key.json").write_text("{}")
    monkeypatch.setenv("GOOGLE_CREDENTIALS", str(nowhere / "key.json"))
    assert redact(f"12345 {nowhere}/key.json") == f"12345 {nowhere}/key.json"


def test_a_private_key_in_a_variable_is_hidden_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_PRIVATE_KEY", "-----BEGIN KEY-----\nfirstline1\nsecondline2\n-----END KEY-----")
    assert redact("it has secondline2 in it") == f"it has {SECRET} in it"


def test_everything_in_a_dotenv_is_hidden_but_words_numbers_and_paths(nowhere: Path) -> None:
    (nowhere / ".env").write_text(
        "# mine\nexport LOGIN='quoted value 1'\nPORT=808080\nMODE=offline\nX=plain-value-2 # why\nDB_PASSWORD=postgres\n"
    )
    (nowhere / ".env.local").write_text(f"Y = other-value-3\nDATA={nowhere}/\nBROKEN\n=\n")
    text = "quoted value 1, plain-value-2, other-value-3, postgres, 808080, offline, " + str(nowhere)
    assert redact(text) == ", ".join([SECRET] * 4) + f", 808080, offline, {nowhere}"


def test_keys_that_others_keep_at_home_are_hidden(nowhere: Path) -> None:
    hub = nowhere / "home/.cache/huggingface"
    hub.mkdir(parents=True)
    (hub / "token").write_text("token-of-the-hub\n")
    (nowhere / "home/.netrc").write_text("machine api.wandb.ai\n  login user\n  password key-of-wandb\n")
    assert redact("token-of-the-hub key-of-wandb") == f"{SECRET} {SECRET}"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://me:se@cret@host.org/x", "https://<secret>@host.org/x"),
        ("postgresql://user:pass/word@db:5432/optuna", "postgresql://<secret>@db:5432/optuna"),
        ("at 'https://tok@host/x', then", "at 'https://<secret>@host/x', then"),
        ("https://host/x?sig=abc%3D&page=2&api_key=1", "https://host/x?sig=<secret>&page=2&api_key=<secret>"),
        ("hf_abcdefghijklmnopqrst", "<secret>"),
        ("(sk-proj-abcdefghijklmnopqrst)", "(<secret>)"),
        ("AKIAIOSFODNN7EXAMPLE", "<secret>"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "<secret>"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0.SflKxwRJSMeK", "<secret>"),
        ("Authorization: Bearer abcdefghijklmnop.qrst", "Authorization: Bearer <secret>"),
        (f"wandb login {HEX}", "wandb login <secret>"),
        ("password=hunter22, note", "password=<secret>, note"),
        ("+logger.api_key=abcdef1", "+logger.api_key=<secret>"),
        ('{"client_secret": "abcdef1"}', '{"client_secret": "<secret>"}'),
        ("the password is hunter22 and the api key abcdef12", "the password is <secret> and the api key <secret>"),
        ("token: 1a2b3c4d, my_token=abcdef12", "token: <secret>, my_token=<secret>"),
        ("--token abcdef12 Authorization: token abcdef12", "--token <secret> Authorization: token <secret>"),
        ("machine host login me password hunter22", "machine host login me password <secret>"),
        ("mysql pwd=hunter22 AccountKey=abcdef12", "mysql pwd=<secret> AccountKey=<secret>"),
        ("sk_live_abcdefghijklmnop0123", "<secret>"),
        ("the token abcdef1234567890", "the token <secret>"),
        ("curl -u me:hunter22 https://host/x", "curl -u me:<secret> https://host/x"),
        ("curl --user 'me:hunter22' x", "curl --user 'me:<secret>' x"),
        ("curl -su me:hunter22 https://host/x", "curl -su me:<secret> https://host/x"),
        ("the token is Qz7xPl93, my token Qz7xPl93; key Qz7xPl93mKv", "the token is <secret>, my token <secret>; key <secret>"),
        ("the password was hunter22 --auth hunter22 GITLAB_PAT=hunter22", "the password was <secret> --auth <secret> GITLAB_PAT=<secret>"),
        ("password='correct horse battery' x", "password='<secret>' x"),
        ("-H 'Authorization: Digest response=hunter22' -v", "-H 'Authorization: Digest <secret>' -v"),
        ("az login -u me -p hunter22", "az login -u me -p <secret>"),
        ("mysql -u root -phunter22 db", "mysql -u root -p<secret> db"),
        ("sshpass -p hunter22 ssh host", "sshpass -p <secret> ssh host"),
        ("docker login -u me -p hunter22", "docker login -u me -p <secret>"),
        ("scp me:hunter22@host.org:x .", "scp me:<secret>@host.org:x ."),
        ("-H 'Cookie: session=abcdef; id=1' -v", "-H 'Cookie: <secret>' -v"),
        ("SharedAccessSignature=sv=2024-01-01", "SharedAccessSignature=<secret>"),
        (f"npm_{'a1' * 18} r8_{'b2' * 18} AIza{'c3' * 17} dop_v1_{'d4' * 32} nvapi-{'e5' * 20}", " ".join([SECRET] * 5)),
        (f"SG.{'a1' * 11}.{'b_2-' * 10}c3D key-{'0f' * 16} EAA{'C3' * 40}", " ".join([SECRET] * 3)),
        ("https://hooks.slack.com/services/T000/B000/abcdefgh", "https://hooks.slack.com/services/<secret>"),
    ],
)
def test_a_secret_is_known_by_its_shape_or_its_name(text: str, clean: str) -> None:
    assert redact(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        f"data.revision={HEX}",
        f"index {HEX}..{HEX[::-1]} 100644",
        f"at commit {HEX}",
        f"wikimedia/wikipedia@{HEX}",
        f"{HEX}{HEX[:24]}",  # SHA-256
        "git@host.org:me/x.git and ssh://git@host.org/me/x.git and me@host.org",
        "https://host:8443/a/b?page=2#part",
        "first block (3.00 bytes per token): 'the of and to'",
        "data.text_key=content",
        "trainer.max_tokens=1000000 tokenizer.unk_token=<|endoftext|>",
        "task-something-with-a-long-name hf_bpe_schema",
        "note='${oc.env:OTHER}' logger.api_key=${oc.env:OTHER}",
        "20261124-0031-tiny-wiki_char-excerpt106-lr3e-4-x3k9a2pq",
        "No secret: a password is needed",
        "nats per token: 1.2345e-05, bytes per token: 4.8232000, token: end-of-text, one pass: 1,234,567",
        "mkdir -p runs/night1 && ssh -p 2222 host && docker run -p 8080:80 image && cp -u a:b c",
        "image:tag@sha256:0123456789abcdef and 12:30:59 and mailto:someone@host.org and key: value@home: x",
        "Cookie: a small cake. The cookie: two eggs and 100 g of flour = dough",
        "each token bf16-mixed, token 1234567890123456, the token embeddings, tokens 0f1e2d3c4b5a6978",
        "the token 20261124-0031 and the token char_v2_wiki",
        "tar -t list.tar -p word, https://host/x?code=404, key-value-pairs, SG.md.txt",
        "the key GPT2Config_v1, the key lr3e4small, token HelloWorld, authorization: none needed, one login -v and a pass over 20 files",
    ],
)
def test_what_explains_a_run_is_shown(text: str) -> None:
    assert redact(text) == text


def test_plain_values_keep_their_form_and_a_key_can_call_its_text_a_secret() -> None:
    node = {
        "git": {"commit": HEX, "note": HEX},
        "logger": {"password": "hunter22", "api_key": "${oc.env:X}", "token": "abc-def-1", "auth": "hunter22", "key": "optimizer.lr"},
        "text_key": "content",
        "unk_token": "<|endoftext|>",
        "list": ["hf_abcdefghijklmnopqrst", 1, 2.5, True, None, ("a",)],
    }
    assert redacted(node) == {
        "git": {"commit": HEX, "note": SECRET},
        "logger": {"password": SECRET, "api_key": "${oc.env:X}", "token": SECRET, "auth": SECRET, "key": "optimizer.lr"},
        "text_key": "content",
        "unk_token": "<|endoftext|>",
        "list": [SECRET, 1, 2.5, True, None, ["a"]],
    }


def test_what_a_variable_brought_into_the_config_is_learned_unless_it_is_ordinary(nowhere: Path) -> None:
    for name, value in {
        "OTHER": "brought-in-1",
        "LR": "3.5e-4",
        "HOST": "localhost",
        "DATA": f"{nowhere}/",
        "GPTSHAKE_CACHE": "/no/such/cache1",
    }.items():
        add_secret(name, value)
    add_secret("SOME_PASSWORD", "letters")
    add_secret("WHO", "supersecret")
    text = "{} 3.5e-4 localhost " + f"{nowhere}/ /no/such/cache1 " + "{} {}"
    assert redact(text.format("brought-in-1", "letters", "supersecret")) == text.format(SECRET, SECRET, SECRET)


def test_lines_of_a_patch_keep_their_places_and_programs_their_words() -> None:
    key = "+-----BEGIN RSA PRIVATE KEY-----\n++abcdefghijklmnopqrstuvwxyz\n+MIIEabcdefghijklmnopqrstuv==\n+-----END RSA PRIVATE KEY-----\n"
    assert redact_code(key.encode(), "x.py").decode() == (
        "+-----BEGIN RSA PRIVATE KEY-----\n++<secret>\n+<secret>\n+-----END RSA PRIVATE KEY-----\n"
    )
    program = b"+def login(password: Sequence[str], secret: Callable[[], None] = other) -> None:\n+    api_key = os.environ['X']\n"
    assert redact_code(program, "a.py") == program
    assert redact_code(b"password = 'hunter22'\npassword: hunter22\n", "a.py") == b"password = '<secret>'\npassword: hunter22\n"
    assert redact_code(b"password: hunter22\n", "a.yaml") == b"password: <secret>\n"
    assert redact_code(bytes(range(256)), "a.bin") == bytes(range(256))


@pytest.mark.parametrize(
    "piece",
    [
        "a.",
        "a+",
        "x",
        "?token",
        "https://",
        "secret",
        "https://a:b",
        "-----BEGIN PRIVATE KEY",
        " \n",
        "=",
        "sk-",
        "eyJ",
        "&sig",
        "token:",
        "password a1",
    ],
)
def test_a_large_file_takes_a_moment_whatever_is_in_it(piece: str) -> None:
    content = (piece * ((1 << 18) // len(piece))).encode()
    start = time.process_time()
    redact_code(content, "x.yaml")
    assert time.process_time() - start < 20  # quadratic it would be minutes


@given(st.text())
@example("password=token=abcdef api_key=<secret>x https://a:b@c:d@e")
def test_redacting_twice_is_redacting_once(text: str) -> None:
    once = redact(text)
    assert redact(once) == once and redacted({"a": [once]}) == {"a": [once]}


WORDS = (
    *("the", "a", "token", "tokens", "key", "cookie", "user", "password", "is", "of", "-p", "-u", "model=tiny", "lr=3e-4"),
    *("12:30", "x.py", "a@b.c", "https://x.org/y", "1,024", "bf16-mixed", "x3k9a2pq"),
)


@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_ordinary_words_in_any_order_are_shown(words: list[str]) -> None:
    text = " ".join(words)
    assert redact(text) == text or "password" in words or "-u" in words  # "password bf16-mixed" may be one


@given(st.text(min_size=redaction.SHORTEST), st.text(max_size=20), st.text(max_size=20))
def test_a_known_value_is_in_no_text_and_in_no_json(value: str, before: str, after: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redaction, "_learned", {value})
        if value not in SECRET:
            assert value not in redact(before + value + after).replace(SECRET, "\0")
        clean: Any = redacted({"text": before + value + after})
        assert json.dumps(value)[1:-1] not in json.dumps(clean).replace(SECRET, "\0") or value in SECRET


PROGRAMS = (
    "url = 'host=db password=hunter22 x'",
    'cmd = """\nexport MY_API_KEY=hunter22\n"""',
    'run("login --password hunter22")',
)


@pytest.mark.parametrize("text", PROGRAMS)
def test_a_secret_within_a_longer_string_of_a_program_is_hidden(text: str) -> None:
    assert b"hunter22" not in redact_code(text.encode(), "a.py")


def test_code_outside_of_strings_stays(text: str = "password = compute(x)\nother(api_key=settings.value)  # don't\n") -> None:
    assert redact_code(text.encode(), "a.py") == text.encode()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_secret_in_wide_letters_is_hidden_and_the_rest_stays(encoding: str) -> None:
    assert redact_code("password: hunter22\nx: é\n".encode(encoding), "a.yaml").decode(encoding) == f"password: {SECRET}\nx: é\n"


def test_bytes_that_are_no_text_stay() -> None:
    for content in (b"\xff\xfe\x00\x00\xff\xff\xff\xff", b"\xff\xfe\x00", bytes(range(256)), b"\x00" * 64):
        assert redact_code(content, "a.bin") == content


def test_folders_of_variables_are_known_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (".env.d/x", "conf/.env.d/deep/y"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_text(f"WORD=planted-{Path(place).name}\n")
    assert redact("planted-x and planted-y") == f"{SECRET} and {SECRET}"

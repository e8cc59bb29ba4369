"""Child process that loads a tokenizer's files with transformers' AutoTokenizer and compares it with tokenizer.json.

It is a child process for the reasons that `sandbox_worker` gives: building a tokenizer can take any amount of memory
and time, or end the process. The parent has read and checked the files; they are written into a temporary folder, with
only those keys of config.json that decide the class. The process answers one request and ends.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lossprobe.checkpoint.tokenizers.frames import ALLOWANCE, FAILED, OK, OUT_OF_MEMORY, receive_frame, send_frame
from lossprobe.checkpoint.tokenizers.sandbox_worker import prepare, set_limits

# Texts on which tokenizers often differ: blanks, line ends, digits, contractions, upper case, composed and decomposed
# accents, full-width characters, ligatures, symbols, scripts without blanks, control characters, rare words.
PROBE = (
    "The cat sat on the mat.", " The  cat   sat\n\n on\tthe\r\nmat. ", "\nHELLO Hello hello",
    "it's we'LL don't I'D 'tis",
    "1 12 123 1234 12345678 3.14 1,000 ²½", "x=foo_bar(y)[0]; // #42 <tag a='b'>&amp;</tag> {}$%^*~`|\\",
    "café cafe\u0301 Ångström naïve ﬁne ﬀ Ⅷ ＡＢＣ１２ \u00a0\u2003\u200b\u3000.", "Straße İstanbul ЖЕЛЕЗО αβγ Ω ʼn",
    "你好，世界。東京タワー 한국어 ไทย हिन्दी العربية עברית", "🙂👩‍👩‍👧 ✓ — “quoted” … «x»", "\x00\x07\x7f\u2028\ufeff�",
    "supercalifragilisticexpialidocious AntidisestablishmentarianismXYZ", "a", " ", "▁the Ġthe ##the </w>",
)  # fmt: skip


def load(folder: Path, files: dict[str, Any]) -> Any:
    """Return the tokenizer that AutoTokenizer makes of some files.

    Args:
        folder: an empty folder, into which the files are written.
        files: file name → content, to be stored as JSON.

    Raises:
        Exception: anything that transformers raises.
    """
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    sys.modules["torch"] = None  # type: ignore[assignment] # not needed here, and slow to load
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "critical"}
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def describe(tokenizer: Any, ours: str) -> list[bytes]:
    """Return the facts that `AutoTokenizerResult` holds, as JSON, and the tokenizer's definition.

    Args:
        tokenizer: the tokenizer that AutoTokenizer made.
        ours: our tokenizer.json, to compare with.

    Raises:
        TypeError: it is not a tokenizer of the `tokenizers` library.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise TypeError(f"{type(tokenizer).__name__} is no tokenizer of the tokenizers library")
    backend.no_truncation()
    backend.no_padding()
    other = Tokenizer.from_str(ours)
    texts = [*PROBE, *(f"a {token.content} b{token.content}c" for token in backend.get_added_tokens_decoder().values())]
    pairs = [
        tuple(each.encode(text, add_special_tokens=special).ids for each in (other, backend))
        for special in (False, True)
        for text in texts
    ]
    facts = {
        "class": type(tokenizer).__name__,
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "names": [tokenizer.bos_token or "", tokenizer.eos_token or ""],
        "splits_special": bool(backend.encode_special_tokens),
        "same": all(left == right for left, right in pairs),
        "counts": [sum(map(len, side)) for side in zip(*pairs, strict=True)],
    }
    return [json.dumps(facts).encode(), backend.to_str().encode("utf-8", "surrogatepass")]


def main() -> None:
    """Read one request (limits, files by name as JSON, our tokenizer.json), answer it and end the process."""
    answers = prepare()
    allowance, files, ours = receive_frame(sys.stdin.buffer)
    set_limits(*ALLOWANCE.unpack(allowance))
    answer: list[bytes | bytearray]
    try:
        with tempfile.TemporaryDirectory() as folder:
            answer = [OK, *describe(load(Path(folder), json.loads(files)), ours.decode())]
    except MemoryError:
        answer = [OUT_OF_MEMORY]
    except BaseException as error:  # noqa: BLE001 - the code of many classes, and of a library that panics
        answer = [FAILED, " ".join(str(error).split())[:1000].encode("utf-8", "replace")]
    send_frame(answers, answer)
    os._exit(0)

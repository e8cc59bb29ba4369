"""How other tools turn a text into one number: the names of `--protocol`, and what each stands for.

What each one scores was read in, and compared with, the program that it names; the table is in
docs/pages/reference/protocols.md.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """How one tool scores a text.

    Attributes:
        tool: the program, and the release that the protocol was compared with.
        headline: the number that the tool prints first.
        joined: whether the documents are one stream, joined by a blank line where there are several.
        windows: which tokens it sees and scores, in words.
        mean: how it makes one number of them, in words.
        reader: what reads the files of a tokenizer for it: "transformers" (AutoTokenizer), "tokenizers" (tokenizer.json
            alone), "gguf" (llama.cpp's converter); "" where it has tokenizers of its own.
        special_strings: what the name of a special token in a text is to it: its "control" id, or "text"; None where
            that is not its own to decide.
    """

    tool: str
    headline: str
    joined: bool
    windows: str
    mean: str
    reader: str = "transformers"
    special_strings: str | None = "control"

    @property
    def why(self) -> str:
        """In what it differs from the default, in words."""
        return f"{'one stream; ' if self.joined else ''}{self.windows}; {self.mean}"


LAST_FULL = "the last window is moved back to be full"
ONE_LESS = "the last of a window's tokens is only predicted, so contexts are one token shorter"
LOOP_TOOL = "transformers 5.23, the loop of its documentation on perplexity (stride 512 unless --stride says otherwise)"

PROTOCOLS = {
    "lm-eval": Protocol(
        tool="lm-eval 0.4.13, hf backend, loglikelihood_rolling in float32 (--bos never is its add_bos_token=False)",
        headline="word_perplexity",
        joined=False,
        windows=f"BOS (else EOS) before each document, a BOS that the tokenizer adds scored after it; {LAST_FULL}",
        mean="per word between white space",
    ),
    "paloma": Protocol(
        tool="catwalk 2024-04 as used by OLMo-Eval 2025-07 (read, not run)",
        headline="token_perplexity",
        joined=False,
        windows=f"EOS before each document; contexts of at most 2,048 tokens; {LAST_FULL}",
        mean="per token, documents weighted by their tokens",
    ),
    "transformers": Protocol(
        tool=LOOP_TOOL,
        headline="perplexity",
        joined=True,
        windows=ONE_LESS,
        mean="each later overlapping window weighs one token too little",
    ),
    "transformers-corrected": Protocol(
        tool=f"{LOOP_TOOL}, with every token weighing the same",
        headline="perplexity",
        joined=True,
        windows=ONE_LESS,
        mean="per token",
    ),
    "evaluate": Protocol(
        tool="evaluate 0.4, metric perplexity (--context is its max_length, --bos never its add_start_token=False)",
        headline="mean_perplexity",
        joined=False,
        windows="BOS before each document; a document is one window",
        mean="mean of the documents' perplexities, which short hard ones dominate",
    ),
    "llama.cpp": Protocol(
        tool="llama-perplexity of llama.cpp 0c1e570, default mode, f32 (--context is its -c, 512 by default)",
        headline="perplexity",
        joined=True,
        windows="disjoint windows of at most 512, BOS in place of the first token, only the second half scored",
        mean="per token",
        reader="gguf",
        special_strings="text",
    ),
    "levanter": Protocol(
        tool="Levanter (marin 2026), perplexity of raw documents, without its caps of 256 documents and 32,768 bytes",
        headline="bits_per_byte",
        joined=False,
        windows=f"BOS before each document only where the tokenizer adds none; {ONE_LESS}",
        mean="per byte of the text, unscored ones included",
        reader="tokenizers",
    ),
    "fundamentallm": Protocol(
        tool="FundamentaLLM, val_loss of train",
        headline="val_loss",
        joined=True,
        windows="no BOS; full windows only, the tail left out",
        mean="per token",
        reader="",
        special_strings=None,
    ),
    "nanogpt": Protocol(
        tool="nanoGPT, estimate_loss: a pass over all blocks in place of its random ones",
        headline="val_loss",
        joined=True,
        windows="no BOS; full blocks only, the tail left out",
        mean="per token",
        reader="",
        special_strings="text",
    ),
}

"""Every cause of defects in words, the gravest first; modules of this package with the same words find them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lossprobe.analysis.defects.cause import Cause

_ALL = (
    Cause(
        "mojibake", "characters that were decoded wrongly",
        "Characters whose bytes, in the encoding that they were read as, are UTF-8 again, and which no writer "
        "puts side "
        "by side (a rule of ftfy's) or which are three or more in a row; words of Cyrillic letters that were read as "
        "accented ones; Chinese and Korean in GBK or EUC-KR that was read as Windows-1252; U+FFFD, where bytes are "
        "lost. What is meant must be common characters of one script.",
        "read the source again with the encoding that the detail names first, or repair the text with ftfy; lost bytes "
        "need the source",
        "wrong characters cost far more than the right ones would",
    ),
    Cause(
        "secret", "keys, tokens and passwords",
        "A string in the shape that an issuer gives its keys, a private key in PEM, a password in an address, "
        "or a long "
        "value with digits and letters after a name such as api_key.",
        "take it out of the text and have it revoked: a model can learn it by heart",
        "random letters: a low loss means that the model knows the secret",
    ),
    Cause(
        "encoded-data", "base64, hexadecimal digits and escapes",
        "40 characters of base64 or more with capitals, small letters and digits mixed, all lines of it one place; 32 "
        "hexadecimal digits, 8 groups of four, 16 pairs of them or 16 bytes such as 0x1f; 4 escapes of bytes in a row "
        "(6 with %). Where the loss is below half of what random digits cost (1.39 nats a byte for "
        "hexadecimal ones, 2.08 for base64), the model can foresee them, and nothing is told.",
        "drop or replace such blobs: no model can foresee them, and they weigh heavily in the loss",
        "at least half of what random digits cost, or it is not told",
    ),
    Cause(
        "template-string", "strings of chat templates and tokenizers",
        "The name of a special token such as <|im_end|>, [INST] or </s>, a heading such as ### Response:, speakers "
        "such as USER: and ASSISTANT: (not Input:, Output:, User: or System: alone), or a template with {{ … }} that "
        "was not filled in, in text that no chat template wrote.",
        "take it out, or read the data as conversations, so that the template writes its tokens itself",
        "as plain text such a string costs several tokens; as a control token it ends a turn",
    ),
    Cause(
        "markup", "remains of HTML and XML",
        "A tag of HTML, a comment or an entity; not a single one in quotes, and no word between angle brackets such as "
        "<label> or <input> that has neither an end nor attributes.",
        "extract the text from the page with a parser of HTML; unescape entities, once",
        "markup is dear where the model has seen little of it, and cheap where it has learnt it",
    ),
    Cause(
        "control-characters", "characters that nobody sees",
        "Control characters other than tab and line ends, sequences that colour a terminal, byte-order marks, soft "
        "hyphens, invisible blanks (not between words of Thai, Khmer and their like) and separators, and marks of "
        "direction in text that runs from left to right.",
        "take them out; a NUL or a form feed often stands between pages or records: split there",
        "rare tokens, which cost much and make the word after them cost more",
    ),
    Cause(
        "line-ends", "line ends of another system",
        "CR LF, CR alone, or CR CR LF; \"among LF\" where a document has both. Each kind is one place in a "
        "document; the "
        "line ends alone are counted.",
        "convert the files to LF, or score them with newlines lf, which turns both into LF",
        "a model that saw LF alone pays for each CR",
    ),
    Cause(
        "known-by-heart", "text that the model has learnt by heart",
        "32 tokens or more and 120 bytes or more with a mean loss below 0.1 nats, that do not repeat themselves "
        "or what "
        "stands before them in the document.",
        "a text of evaluation holds training text here: leave it out, or the loss says too little",
        "near 0 by definition",
    ),
    Cause(
        "duplicate", "documents and passages that are there twice",
        "A document with the words of an earlier one, or that shares half of all runs of five words with it; a passage "
        "of 25 words and 100 bytes or more that stands earlier in the text. Each character of Chinese and Japanese "
        "is a word.",
        "keep one of them; copies count twice in every mean, and a model that was trained on them knows them by heart",
        "in the same window the second place costs far less than the first",
    ),
    Cause(
        "boilerplate", "lines and passages that many documents share",
        "A line of 5 words or more and 25 bytes or more, or a passage of 20 words and 80 bytes or more, "
        "that 3 documents or more have.",
        "take headers, footers, licences and menus out of the documents",
        "mostly cheap: the mean loss looks better than the text is",
    ),
    Cause(
        "truncated", "documents that end in the middle",
        "A document of 20 words or more that ends after a letter, a digit, a comma or an opening bracket, where "
        "80 % or "
        "more of at least 20 documents end otherwise. Its last word is counted.",
        "look for a limit of length where the text was made, and cut at the end of a sentence",
        "says nothing: what is missing has no loss",
    ),
    Cause(
        "tiny-document", "documents with next to nothing in them",
        "A document without a word; or of one or two words, where the middle document has 20 or more. Of scripts "
        "without blanks each character (Chinese, Japanese) or every five (Thai, Lao, Khmer, Burmese) is a word.",
        "leave out empty records; look for fields that were not filled in",
        "tokens without context cost much",
    ),
)  # fmt: skip
CAUSES: Mapping[str, Cause] = MappingProxyType({cause.name: cause for cause in _ALL})

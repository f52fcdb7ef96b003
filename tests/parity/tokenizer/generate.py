#!/usr/bin/env python3
"""Writes the fixtures of this folder: texts, and what the `tokenizers` and `transformers` libraries make of them.

    pip install tokenizers==0.22.2 transformers==4.57.6 gguf jinja2
    python tests/parity/tokenizer/generate.py MODEL.gguf      # SmolLM2-135M-Instruct

  texts.json               varied texts, from a seed
  small/NAME/…             tokenizers trained here on the text below
  NAME.ids                 one line of ids for each text (SmolLM2's vocabulary is not copied here)
  NAME.planes              one hash of ids for every 4096 code points
  NAME.decodings.json      random ids and the text they decode to
"""
import json
import os
import random
import sys

import gguf
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)

HERE = os.path.dirname(os.path.abspath(__file__))
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
WHITE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000"
PROSE = """The river rose in the night, and by morning the lower fields were under water. "It's the third time
this year," said the miller's daughter, "and we've had no help from the town; they'll say it isn't theirs to give."
She counted 12 sacks, then 7 more, and wrote 19 in the book. Nobody had asked her to count them, but she'd found that
counting was quieter than talking. The men who'd come from the bridge were wet and tired; the eldest wouldn't sit down.
Was ist das für ein Fluss? fragte er. Où est le pont, s'il vous plaît ? Ничего не осталось. 水が来た。
def count(sacks: list[int]) -> int:
    total = 0
    for sack in sacks:
        total += sack  # every sack weighs the same
    return total

int main(int argc, char** argv) { return argc > 1 ? run(argv[1]) : 0; }
"""
SENTENCES = [
    "The capital of France is Paris.", "Ne t'inquiète pas, ça ira mieux demain.", "Größe und Maß sind unveränderlich.",
    "Съешь же ещё этих мягких французских булок.", "我能吞下玻璃而不伤身体。", "私はガラスを食べられます。", "나는 유리를 먹을 수 있어요.",
    "أنا قادر على أكل الزجاج و هذا لا يؤلمني.", "אני יכול לאכול זכוכית.", "मैं काँच खा सकता हूँ।", "ฉันกินกระจกได้",
    "Μπορώ να φάω σπασμένα γυαλιά.", "Ég get etið gler.", "I can't, won't, shouldn't'VE; he'LL I'M you'Re it'S",
    "naïve café — “quoted” … ½ ² ¾ Ⅷ ⅔ ① ㈠", "e\u0301 n\u0303 a\u030a vs é ñ å", "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇫🇷", "x²+y²=z², ∑∫∂∞≠≤",
    "http://example.org/a?b=c&d=%20e#f", "user@example.com, 192.168.0.1, 2024-02-29T23:59:59Z", "1234567890 3.14159 1e-9",
    "#include <vector>\nint main() {\n\treturn 0;\n}\n", "    if (x == 1) {\r\n        y();\r\n    }\r\n", "SELECT * FROM t WHERE a='b';",
    "{\"key\": [1, 2, {\"nested\": null}]}", "def f(x):\n    return x**2\n\n\nprint(f(3))", "\t\tfoo\t bar  \n\n baz   ",
    "don\u2019t \u017f '\u017f it'\u017f \u212a '\u212a", "ALL CAPS AND MiXeD CaSe", "a" * 60, "ab" * 80, "0" * 50, " " * 70, "\n" * 33,
    "=" * 65, "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichenverordnung" * 2, "", " ", "\n", "\x00", "\x7f",
    "\ufeffBOM", "\ufffd", "\U0010ffff", "\uffff\ufffe", "\u200b\u200c\u200d\u2060",
]
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "<unk>", "<mask>", "<0x0A>", "[SEP]", "over",
           "<|im_start", "|>", "<|", "<repo_name>", "<reponame>", "<pad>", "two  words"]


def make_texts():
    rng = random.Random(20260101)
    code_points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    texts = list(SENTENCES)

    def pick(low, high):
        while True:
            c = rng.randrange(low, high)
            if not 0xD800 <= c < 0xE000:
                return chr(c)

    for plane in range(17):
        for _ in range(24):
            texts.append("".join(pick(plane << 16, (plane + 1) << 16) for _ in range(rng.randint(1, 4))))
        for _ in range(10):
            texts.append("".join(rng.choice(["a", " ", "1", "\n", pick(plane << 16, (plane + 1) << 16)]) for _ in range(6)))
    for low, high in [(0x80, 0x250), (0x250, 0x530), (0x530, 0x900), (0x900, 0x1200), (0x1200, 0x2000), (0x2000, 0x2c00),
                      (0x2c00, 0x3400), (0xa000, 0xac00), (0xf900, 0x10000), (0x10000, 0x11000), (0x11000, 0x12000),
                      (0x16000, 0x17000), (0x1b000, 0x1c000), (0x1c000, 0x1f000), (0x1f000, 0x20000), (0xe0000, 0xe0200)]:
        for _ in range(30):
            texts.append("".join(rng.choice(["", "", " ", "b", "7", "'", "\n"]) + pick(low, high) for _ in range(rng.randint(1, 6))))
    for _ in range(260):  # runs of white space
        texts.append("".join(rng.choice([rng.choice(WHITE), " " * rng.randint(1, 5), "\n" * rng.randint(1, 3), "\r\n", "ab", "9", "."])
                             for _ in range(rng.randint(1, 8))))
    for _ in range(220):  # special tokens, whole, cut and side by side
        texts.append("".join(rng.choice([rng.choice(SPECIAL), rng.choice(SPECIAL), " ", "  ", "\n", "user", "x", "overt"])
                             for _ in range(rng.randint(1, 6))))
    words = PROSE.split()
    for _ in range(200):
        texts.append(rng.choice(["", " "]) + rng.choice([" ", " ", "  ", "\n"]).join(rng.choice(words) for _ in range(rng.randint(1, 9))))
    marks = ["(", ")", "{", "}", ";", "::", "->", "==", "\t", "\n    ", " ", " ", "0x1F", "i++", "return", "self.", "'re", "'LL", "\"", "//", "#", "1.5e-3", "_", "camelCase", "snake_case"]
    for _ in range(200):
        texts.append("".join(rng.choice(marks) for _ in range(rng.randint(2, 12))))
    letters = "abcdeXYZ'’-"
    for _ in range(160):  # unusual words, of all lengths
        texts.append("".join(rng.choice(letters) for _ in range(rng.choice([1, 2, 3, 5, 8, 13, 30, 47, 48, 49, 50]))))
    for _ in range(160):
        texts.append("".join(chr(rng.choice(code_points)) for _ in range(rng.randint(1, 5))))
    return texts


def trained(tokenizer, special, vocabulary, alphabet):
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(PROSE.splitlines(keepends=True), trainer)
    return tokenizer


def llama3_like():
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    trained(t, ["<s>", "</s>"], 600, pre_tokenizers.ByteLevel.alphabet())
    t.add_special_tokens(["<|im_start|>", "<|im_end|>", AddedToken("<mask>", lstrip=True, special=True),
                          AddedToken("<pad>", rstrip=True, special=True)])
    t.add_tokens([AddedToken("over", single_word=True), AddedToken("two  words", normalized=False), AddedToken("[SEP]")])
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)])])
    return t


def qwen2_like():
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trained(t, [], 600, pre_tokenizers.ByteLevel.alphabet())
    t.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return t


def gpt_neox_like():
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=True)
    trained(t, ["<|endoftext|>", "<|padding|>"], 600, pre_tokenizers.ByteLevel.alphabet())
    t.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])  # runs of spaces are tokens
    return t


def gpt2_like():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    t.decoder = decoders.ByteLevel()
    trained(t, ["<|endoftext|>"], 500, pre_tokenizers.ByteLevel.alphabet())
    return t


def llama2_like():
    t = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    trained(t, ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)], 620, list("▁abcdefghijklmnopqrstuvwxyz"))
    tree = json.loads(t.to_str())  # byte tokens belong to the vocabulary alone
    tree["added_tokens"] = [a for a in tree["added_tokens"] if not a["content"].startswith("<0x")]
    t = Tokenizer.from_str(json.dumps(tree))
    t.add_tokens([AddedToken("over", single_word=True, normalized=True)])
    t.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B", special_tokens=[("<s>", 1), ("</s>", 2)])
    return t


def metaspace_like():
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=False))
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Split("'", "merged_with_next"), pre_tokenizers.Split(Regex(r"[,.;]\s?"), "merged_with_previous"),
        pre_tokenizers.Split(Regex(r"[^\p{S}]+"), "contiguous", invert=True), pre_tokenizers.Split("-", "removed")])
    t.decoder = decoders.Metaspace(prepend_scheme="first")
    trained(t, ["<unk>", "<s>"], 300, [])
    t.add_special_tokens(["<mask>"])
    return t


def smollm2(path):
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    t = Tokenizer(models.BPE({text: i for i, text in enumerate(tokens)}, merges))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([text for text, kind in zip(tokens, fields["tokenizer.ggml.token_type"].contents()) if kind == 3])
    return t


def plane_hashes(tokenizer):
    """FNV-1a over the ids of a text for every 256 code points; one value for every 4096."""
    hashes = []
    for block in range(0, 0x110000, 0x1000):
        value = 0xCBF29CE484222325
        for low in range(block, block + 0x1000, 0x100):
            text = "".join(f"{c}a{c} {c}1" for c in map(chr, range(low, low + 0x100)) if not "\ud800" <= c <= "\udfff")
            for i in tokenizer.encode(text, add_special_tokens=False).ids:
                value = ((value ^ i) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
        hashes.append(f"{value:016x}")
    return hashes


def write(name, text):
    path = os.path.join(HERE, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write(text)


def write_expectations(name, tokenizer, texts, planes):
    write(f"{name}.ids", "".join(" ".join(map(str, tokenizer.encode(t, add_special_tokens=False).ids)) + "\n" for t in texts))
    if planes:
        write(f"{name}.planes", "\n".join(plane_hashes(tokenizer)) + "\n")
    rng = random.Random(7)
    size = tokenizer.get_vocab_size()
    samples = [[rng.randrange(size if rng.random() < 0.5 else min(size, 400)) for _ in range(rng.randint(1, 8))] for _ in range(150)]
    samples += [tokenizer.encode(t, add_special_tokens=False).ids for t in texts[:40]]
    write(f"{name}.decodings.json", json.dumps(
        [[ids, tokenizer.decode(ids, skip_special_tokens=False)] for ids in samples], ensure_ascii=False, separators=(",", ":")))


def main():
    texts = make_texts()
    assert len(texts) >= 2000 and len(set(texts)) >= 1900, (len(texts), len(set(texts)))
    write("texts.json", json.dumps(texts, ensure_ascii=False, indent=0))
    reference = smollm2(sys.argv[1])
    write_expectations("smollm2", reference, texts, planes=True)
    for name, make in [("llama3", llama3_like), ("gpt2", gpt2_like), ("llama2", llama2_like), ("metaspace", metaspace_like),
                       ("qwen2", qwen2_like), ("gpt_neox", gpt_neox_like)]:
        tokenizer = make()
        tree = json.loads(tokenizer.to_str())
        if name == "gpt2":  # the older form of merges
            tree["model"]["merges"] = [" ".join(m) for m in tree["model"]["merges"]]
        write(f"small/{name}/tokenizer.json", json.dumps(tree, ensure_ascii=False, separators=(",", ":")) + "\n")
        # The others split as one of these does, or not at all.
        write_expectations(name, tokenizer, texts, planes=name in ("llama3", "metaspace", "qwen2"))
    print(len(texts), "texts")


if __name__ == "__main__":
    main()

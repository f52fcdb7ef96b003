"""Writes transformers' float32 next-token log-probabilities of SmolLM2-135M-Instruct for varied texts.

    python tests/parity/model/make_smollm2_log_probabilities.py SmolLM2-135M-Instruct.Q4_1.gguf

transformers 4.57.6 with gguf; token ids from the tokenizers library on the vocabulary in the file.
One JSON object a line: the ids, the 20 likeliest next tokens and 5 others, each with its log-probability.
"""

import json
import pathlib
import sys

import torch
from gguf import GGUFReader
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM

TEXTS = """The capital of France is
The capital of Italy is
Water boils at a temperature of
She opened the door and saw
def fibonacci(n):\\n    if n < 2:
The quick brown fox jumps over the lazy
In 1969, Neil Armstrong became the first
Le chat est assis sur
To be, or not to be, that is the
The Eiffel Tower is located in the city of
1, 2, 3, 4, 5,
My favourite colour is
I am so angry that I could
The doctor told the nurse that
import numpy as np\\nimport
The mitochondria is the powerhouse of the
Once upon a time, in a land far away,
The stock market fell today because
for (int i = 0; i <
Dear Sir or Madam,
2 + 2 =
The opposite of hot is
Die Hauptstadt von Deutschland ist
He works as a carpenter and
What is the meaning of life? The answer is
E = mc""".replace("\\n", "\n").split("\n")
TEXTS = [text for text in TEXTS if text]


def tokenizer_of(reader):
    field = lambda key: reader.fields[key].contents()
    vocabulary = {token: i for i, token in enumerate(field("tokenizer.ggml.tokens"))}
    merges = [tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    return tokenizer


def main():
    path = pathlib.Path(sys.argv[1])
    tokenizer = tokenizer_of(GGUFReader(path))
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    texts = TEXTS + [f"{first} {second}" for first, second in zip(TEXTS, TEXTS[1:])]
    torch.manual_seed(0)
    out = pathlib.Path(__file__).parent / "smollm2_log_probabilities.jsonl"
    with open(out, "w") as file:
        for text in texts:
            ids = tokenizer.encode(text).ids
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0, -1]
            log_probabilities = logits.double().log_softmax(-1)
            chosen = log_probabilities.topk(20).indices.tolist() + torch.randint(logits.numel(), (5,)).tolist()
            expected = [[i, round(log_probabilities[i].item(), 6)] for i in chosen]
            file.write(json.dumps({"ids": ids, "next": expected}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()

"""Write a small Llama with random weights, and its tokenizer, into a folder.

Runs in the virtual environment of vLLM, which brings the libraries; takes a few seconds.  The
answers are nonsense; the scheduler, the KV cache and the metrics are those of any model.
Usage: ``python make_tiny_model.py FOLDER``.
"""

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = 1024  # tokens; random prompts then share no block of the prefix cache
CONTEXT_TOKENS = 2048
SEED = 20240917


def config() -> LlamaConfig:
    """53 million parameters: steps of some 10 ms on one CPU core, so that phases last seconds."""
    return LlamaConfig(
        vocab_size=WORDS,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=8,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT_TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=True,
    )


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word: ``w2 w3 w4`` is three tokens."""
    words = {"<s>": 0, "</s>": 1, **{f"w{place}": place for place in range(2, WORDS)}}
    made = Tokenizer(WordLevel(words, unk_token="</s>"))
    made.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="</s>",
        model_max_length=CONTEXT_TOKENS,
    )


def main(folder: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer's files."""
    torch.manual_seed(SEED)
    LlamaForCausalLM(config()).to(torch.bfloat16).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

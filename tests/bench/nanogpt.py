"""The same step in eager PyTorch, in the manner of nanoGPT: fused attention, SwiGLU for equal work.

`python -m tests.bench.nanogpt DTYPE` makes a first step, and then one for each line of its input. float32, or
bfloat16 as PyTorch does it: weights in float32, the forward pass under autocast.
"""

import contextlib
import sys

import torch  # pyright: ignore[reportMissingImports]  # an optional dependency, as in the next two lines
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional as F  # pyright: ignore[reportMissingImports]

from tests.bench.contender import answer_steps
from tests.bench.task import BENCH

WIDTH, HEADS, FFN = BENCH.width, BENCH.heads, BENCH.ffn


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate, self.up = nn.Linear(WIDTH, FFN, bias=False), nn.Linear(WIDTH, FFN, bias=False)
        self.down = nn.Linear(FFN, WIDTH, bias=False)

    def forward(self, x):
        B, T, _ = x.shape
        q, k, v = self.qkv(self.first(x)).view(B, T, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, WIDTH))
        h = self.second(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(BENCH.vocabulary, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(BENCH.layers))
        self.norm = nn.RMSNorm(WIDTH)

    def forward(self, rows):
        x = self.embedding(rows[:, :-1])
        for layer in self.layers:
            x = layer(x)
        logits = self.norm(x) @ self.embedding.weight.T
        return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def main(dtype: str) -> None:
    torch.manual_seed(0)
    model = Decoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rows = torch.from_numpy(BENCH.tokens()).long()
    reduced = torch.autocast("cpu", torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()

    def train() -> None:
        with reduced:
            loss = model(rows)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    answer_steps(train)


if __name__ == "__main__":
    main(sys.argv[1])

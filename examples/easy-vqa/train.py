"""Train the model: vision encoder, projector, 64 visual tokens ahead of the question in a Llama decoder, 13 answers.

    python train.py [STEPS]         write easy-vqa.pt (default 1500 steps, under an hour on two cores)
"""
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaModel

from dataset import ANSWERS, HERE, Split, vocabulary

CHECKPOINT = HERE / "easy-vqa.pt"


class VQA(nn.Module):
    def __init__(self, vocab_size, width=96, layers=8):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.vpos = nn.Parameter(torch.randn(1, 64, width) * 0.02)
        self.vis = nn.ModuleList(
            [nn.TransformerEncoderLayer(width, 3, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True) for _ in range(2)])
        self.proj = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.llm = LlamaModel(LlamaConfig(
            vocab_size=vocab_size, hidden_size=width, intermediate_size=256, num_hidden_layers=layers, num_attention_heads=3,
            num_key_value_heads=3, max_position_embeddings=128, attn_implementation="sdpa", use_cache=False))
        self.head = nn.Linear(width, len(ANSWERS), bias=False)

    def forward(self, pixel_values, input_ids):
        visual = self.patch(pixel_values).flatten(2).transpose(1, 2) + self.vpos
        for layer in self.vis:
            visual = layer(visual)
        tokens = torch.cat([self.proj(visual), self.llm.embed_tokens(input_ids)], 1)
        hidden = self.llm(inputs_embeds=tokens, use_cache=False).last_hidden_state
        return self.head(hidden[:, -1])


@torch.no_grad()
def accuracy(model, split):
    """On every 19th question of the split."""
    model.eval()
    rows = torch.arange(0, len(split.label), 19)
    answers = model(tensor(split.images)[tensor(split.image)[rows]], tensor(split.ids)[rows]).argmax(1)
    model.train()
    return (answers == tensor(split.label)[rows]).float().mean().item()


def tensor(array):
    return torch.from_numpy(array)


def train(steps):
    vocab = vocabulary()
    data, test = Split("train", vocab), Split("test", vocab)
    images, ids, image, label = map(tensor, (data.images, data.ids, data.image, data.label))
    model = VQA(len(vocab))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.5e-3, total_steps=steps, pct_start=0.1)
    start = time.time()
    for step in range(steps):
        batch = torch.randint(0, len(label), (64,))
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(images[image[batch]], ids[batch]).float(), label[batch])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"{step}: loss {loss.item():.3f}, accuracy {accuracy(model, test):.3f}, {time.time() - start:.0f} s", flush=True)
            torch.save(model.state_dict(), CHECKPOINT)


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(2)
    train(int(sys.argv[1]) if len(sys.argv) > 1 else 1500)

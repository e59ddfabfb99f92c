"""Export easy-vqa.pt to standard ONNX.

    python export.py [FOLDER]       write FOLDER/model.onnx and FOLDER/vocab.json (default: this folder)
"""
import json
import pathlib
import sys

import onnx
import torch
from torch.export import Dim

from dataset import ANSWERS, HERE, QUESTION_LENGTH, vocabulary
from train import CHECKPOINT, VQA


def clean(path):
    """Drop the exporter's notes (they hold source paths) and name the batch dimension."""
    model = onnx.load(path)
    graph = model.graph
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for owner in [model, graph, *graph.value_info, *graph.input, *graph.output]:
        del owner.metadata_props[:]
    for value in [*graph.input, *graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def export(folder):
    vocab = vocabulary()
    model = VQA(len(vocab))
    model.load_state_dict(torch.load(CHECKPOINT))
    sample = (torch.randn(2, 3, 64, 64), torch.randint(0, len(vocab), (2, QUESTION_LENGTH)))
    torch.onnx.export(
        model.eval(), sample, folder / "model.onnx", dynamo=True, opset_version=18, external_data=False,
        input_names=["pixel_values", "input_ids"], output_names=["logits"], dynamic_shapes=({0: Dim.DYNAMIC}, {0: Dim.DYNAMIC}))
    clean(folder / "model.onnx")
    (folder / "vocab.json").write_text(json.dumps({"vocab": vocab, "answers": ANSWERS}))


if __name__ == "__main__":
    export(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)

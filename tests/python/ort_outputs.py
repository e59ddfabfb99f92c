#!/usr/bin/env python3
"""Run a model in ONNX Runtime and save every output under its own name.

    python ort_outputs.py MODEL.onnx INPUTS.npz OUT.npz

Arrays in INPUTS.npz that the model has no input for (such as `labels`) are left aside.
"""
import sys

import numpy as np
import onnxruntime as ort


def run(model_path, inputs):
    """ONNX Runtime's outputs by name. `inputs` maps names to arrays and must have every input of the model."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(model_path), options, providers=["CPUExecutionProvider"])
    missing = [i.name for i in session.get_inputs() if i.name not in inputs]
    if missing:
        raise ValueError(f"no array for the inputs {', '.join(missing)}")
    feeds = {i.name: inputs[i.name] for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds)))


def main(model_path, inputs_path, out_path):
    with np.load(inputs_path) as inputs:
        np.savez(out_path, **run(model_path, inputs))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])

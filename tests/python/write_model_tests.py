"""Writes the model tests of the ONNX standard that carry no weights, in the form of write_node_tests.py.

    python write_model_tests.py FOLDER

They are those of the suites `simple`, `pytorch-operator`, `pytorch-converted` and `light` in the installed `onnx` package.
"""
import json
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import DATA_DIR

SUITES = ("simple", "pytorch-operator", "pytorch-converted")


def given(model):
    """The inputs that a caller gives."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [info for info in model.graph.input if info.name not in stored]


def about(model, rtol=1e-3, atol=1e-7):
    return json.dumps({"rtol": rtol, "atol": atol, "operators": [node.op_type for node in model.graph.node]})


def named(raw, info):
    """A stored value under the model's name for it."""
    if info.type.WhichOneof("value") != "tensor_type":
        return raw
    tensor = TensorProto.FromString(raw)
    tensor.name = info.name
    return tensor.SerializeToString()


def write(source, folder):
    """One test that stands in a folder of its own."""
    model = onnx.load(source / "model.onnx")
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    stated = source / "data.json"
    (folder / "test.json").write_text(about(model, **json.loads(stated.read_text())) if stated.exists() else about(model))
    for n, data in enumerate(sorted(source.glob("test_data_set_*"))):
        (folder / str(n)).mkdir()
        for kind, infos in (("input", given(model)), ("output", model.graph.output)):
            for k, info in enumerate(infos):
                raw = (data / f"{kind}_{k}.pb").read_bytes()
                (folder / str(n) / f"{kind}_{k}.pb").write_bytes(named(raw, info))


def ramp(info):
    """What the standard's own runner feeds to a light model."""
    dims = [d.dim_value if d.HasField("dim_value") else 1 for d in info.type.tensor_type.shape.dim]
    count = np.prod(dims)
    return numpy_helper.from_array((np.arange(count).reshape(dims) / count).astype(np.float32), info.name)


def write_light(source, folder):
    """One light model, whose weights are computed by its nodes."""
    model = onnx.load(source)
    (folder / "0").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "test.json").write_text(about(model))
    for k, info in enumerate(given(model)):
        (folder / "0" / f"input_{k}.pb").write_bytes(ramp(info).SerializeToString())
    for k, info in enumerate(model.graph.output):
        raw = source.with_name(f"{source.stem}_output_{k}.pb").read_bytes()
        (folder / "0" / f"output_{k}.pb").write_bytes(named(raw, info))


def main(folder):
    data = pathlib.Path(DATA_DIR)
    for suite in SUITES:
        for source in sorted(p for p in (data / suite).iterdir() if (p / "model.onnx").exists()):
            write(source, folder / f"{suite}-{source.name}")
    for source in sorted((data / "light").glob("*.onnx")):
        write_light(source, folder / source.stem)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

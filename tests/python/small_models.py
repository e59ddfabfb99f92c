"""Writes small models with seeded inputs and what ONNX Runtime computes from them.

A model is a function that returns a ModelProto; its inputs are drawn here by their declared types, unless the model
gives its own. Each becomes FOLDER/NAME with `model.onnx`, `inputs.npz` and `expected.npz`.
"""
import pathlib
import sys

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from ort_outputs import run


def f32(name, *dims):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def i32(name, *dims):
    return helper.make_tensor_value_info(name, TensorProto.INT32, dims)


def i64(name, *dims):
    return helper.make_tensor_value_info(name, TensorProto.INT64, dims)


def random(seed, *dims):
    return np.random.default_rng(seed).standard_normal(dims).astype(np.float32)


def weights(seed, spread=0.5):
    """Weights as a model's text has them: `weights(3)("w", 2, 4)` is a tensor `w` of seeded numbers around 0."""
    rng = np.random.default_rng(seed)

    def tensor(name, *dims):
        values = ", ".join(f"{v:.4f}" for v in rng.standard_normal(int(np.prod(dims))) * spread)
        return f"float[{', '.join(map(str, dims))}] {name} = {{{values}}}"

    return tensor


def model(nodes, inputs, outputs, constants=(), opset=17, functions=(), imports=()):
    """A model; `constants` maps names to arrays."""
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(constants).items()]
    graph = helper.make_graph(nodes, "small", inputs, outputs, stored)
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1), *imports]
    return helper.make_model(graph, opset_imports=domains, ir_version=9, functions=functions)


def drawn(info, seed, sizes):
    """An array of the declared type; symbolic dims take their size from `sizes`."""
    kind = info.type.tensor_type
    dims = [d.dim_value if d.WhichOneof("value") == "dim_value" else sizes[d.dim_param] for d in kind.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(dims).astype(dtype)
    return rng.integers(0, 2 if dtype == bool else 4, dims).astype(dtype)


def write(folder, name, proto, inputs=None, sizes=None, twin=None, error=None):
    """Writes one test; `inputs` maps names to arrays that are not drawn. ONNX Runtime runs `twin`, if it is given.

    With `error` it must fail, and so must eec, with that in its message.
    """
    target = folder / name
    target.mkdir(parents=True)
    path = target / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    stored = {tensor.name for tensor in proto.graph.initializer}
    arrays = {
        info.name: np.asarray((inputs or {}).get(info.name, drawn(info, 7 + k, sizes or {})))
        for k, info in enumerate(proto.graph.input)
        if info.name not in stored
    }
    np.savez(target / "inputs.npz", **arrays)
    judge = target / "twin.onnx"
    judge.write_bytes((twin or proto).SerializeToString())
    if error is None:
        np.savez(target / "expected.npz", **run(judge, arrays))
        return
    (target / "error.txt").write_text(error)
    try:
        run(judge, arrays)
    except Exception:
        return
    raise AssertionError(f"ONNX Runtime runs {name}")


def main(tests):
    """Writes what `tests()` yields, the arguments of `write`, to the folder on the command line."""
    folder = pathlib.Path(sys.argv[1])
    for name, proto, *rest in tests():
        write(folder, name, proto, *rest)

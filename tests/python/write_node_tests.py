"""Writes the node tests of the ONNX standard, from the installed `onnx` package, as folders.

    python write_node_tests.py FOLDER

Each test becomes FOLDER/NAME with `model.onnx`, `test.json` (tolerances, operators) and, per data set N, `N/input_K.pb` and
`N/output_K.pb` (serialised TensorProto, SequenceProto or OptionalProto, as in the standard's own data).
"""
import json
import pathlib
import sys
import warnings

import numpy as np
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases


def message(value, info):
    """`value` as the protobuf message of the type that the model declares."""
    if hasattr(value, "SerializeToString"):
        return value
    kind = info.type.WhichOneof("value")
    if kind == "sequence_type":
        return numpy_helper.from_list(value, info.name)
    if kind == "optional_type":
        return numpy_helper.from_optional(value, info.name)
    return numpy_helper.from_array(np.asarray(value), info.name)


def write_values(folder, kind, values, infos):
    for k, (value, info) in enumerate(zip(values, infos)):
        (folder / f"{kind}_{k}.pb").write_bytes(message(value, info).SerializeToString())


def write(case, folder):
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(case.model.SerializeToString())
    operators = [node.op_type for node in case.model.graph.node]
    about = {"rtol": case.rtol, "atol": case.atol, "operators": operators}
    (folder / "test.json").write_text(json.dumps(about))
    for n, (inputs, outputs) in enumerate(case.data_sets):
        data = folder / str(n)
        data.mkdir()
        write_values(data, "input", inputs, case.model.graph.input)
        write_values(data, "output", outputs, case.model.graph.output)


def main(folder):
    warnings.filterwarnings("ignore")
    for case in collect_testcases(None):
        write(case, folder / case.name)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

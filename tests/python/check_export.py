#!/usr/bin/env python3
"""Check an exported dynamic model against the plain one and against eec's own outputs.

    python check_export.py PLAIN.onnx EXPORTED.onnx INPUTS.npz EEC_OUTPUTS.npz [--thresholds 0.9 ...]

The exported model must pass ONNX's checker, give eec's outputs in ONNX Runtime, store every initializer once, branch
with `If` where it has exits, and name the pass (`eec.pass`) on every node that the plain model does not have.

Samples near a threshold may leave at another exit when two engines round differently. With --thresholds, a sample that
left early with a `confidence` within --near of one of them is counted and shown instead of failing, and its rows are
left out of the other comparisons.

Prints one JSON line; exits with 1 if `failures` is not empty.
"""
import argparse
import collections
import hashlib
import json
import sys

import numpy as np
import onnx
from onnx import numpy_helper

import ort_outputs

SHARED_BYTES = 64
PASS_KEY = "eec.pass"


def graphs(model):
    """The main graph, then those of `If`, `Loop` and `Scan`, at any depth, and the bodies of functions."""
    todo = [model.graph, *model.functions]
    while todo:
        graph = todo.pop()
        yield graph
        for attribute in (a for node in graph.node for a in node.attribute):
            if attribute.type == onnx.AttributeProto.GRAPH:
                todo.append(attribute.g)
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                todo.extend(attribute.graphs)


def nodes(model):
    return (node for graph in graphs(model) for node in graph.node)


def identity(node):
    """The node's name; nameless nodes are known by their first output."""
    return ("name", node.name) if node.name else ("output", next(iter(node.output), ""))


def stored_tensors(model):
    """Every initializer, and every tensor in a `Constant` (a copy moved there is stored again), with its value's name."""
    for graph in graphs(model):
        yield from ((tensor.name, tensor) for tensor in getattr(graph, "initializer", ()))
        for node in graph.node:
            if node.op_type == "Constant":
                yield from ((node.output[0], a.t) for a in node.attribute if a.name == "value")


def by_content(model):
    """(dtype, dims, name) of the stored tensors over SHARED_BYTES, grouped by their bytes."""
    groups = collections.defaultdict(list)
    for name, tensor in stored_tensors(model):
        if tensor.data_type == onnx.TensorProto.STRING:
            content = b"\0".join(tensor.string_data)
        else:
            content = numpy_helper.to_array(tensor).tobytes()
        if len(content) > SHARED_BYTES:
            groups[hashlib.sha256(content).digest()].append((tensor.data_type, tuple(tensor.dims), name))
    return groups


def check_stored_once(plain, exported):
    """ONNX cannot share bytes between two shapes: copies that the plain model has for that reason are allowed."""
    before = by_content(plain)
    for content, copies in by_content(exported).items():
        shapes_before = {(dtype, dims) for dtype, dims, _ in before.get(content, ())}
        if len(copies) > max(1, len(shapes_before)):
            yield f"stored {len(copies)} times: {', '.join(repr(name) for _, _, name in copies)}"


def check_nodes(plain, exported):
    known = {identity(node) for node in nodes(plain)}
    added = [node for node in nodes(exported) if identity(node) not in known]
    passes = collections.Counter()
    failures = []
    for node in added:
        made_by = next((p.value for p in node.metadata_props if p.key == PASS_KEY), "")
        passes[made_by] += 1
        if not made_by:
            failures.append(f"{node.op_type} node {node.name!r} is not in the plain model and has no {PASS_KEY}")
    branches = sum(node.op_type == "If" for node in added)
    if "exit_index" in {o.name for o in exported.graph.output} and not branches:
        failures.append("exit_index is an output, but no If was added")
    facts = {"if_nodes": branches, "added_nodes": len(added), "passes": dict(passes)}
    return facts, failures


def differing_exits(eec, ort, thresholds, near):
    """Masks over `exit_index`: the samples that differ, and those of them that a threshold explains.

    The engine that left earlier decided by the confidence it gives; the other one went on, so its confidence says
    nothing about that decision.
    """
    differ = eec["exit_index"] != ort["exit_index"]
    if not thresholds or "confidence" not in eec or "confidence" not in ort:
        return differ, np.zeros_like(differ)
    if not eec["confidence"].shape == ort["confidence"].shape == differ.shape:
        return differ, np.zeros_like(differ)
    deciding = np.where(eec["exit_index"] < ort["exit_index"], eec["confidence"], ort["confidence"])
    distance = np.abs(deciding[..., None].astype(np.float64) - np.array(thresholds)).min(-1)
    return differ, differ & (distance <= near)


def without(array, excused):
    """`array` without the samples (or the samples' tokens) that `excused` marks; whole where it has no such rows."""
    for mask in (excused, excused.any(tuple(range(1, excused.ndim)))) if excused.ndim else (excused,):
        if mask.any() and array.shape[:mask.ndim] == mask.shape:
            return array[~mask]
    return array


def compare(name, eec, ort, atol, rtol):
    """The largest difference, and a failure or None. NaN is never right."""
    if not np.issubdtype(ort.dtype, np.floating):
        wrong = eec != ort
        return float(wrong.any()), f"{name}: {int(wrong.sum())} of {wrong.size} values differ" if wrong.any() else None
    a, b = eec.astype(np.float64), ort.astype(np.float64)
    wrong = ~np.isclose(a, b, atol=atol, rtol=rtol)
    with np.errstate(invalid="ignore"):
        worst = float(np.max(np.where(a == b, 0, np.abs(a - b)), initial=0))
    message = f"{name}: {int(wrong.sum())} of {wrong.size} values differ, the worst by {worst:.3g}" if wrong.any() else None
    return worst if np.isfinite(worst) else str(worst), message


def check_outputs(eec, ort, thresholds, near, atol, rtol):
    facts, failures = {"outputs": {}, "near_threshold": []}, []
    if not eec:
        failures.append("there are no outputs to compare with")
    excused = np.zeros((), bool)
    for name in sorted(eec, key=lambda name: name != "exit_index"):
        if name not in ort:
            failures.append(f"{name}: the exported model has no such output")
            continue
        kinds = [f"{array.dtype}{list(array.shape)}" for array in (eec[name], ort[name])]
        if kinds[0] != kinds[1]:
            failures.append(f"{name}: eec gives {kinds[0]}, the exported model {kinds[1]}")
            continue
        if name == "exit_index":
            differ, excused = differing_exits(eec, ort, thresholds, near)
            facts["samples"] = differ.size
            facts["near_threshold"] = np.argwhere(excused).tolist()
            wrong = np.argwhere(differ & ~excused).tolist()
            if wrong:
                failures.append(f"exit_index: {len(wrong)} of {differ.size} samples leave elsewhere: {wrong[:10]}")
            continue
        worst, failure = compare(name, without(eec[name], excused), without(ort[name], excused), atol, rtol)
        facts["outputs"][name] = worst
        failures += [failure] if failure else []
    return facts, failures


def check(plain_path, exported_path, inputs, eec, thresholds=(), near=1e-5, atol=1e-4, rtol=1e-4):
    """All checks; `ok`, `failures` and what was found."""
    report, failures = {"ok": False}, []
    try:
        onnx.checker.check_model(str(exported_path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        failures.append(f"not valid ONNX: {error}")
    plain, exported = onnx.load(plain_path), onnx.load(exported_path)
    facts, wrong = check_nodes(plain, exported)
    report |= facts | {"initializers": sum(1 for _ in stored_tensors(exported))}
    failures += [*wrong, *check_stored_once(plain, exported)]
    try:
        ort = ort_outputs.run(exported_path, inputs)
    except Exception as error:  # ONNX Runtime's errors have no common class below this one
        failures.append(f"ONNX Runtime: {error}")
    else:
        facts, wrong = check_outputs(eec, ort, thresholds, near, atol, rtol)
        report |= facts | {"near": near, "not_compared": sorted(set(ort) - set(eec))}
        failures += wrong
    return report | {"ok": not failures, "failures": failures}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("plain", "exported", "inputs", "eec_outputs"):
        parser.add_argument(name)
    parser.add_argument("--thresholds", type=float, nargs="+", default=[], help="the exits' thresholds")
    parser.add_argument("--near", type=float, default=1e-5, help="rounding distance of a threshold (default %(default)s)")
    parser.add_argument("--atol", type=float, default=1e-4)
    parser.add_argument("--rtol", type=float, default=1e-4)
    a = parser.parse_args()
    with np.load(a.inputs) as inputs, np.load(a.eec_outputs) as eec:
        report = check(a.plain, a.exported, dict(inputs), dict(eec), a.thresholds, a.near, a.atol, a.rtol)
    print(json.dumps(report))
    sys.exit(not report["ok"])


if __name__ == "__main__":
    main()

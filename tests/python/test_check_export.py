"""The checker on small models that it must accept, and on each mistake that it must find."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import check_export
import ort_outputs

THRESHOLD = 0.5
W0 = np.eye(3, 5, dtype=np.float32)
W1 = (np.arange(25, dtype=np.float32).reshape(5, 5) - 12) / 10
# Rows 0 and 2 leave early, by a wide margin and by a narrow one; row 1 goes on.
X = np.array([[2, 0, -1], [0.1, 0.2, 0.3], [0.500001, 0.1, 0]], np.float32)


def by_pass(node, name="exit-heads"):
    entry = node.metadata_props.add()
    entry.key, entry.value = check_export.PASS_KEY, name
    return node


def tensor(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def value(name, dtype, *dims):
    return helper.make_tensor_value_info(name, dtype, dims)


def model(nodes, initializers, outputs):
    graph = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, "batch", 3)], outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


LOGITS = value("y", TensorProto.FLOAT, "batch", 5)


def plain():
    nodes = [helper.make_node("MatMul", ["x", "w0"], ["h"], "fc0"), helper.make_node("MatMul", ["h", "w1"], ["y"], "fc1")]
    return model(nodes, [tensor("w0", W0), tensor("w1", W1)], [LOGITS])


def exported():
    """An exit after `fc0`: `fc1` runs only if a row's largest value stays under the threshold."""
    deep = helper.make_graph([helper.make_node("MatMul", ["h", "w1"], ["deep"], "fc1")], "deeper", [], [value("deep", TensorProto.FLOAT, None, 5)])
    stay = helper.make_graph([by_pass(helper.make_node("Identity", ["h"], ["stay"], "stay"))], "done", [], [value("stay", TensorProto.FLOAT, None, 5)])
    added = [
        helper.make_node("ReduceMax", ["h", "axis"], ["confidence"], "max", keepdims=0),
        helper.make_node("Less", ["confidence", "threshold"], ["go_on"], "less"),
        helper.make_node("Cast", ["go_on"], ["exit_index"], "index", to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["exit_index"], ["some"], "some", keepdims=0),
        helper.make_node("Cast", ["some"], ["any"], "any", to=TensorProto.BOOL),
        helper.make_node("If", ["any"], ["late"], "branch", then_branch=deep, else_branch=stay),
        helper.make_node("Unsqueeze", ["go_on", "axis"], ["column"], "column"),
        helper.make_node("Where", ["column", "late", "h"], ["y"], "merge"),
    ]
    nodes = [helper.make_node("MatMul", ["x", "w0"], ["h"], "fc0"), *map(by_pass, added)]
    constants = [tensor("w0", W0), tensor("w1", W1), tensor("axis", [1]), tensor("threshold", np.float32(THRESHOLD))]
    return model(nodes, constants, [LOGITS, value("exit_index", TensorProto.INT64, "batch"), value("confidence", TensorProto.FLOAT, "batch")])


def find(graph, name):
    return next(node for node in graph.node if node.name == name)


class Files(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.plain = self.save("plain", plain())
        self.good = self.save("good", exported())
        self.eec = ort_outputs.run(self.good, {"x": X})

    def save(self, name, made):
        path = self.folder / f"{name}.onnx"
        onnx.save(made, path)
        return path

    def late_third_row(self):
        """What eec would give had the third row, just over the threshold, been rounded to just under it."""
        y, confidence = self.eec["y"].copy(), self.eec["confidence"].copy()
        y[2], confidence[2] = X[2] @ W0 @ W1, 0.25
        return {"y": y, "confidence": confidence, "exit_index": np.array([0, 1, 1])}


class CheckExport(Files):
    def report(self, made=None, eec=None, inputs=None, **options):
        path = self.save("other", made) if made else self.good
        return check_export.check(self.plain, path, inputs or {"x": X}, self.eec if eec is None else eec, **options)

    def assert_fails(self, text, **case):
        report = self.report(**case)
        self.assertFalse(report["ok"])
        self.assertTrue(any(text in failure for failure in report["failures"]), report["failures"])
        return report

    def test_accepts_a_true_export(self):
        self.assertEqual(self.eec["exit_index"].tolist(), [0, 1, 0])
        report = self.report()
        self.assertEqual(report["failures"], [])
        self.assertEqual((report["if_nodes"], report["added_nodes"], report["samples"]), (1, 9, 3))
        self.assertEqual(report["passes"], {"exit-heads": 9})

    def test_accepts_differences_of_rounding(self):
        self.assertTrue(self.report(eec=self.eec | {"y": self.eec["y"] + np.float32(5e-5)})["ok"])

    def test_a_wrong_value(self):
        wrong = self.eec["y"].copy()
        wrong[1, 2] += 0.01
        self.assert_fails("y: 1 of 15 values differ", eec=self.eec | {"y": wrong})

    def test_nan(self):
        self.assert_fails("y: 15 of 15 values differ", eec=self.eec | {"y": np.full_like(self.eec["y"], np.nan)})

    def test_a_wrong_shape_or_dtype(self):
        self.assert_fails("y: eec gives float32[3, 4]", eec=self.eec | {"y": self.eec["y"][:, :4]})
        self.assert_fails("exit_index: eec gives int32[3]", eec=self.eec | {"exit_index": self.eec["exit_index"].astype(np.int32)})

    def test_a_wrong_exit(self):
        self.assert_fails("leave elsewhere: [[0]]", eec=self.eec | {"exit_index": np.array([1, 1, 0])}, thresholds=[THRESHOLD])

    def test_a_sample_at_a_threshold_is_shown_not_failed(self):
        report = self.report(eec=self.late_third_row(), thresholds=[0.9, THRESHOLD])
        self.assertEqual((report["failures"], report["near_threshold"]), ([], [[2]]))

    def test_a_sample_at_a_threshold_fails_if_none_is_given_or_it_is_not_near(self):
        self.assert_fails("leave elsewhere: [[2]]", eec=self.late_third_row())
        self.assert_fails("leave elsewhere: [[2]]", eec=self.late_third_row(), thresholds=[THRESHOLD], near=1e-8)

    def test_other_rows_are_still_compared_beside_an_excused_one(self):
        eec = self.late_third_row()
        eec["y"][0, 0] += 1
        self.assert_fails("y: 1 of 10 values differ", eec=eec, thresholds=[THRESHOLD])

    def test_an_output_that_is_not_there(self):
        self.assert_fails("z: the exported model has no such output", eec=self.eec | {"z": np.zeros(3)})
        self.assert_fails("no outputs to compare", eec={})

    def test_an_input_that_is_not_there(self):
        self.assert_fails("no array for the inputs x", inputs={"other": X})

    def test_a_node_without_its_pass(self):
        made = exported()
        del find(made.graph, "merge").metadata_props[:]
        self.assert_fails("Where node 'merge'", made=made)

    def test_a_node_without_its_pass_inside_a_branch(self):
        made = exported()
        branch = next(a.g for a in find(made.graph, "branch").attribute if a.name == "else_branch")
        del branch.node[0].metadata_props[:]
        self.assert_fails("Identity node 'stay'", made=made)

    def test_a_weight_stored_twice(self):
        made = exported()
        branch = next(a.g for a in find(made.graph, "branch").attribute if a.name == "then_branch")
        branch.initializer.append(tensor("w1_again", W1))
        branch.node[0].input[1] = "w1_again"
        self.assert_fails("stored 2 times", made=made)

    def test_a_weight_stored_again_as_a_constant(self):
        made = exported()
        made.graph.node.insert(0, by_pass(helper.make_node("Constant", [], ["copy"], "copy", value=tensor("", W1))))
        self.assert_fails("stored 2 times: 'w1', 'copy'", made=made)

    def test_exits_without_a_branch(self):
        made = exported()
        branch = find(made.graph, "branch")
        branch.CopyFrom(by_pass(helper.make_node("MatMul", ["h", "w1"], ["late"], "branch")))
        self.assert_fails("no If was added", made=made)

    def test_an_invalid_model(self):
        made = exported()
        find(made.graph, "merge").input[1] = "nowhere"
        self.assert_fails("not valid ONNX", made=made)

    def test_an_invalid_type(self):
        made = exported()
        made.graph.output[1].type.tensor_type.elem_type = TensorProto.FLOAT
        self.assert_fails("not valid ONNX", made=made)


class CommandLine(Files):
    """The command on the same files: one JSON line, and a status that says whether all is well."""

    def command(self, eec, *options):
        np.savez(self.folder / "inputs.npz", x=X, labels=np.zeros(3))
        np.savez(self.folder / "eec.npz", **eec)
        script = pathlib.Path(check_export.__file__)
        files = [self.plain, self.good, self.folder / "inputs.npz", self.folder / "eec.npz"]
        done = subprocess.run([sys.executable, script, *files, *options], capture_output=True, text=True)
        self.assertEqual(done.stdout.count("\n"), 1, done.stderr)
        return done.returncode, json.loads(done.stdout)

    def test_status(self):
        self.assertEqual(self.command(self.eec)[0], 0)
        status, report = self.command(self.late_third_row())
        self.assertEqual((status, report["ok"]), (1, False))
        self.assertEqual(self.command(self.late_third_row(), "--thresholds", "0.5", "--near", "1e-5")[0], 0)


if __name__ == "__main__":
    unittest.main()

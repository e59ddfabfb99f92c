"""Writes small models with control flow and functions:  python control_models.py FOLDER

The first group is the list of failures that users of other engines report for branches.
"""
import re

import numpy as np
from onnx import parser

from small_models import main

HEADER = '<ir_version: 9, opset_import: ["" : 17, "local" : 1]>\n'


def text(body, functions=""):
    return parser.parse_model(HEADER + re.sub(OUTER, r"(\1) {}", body) + functions)


# A branch that yields an outer value as it is. ONNX Runtime refuses it and judges the same model with an Identity.
OUTER = r"OUTER (\w+)"


def twin(body):
    return parser.parse_model(HEADER + re.sub(OUTER, r"(same_\1) { same_\1 = Identity (\1) }", body))


TRUE, FALSE = {"c": np.array(True)}, {"c": np.array(False)}


def both(name, body, functions=""):
    """The model with either value of its condition `c`."""
    judge = None if functions else twin(body)
    for truth, inputs in (("then", TRUE), ("else", FALSE)):
        yield f"{name}_{truth}", text(body, functions), inputs, {"n": 3}, judge


def scopes():
    yield from both("initializer_used_in_a_branch_alone", """
        m (bool c, float[n, 2] x) => (float[n, 2] y) <float[2] w = {0.5, 2.0}> {
            y = If (c) <then_branch = t () => (float[n, 2] a) { a = Mul (x, w) },
                        else_branch = e () => (float[n, 2] b) { b = Neg (x) }>
        }""")
    yield from both("branch_yields_an_outer_value", """
        m (bool c, float[n, 2] x) => (float[n, 2] y) {
            z = Exp (x)
            y = If (c) <then_branch = t () => OUTER z,
                        else_branch = e () => (float[n, 2] b) { b = Neg (z) }>
        }""")
    yield from both("branch_yields_an_outer_initializer", """
        m (bool c, float[2] x) => (float[2] y) <float[2] w = {0.5, 2.0}> {
            y = If (c) <then_branch = t () => OUTER w,
                        else_branch = e () => (float[2] b) { b = Neg (x) }>
        }""")
    yield from both("branch_yields_an_input", """
        m (bool c, float[n, 2] x) => (float[n, 2] y) {
            y = If (c) <then_branch = t () => OUTER x,
                        else_branch = e () => (float[n, 2] b) { b = Neg (x) }>
        }""")
    yield from both("the_same_name_in_both_branches", """
        m (bool c, float[n, 2] x) => (float[n, 2] y) {
            y = If (c) <then_branch = t () => (float[n, 2] a) { h = Exp (x)  a = Neg (h) },
                        else_branch = e () => (float[n, 2] a) { h = Tanh (x)  a = Add (h, h) }>
        }""")
    yield from both("no_value_info", """
        m (bool c, float[n, 2] x) => (float[n, 2] y) {
            h = Sigmoid (x)
            y = If (c) <then_branch = t () => (a) { g = Sub (h, x)  a = Neg (g) },
                        else_branch = e () => (b) { b = Mul (h, x) }>
        }""")
    yield from both("initializer_of_a_branch", """
        m (bool c, float[n, 2] x) => (float[n, 2] y) {
            y = If (c) <then_branch = t () => (float[n, 2] a) <float[2] w = {3.0, -1.0}> { a = Mul (x, w) },
                        else_branch = e () => (float[n, 2] b) <float[2] v = {1.5, 0.25}> { b = Add (x, v) }>
        }""")
    yield from both("two_levels_down", """
        m (bool c, float[n, 2] x) => (float[n, 2] y) <float[2] w = {0.5, 2.0}> {
            h = Exp (x)
            y = If (c) <then_branch = t () => (float[n, 2] a) {
                            d = Not (c)
                            a = If (d) <then_branch = tt () => (float[n, 2] p) { p = Mul (h, w) },
                                        else_branch = te () => (float[n, 2] q) { q = Add (h, w) }>
                        },
                        else_branch = e () => OUTER h>
        }""")
    yield from both("a_branch_with_several_results", """
        m (bool c, float[n, 2] x) => (float[n, 2] y, float[n, 2] z, float[n, 2] x2) {
            y, z = If (c) <then_branch = t () => (float[n, 2] a, float[n, 2] a2) { a = Exp (x)  a2 = Neg (a) },
                           else_branch = e () => (float[n, 2] b, float[n, 2] d) { b = Tanh (x)  d = Abs (x) }>
            x2 = Mul (y, z)
        }""")


def loops():
    yield "loop_counts", text("""
        m (float[n, 2] x) => (float[n, 2] y, float[k, n, 2] rows) <int64 m = {3}, bool go = {1}> {
            y, rows = Loop (m, go, x) <body = b (int64 i, bool ci, float[n, 2] v) => (bool co, float[n, 2] w, float[n, 2] r) {
                co = Identity (ci)
                f = Cast <to = 1> (i)
                r = Add (v, f)
                w = Mul (r, x)
            }>
        }"""), None, {"n": 3}
    yield "loop_ends_by_a_known_condition", text("""
        m (float[2] x) => (float[2] y) <int64 m = {100}, bool go = {1}, int64 four = {4}> {
            y = Loop (m, go, x) <body = b (int64 i, bool ci, float[2] v) => (bool co, float[2] w) {
                co = Less (i, four)
                w = Add (v, v)
            }>
        }""")
    yield "loop_without_a_count", text("""
        m (float[2] x) => (float[2] y) <bool go = {1}, int64 two = {2}> {
            y = Loop ( , go, x) <body = b (int64 i, bool ci, float[2] v) => (bool co, float[2] w) {
                co = Less (i, two)
                w = Tanh (v)
            }>
        }""")
    yield "loop_without_steps", text("""
        m (float[2] x) => (float[2] y) <int64 m = {0}, bool go = {1}> {
            y = Loop (m, go, x) <body = b (int64 i, bool ci, float[2] v) => (bool co, float[2] w) {
                co = Identity (ci)
                w = Tanh (v)
            }>
        }""")
    until = text("""
        m (float[2] x, float limit) => (float[2] y) <int64 m = {6}, bool go = {1}> {
            y = Loop (m, go, x) <body = b (int64 i, bool ci, float[2] v) => (bool co, float[2] w) {
                w = Add (v, v)
                s = ReduceSum <keepdims = 0> (w)
                co = Less (s, limit)
            }>
        }""")
    for limit in (-1.0, 9.0, 20.0, 1e6):
        inputs = {"x": np.array([0.5, 1.0], np.float32), "limit": np.array(limit, np.float32)}
        yield f"loop_until_data_says_so_{limit:.0f}", until, inputs
    maybe = text("""
        m (bool c, float[2] x) => (float[2] y) <int64 m = {2}> {
            y = Loop (m, c, x) <body = b (int64 i, bool ci, float[2] v) => (bool co, float[2] w) {
                w = Add (v, x)
                co = Identity (ci)
            }>
        }""")
    yield "loop_that_may_not_start_then", maybe, TRUE
    yield "loop_that_may_not_start_else", maybe, FALSE
    yield "loop_whose_carried_shape_grows", text("""
        m (float[n, 2] x) => (float[k, 2] y) <int64 m = {3}, bool go = {1}> {
            y = Loop (m, go, x) <body = b (int64 i, bool ci, float[p, 2] v) => (bool co, float[q, 2] w) {
                co = Identity (ci)
                w = Concat <axis = 0> (v, x)
            }>
        }"""), None, {"n": 2}
    yield "loop_in_a_loop", text("""
        m (float[2] x) => (float[2] y) <int64 m = {2}, int64 k = {3}, bool go = {1}, float[2] w = {0.5, 0.25}> {
            y = Loop (m, go, x) <body = b (int64 i, bool ci, float[2] v) => (bool co, float[2] u) {
                co = Identity (ci)
                u = Loop (k, go, v) <body = bb (int64 j, bool cj, float[2] p) => (bool cq, float[2] q) {
                    cq = Identity (cj)
                    s = Add (i, j)
                    f = Cast <to = 1> (s)
                    g = Mul (f, w)
                    q = Add (p, g)
                }>
            }>
        }""")
    yield from both("loop_in_a_branch", """
        m (bool c, float[n, 2] x) => (float[n, 2] y) <int64 m = {2}, bool go = {1}> {
            y = If (c) <then_branch = t () => (float[n, 2] a) {
                            a = Loop (m, go, x) <body = b (int64 i, bool ci, float[n, 2] v) => (bool co, float[n, 2] w) {
                                co = Identity (ci)
                                w = Exp (v)
                            }>
                        },
                        else_branch = e () => (float[n, 2] b) { b = Neg (x) }>
        }""")
    yield from both("branch_in_a_loop", """
        m (bool c, float[2] x) => (float[2] y) <int64 m = {3}, bool go = {1}> {
            y = Loop (m, go, x) <body = b (int64 i, bool ci, float[2] v) => (bool co, float[2] w) {
                co = Identity (ci)
                w = If (c) <then_branch = t () => (float[2] a) { a = Add (v, x) },
                            else_branch = e () => OUTER v>
            }>
        }""")


def scans():
    body = """<num_scan_inputs = 1, ATTRIBUTES body = b (float[2] s, float[2] e) => (float[2] t, float[2] r) {
        t = Add (s, e)
        h = Tanh (t)
        r = Mul (h, e)
    }>"""
    forms = {
        "scan": ("float[4, 2] x", "float[4, 2] r", ""),
        "scan_backwards": ("float[4, 2] x", "float[4, 2] r", "scan_input_directions = [1], "),
        "scan_output_backwards": ("float[4, 2] x", "float[4, 2] r", "scan_output_directions = [1], "),
        "scan_second_axis": ("float[2, 4] x", "float[2, 4] r", "scan_input_axes = [1], scan_output_axes = [1], "),
        "scan_last_axis": ("float[2, 4] x", "float[4, 2] r", "scan_input_axes = [-1], "),
    }
    for name, (taken, given, attributes) in forms.items():
        node = "y, r = Scan (s0, x) " + body.replace("ATTRIBUTES", attributes)
        yield name, text(f"m (float[2] s0, {taken}) => (float[2] y, {given}) {{ {node} }}")
    yield "scan_sees_outer_values", text("""
        m (float[n, 2] s0, float[3, n, 2] x) => (float[n, 2] y, float[3, n, 2] r) <float[2] w = {0.5, 2.0}> {
            o = Exp (s0)
            y, r = Scan (s0, x) <num_scan_inputs = 1, body = b (float[n, 2] s, float[n, 2] e) => (float[n, 2] t, float[n, 2] r) {
                p = Mul (e, w)
                q = Add (p, o)
                t = Sub (s, q)
                r = Neg (t)
            }>
        }"""), None, {"n": 2}


def functions():
    yield "function", text(
        "m (float[n, 2] x) => (float[n, 2] y) { h = local.f (x, x)  y = local.f (h, x) }",
        """<domain: "local", opset_import: ["" : 17]> f (a, b) => (c) { h = Exp (a)  c = Sub (h, b) }""",
    ), None, {"n": 3}
    yield "function_with_attributes", text(
        "m (float[n, 2] x) => (float[n, 2] y, float[n, 2] z) { y = local.f <slope = 0.25> (x)  z = local.g (x) }",
        """<domain: "local", opset_import: ["" : 17]> f <slope> (a) => (c) { c = LeakyRelu <alpha : float = @slope> (a) }
           <domain: "local", opset_import: ["" : 17]> g <slope : float = 0.5> (a) => (c) {
               c = LeakyRelu <alpha : float = @slope> (a)
           }""",
    ), None, {"n": 3}
    yield "function_in_a_function", text(
        "m (float[n, 2] x) => (float[n, 2] y) { y = local.f <slope = 0.25> (x) }",
        """<domain: "local", opset_import: ["" : 17, "local" : 1]> f <slope> (a) => (c) {
               h = local.g <s : float = @slope> (a)
               c = Add (h, a)
           }
           <domain: "local", opset_import: ["" : 17]> g <s> (a) => (c) {
               a2 = Mul (a, a)
               c = LeakyRelu <alpha : float = @s> (a2)
           }""",
    ), None, {"n": 3}
    yield "function_of_another_opset", text(
        "m (float[n, 2] x) => (float[n] y) { y = local.f (x) }",
        """<domain: "local", opset_import: ["" : 12]> f (a) => (c) { c = ReduceSum <axes = [1], keepdims = 0> (a) }""",
    ), None, {"n": 3}, text("m (float[n, 2] x) => (float[n] y) <int64[1] a = {1}> { y = ReduceSum <keepdims = 0> (x, a) }")
    yield from both(
        "function_with_a_branch",
        "m (bool c, float[n, 2] x) => (float[n, 2] y) { y = local.f <slope = 0.25> (c, x) }",
        """<domain: "local", opset_import: ["" : 17]> f <slope> (c, a) => (d) {
               d = If (c) <then_branch = t () => (p) { p = LeakyRelu <alpha : float = @slope> (a) },
                           else_branch = e () => (q) { q = Neg (a) }>
           }""",
    )
    yield "function_with_a_missing_operand", text(
        "m (float[n, 2] x) => (float[n, 2] y) { y = local.f (x) }",
        """<domain: "local", opset_import: ["" : 17]> f (a, low, high) => (d) { d = Clip (a, low, high) }""",
    ), None, {"n": 3}


def tests():
    for group in (scopes, loops, scans, functions):
        yield from group()


if __name__ == "__main__":
    main(tests)

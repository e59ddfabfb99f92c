"""Writes small models with control flow and functions:  python control_models.py FOLDER

The first group is the list of failures that users of other engines report for branches.
"""
import re

import numpy as np
from onnx import parser

from small_models import main, weights

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


def counted():
    """Loops whose number of steps is known only when they run."""
    by_data = text("""
        m (int64 k, float[n, 2] x) => (float[n, 2] y, int64 last) <bool go = {1}, int64 zero = {0}> {
            o = Tanh (x)
            y, last = Loop (k, go, x, zero) <body = b (int64 i, bool ci, float[n, 2] v, int64 before) => (bool co, float[n, 2] u, int64 now)
            <float[2] w = {0.5, -1.5}> {
                co = Identity (ci)
                p = Mul (v, w)
                u = Add (p, o)
                now = Add (before, i)
            }>
        }""")
    for steps in (0, 1, 7, -3):
        yield f"counted_by_data_{steps}", by_data, {"k": np.array(steps)}, {"n": 3}
    until = text("""
        m (float[2] x, float limit) => (float[2] y, int64 steps) <int64 zero = {0}, int64 one = {1}> {
            s0 = ReduceSum <keepdims = 0> (x)
            c = Less (s0, limit)
            y, steps = Loop ( , c, x, zero) <body = b (int64 i, bool ci, float[2] v, int64 k) => (bool co, float[2] w, int64 q) {
                w = Add (v, v)
                q = Add (k, one)
                s = ReduceSum <keepdims = 0> (w)
                co = Less (s, limit)
            }>
        }""")
    for limit in (-1.0, 9.0, 1e6):
        inputs = {"x": np.array([0.5, 1.0], np.float32), "limit": np.array(limit, np.float32)}
        yield f"until_data_says_so_{limit:.0f}", until, inputs
    # A bound beyond what is made ready step by step, a condition of one element, values that change places, and a
    # branch inside of the step.
    both = text("""
        m (float[1] limit, float[n, 2] x) => (float[n, 2] y, float[n, 2] z) <int64[1] k = {1000}, bool[1] go = {1}> {
            h = Sigmoid (x)
            y, z = Loop (k, go, x, h) <body = b (int64 i, bool[1] ci, float[n, 2] v, float[n, 2] w) => (bool[1] co, float[n, 2] w1, float[n, 2] s) {
                w1 = Identity (w)
                f = Cast <to = 1> (i)
                d = Less (f, limit)
                s = If (d) <then_branch = t () => (float[n, 2] a) { a = Add (v, w) },
                            else_branch = e () => (float[n, 2] r) { r = Sub (v, h) }>
                five = Constant <value = float {5.0}> ()
                further = Add (limit, five)
                co = Less (f, further)
            }>
        }""")
    for limit in (-9.0, 0.0, 3.0):
        yield f"bound_and_condition_{limit:.0f}", both, {"limit": np.array([limit], np.float32)}, {"n": 2}
    rows = """
        m (float[n, 2] x, float[2] s0) => (float[2] y, float[k, 2] rows, int64[k] numbers) <bool go = {1}, int64 zero = {0}> {
            shape = Shape (x)
            count = Gather (shape, zero)
            y, rows, numbers = Loop (count, go, s0) <body = b (int64 i, bool ci, float[2] v) => (bool co, float[2] u, float[2] r, int64 j) {
                co = Identity (ci)
                e = Gather (x, i)
                r = Mul (e, v)
                u = Add (v, e)
                j = Identity (i)
            }>
        }"""
    for size in (0, 1, 5):
        yield f"as_often_as_a_size_{size}", text(rows), None, {"n": size}
    yield "many_steps", text("""
        m (float[2] x) => (float[2] y, float[k, 2] rows) <int64 k = {3000}, bool go = {1}, float[2] w = {0.9995, -0.999}> {
            y, rows = Loop (k, go, x) <body = b (int64 i, bool ci, float[2] v) => (bool co, float[2] u, float[2] r) {
                co = Identity (ci)
                u = Mul (v, w)
                r = Identity (v)
            }>
        }""")
    nested = text("""
        m (int64 k, float[2] x) => (float[2] y) <bool go = {1}, float[2] w = {0.5, 0.25}> {
            y = Loop (k, go, x) <body = b (int64 i, bool ci, float[2] v) => (bool co, float[2] u) {
                co = Identity (ci)
                h = Mul (v, w)
                u = Loop (i, ci, h) <body = bb (int64 j, bool cj, float[2] p) => (bool cq, float[2] q) {
                    s = Add (i, j)
                    f = Cast <to = 1> (s)
                    g = Mul (f, w)
                    q = Add (p, g)
                    r = ReduceSum <keepdims = 0> (q)
                    hundred = Constant <value = float {100.0}> ()
                    cq = Less (r, hundred)
                }>
            }>
        }""")
    yield "loop_counted_by_a_loop", nested, {"k": np.array(5)}
    yield "loop_around_no_steps", nested, {"k": np.array(1)}
    first = text("""
        m (float[2] x, float limit) => (float[2] y, int64 last) <bool go = {1}, int64[0] none = {}, int64 zero = {0}> {
            y, last = Loop ( , go, x, zero) <body = b (int64 i, bool ci, float[2] v, int64 before) => (bool co, float[2] w, int64 now) {
                w = Exp (v)
                now = Identity (i)
                s = ReduceSum <keepdims = 0> (w)
                co = Less (s, limit)
            }>
        }""")
    for limit in (-1.0, 30.0):
        inputs = {"x": np.array([0.5, -1.0], np.float32), "limit": np.array(limit, np.float32)}
        yield f"first_step_always_{limit:.0f}", first, inputs
    for name, c in (("then", TRUE), ("else", FALSE)):
        yield f"counted_in_a_branch_{name}", text("""
            m (bool c, int64 k, float[n, 2] x) => (float[n, 2] y) <bool go = {1}> {
                y = If (c) <then_branch = t () => (float[n, 2] a) {
                                a = Loop (k, go, x) <body = b (int64 i, bool ci, float[n, 2] v) => (bool co, float[n, 2] w) {
                                    co = Identity (ci)
                                    w = Sin (v)
                                }>
                            },
                            else_branch = e () => (float[n, 2] b) { b = Neg (x) }>
            }"""), {**c, "k": np.array(3)}, {"n": 3}


def symbolic_scans():
    body = """<num_scan_inputs = 2, ATTRIBUTES body = b (float[2] s, float[2] e, float[2] f) => (float[2] t, float[2] r, float q) {
        t = Add (s, e)
        h = Tanh (t)
        r = Mul (h, f)
        q = ReduceSum <keepdims = 0> (r)
    }>"""
    forms = {
        "": ("float[n, 2] x, float[n, 2] z", "float[n, 2] r", ""),
        "_backwards": ("float[n, 2] x, float[n, 2] z", "float[n, 2] r", "scan_input_directions = [1, 0], "),
        "_output_backwards": ("float[n, 2] x, float[n, 2] z", "float[n, 2] r", "scan_output_directions = [1, 0], "),
        "_other_axes": ("float[n, 2] x, float[2, n] z", "float[2, n] r", "scan_input_axes = [0, 1], scan_output_axes = [1, 0], "),
    }
    for name, (taken, given, attributes) in forms.items():
        node = "y, r, q = Scan (s0, x, z) " + body.replace("ATTRIBUTES", attributes)
        for size in (1, 6):
            proto = text(f"m (float[2] s0, {taken}) => (float[2] y, {given}, float[n] q) {{ {node} }}")
            yield f"symbolic_scan{name}_{size}", proto, None, {"n": size}


def recurrent():
    """Recurrent layers over sequences of symbolic length."""
    weight = weights(3)

    for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        for direction, count in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
            stored = ", ".join([weight("w", count, gates * 3, 2), weight("r", count, gates * 3, 3), weight("b", count, gates * 6)])
            results, given = ("y, h, c", "y, h, c") if op == "LSTM" else ("y, h", "y, h")
            declared = ", ".join(["float[n, d, m, 3] y"] + [f"float[d, m, 3] {name}" for name in given.split(", ")[1:]])
            proto = text(f"""
                m (float[n, m, 2] x) => ({declared}) <{stored}> {{
                    {results} = {op} <hidden_size = 3, direction = "{direction}"> (x, w, r, b)
                }}""")
            for size in (1, 5):
                yield f"{op}_{direction}_{size}", proto, None, {"n": size, "m": 2}
    chosen = (
        ("GRU", 3, 'activations = ["HardSigmoid", "Tanh"]'),
        ("GRU", 3, 'activations = ["HardSigmoid", "ScaledTanh"], activation_alpha = [0.3, 1.7], activation_beta = [0.4, 0.6]'),
        ("LSTM", 4, 'activations = ["Sigmoid", "LeakyRelu", "Elu"], activation_alpha = [0.2, 0.7]'),
        ("LSTM", 4, 'activations = ["HardSigmoid", "Softsign", "Tanh"]'),
        ("RNN", 1, 'activations = ["Softplus"]'),
        ("RNN", 1, 'activations = ["ThresholdedRelu"], activation_alpha = [0.1]'),
        ("RNN", 1, 'activations = ["Affine"], activation_alpha = [0.5], activation_beta = [0.25]'),
    )
    for k, (op, gates, attributes) in enumerate(chosen):
        stored = ", ".join([weight("w", 1, gates * 3, 2), weight("r", 1, gates * 3, 3), weight("b", 1, gates * 6)])
        yield f"{op}_of_functions_{k}", text(f"""
            m (float[n, m, 2] x) => (float[n, d, m, 3] y) <{stored}> {{
                y = {op} <hidden_size = 3, {attributes}> (x, w, r, b)
            }}"""), None, {"n": 3, "m": 2}
    lengths = np.array([4, 1, 2], np.int32)
    stored = ", ".join([weight("w", 1, 12, 2), weight("r", 1, 12, 3), weight("b", 1, 24)])
    yield "LSTM_of_different_lengths", text(f"""
        m (float[n, m, 2] x, int32[m] lengths) => (float[n, d, m, 3] y, float[d, m, 3] h) <{stored}> {{
            y, h = LSTM <hidden_size = 3> (x, w, r, b, lengths)
        }}"""), {"lengths": lengths}, {"n": 4, "m": 3}


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
    for group in (scopes, loops, counted, scans, symbolic_scans, recurrent, functions):
        yield from group()


if __name__ == "__main__":
    main(tests)

"""Writes small models whose sizes data decides:  python late_models.py FOLDER"""
import numpy as np
from onnx import numpy_helper, parser

from small_models import main, random

HEADER = '<ir_version: 9, opset_import: ["" : 18]>\n'


def text(body):
    return parser.parse_model(HEADER + body)


def f32(*values):
    return np.array(values, np.float32)


def selections():
    """Operators that give as many as data decides."""
    mask = text("""
        m (float[n, 3] x) => (int64[2, k] where, float[k] picked, int64 count, float[k2, 3] rows, float mean) <float zero = {0.0}, int64[1] axis = {1}> {
            c = Greater (x, zero)
            where = NonZero (c)
            t = Transpose (where)
            picked = GatherND (x, t)
            s = Shape (picked)
            count = ReduceSum <keepdims = 0> (s)
            e = Exp (picked)
            mean = ReduceSum <keepdims = 0> (e)
            b = ReduceSum <keepdims = 0> (x, axis)
            p = Less (b, zero)
            rows = Compress <axis = 0> (x, p)
        }""")
    yield "non_zero", mask, None, {"n": 7}
    yield "non_zero_none", mask, {"x": np.zeros((4, 3), np.float32)}
    yield "non_zero_all", mask, {"x": np.ones((4, 3), np.float32)}
    yield "non_zero_of_nothing", mask, {"x": np.zeros((0, 3), np.float32)}
    network = text("""
        m (float[n, 4] x) => (float[k, 3] y, float[n, 4] back) <int64[1] flat = {-1}, float zero = {0.0}, int64[1] one = {1}, int64[2] column = {-1, 1},
            float[4, 3] w = {0.5, -1.0, 0.25, 2.0, 1.0, -0.5, 0.125, 0.75, -2.0, 1.5, 0.3, -0.7}> {
            s = ReduceMean <keepdims = 0> (x, one)
            c = Greater (s, zero)
            r = NonZero (c)
            rows = Reshape (r, flat)
            h = Gather <axis = 0> (x, rows)
            g = MatMul (h, w)
            a = Softmax <axis = -1> (g)
            t = Transpose <perm = [1, 0]> (w)
            y = Relu (g)
            b = MatMul (a, t)
            at = Reshape (r, column)
            back = ScatterND (x, at, b)
        }""")
    for n in (1, 6):
        yield f"rows_through_a_network_{n}", network, None, {"n": n}
    parts = text("""
        m (float[n] x) => (float[m] y) <float zero = {0.0}, float least = {-1.0}, int64[1] first = {0}> {
            g = Greater (x, zero)
            ng = Not (g)
            a = NonZero (g)
            b = NonZero (ng)
            ai = Squeeze (a, first)
            bi = Squeeze (b, first)
            xa = Gather (x, ai)
            xb = Gather (x, bi)
            g2 = Greater (xb, least)
            ng2 = Not (g2)
            c = NonZero (g2)
            d = NonZero (ng2)
            ci = Squeeze (c, first)
            di = Squeeze (d, first)
            xc = Gather (xb, ci)
            xd = Gather (xb, di)
            y = Concat <axis = 0> (xa, xc, xd)
        }""")
    for n in (1, 7):
        yield f"parts_of_parts_{n}", parts, None, {"n": n}
    unique = text("""
        m (int64[n] x, float[n, 2] z) => (int64[k] y, int64[k] first, int64[n] inverse, int64[k] counts, int64[k2] again, float[k3, 2] rows, int64[k2] doubled) {
            y, first, inverse, counts = Unique (x)
            again = Unique <sorted = 0> (x)
            f = Floor (z)
            rows = Unique <axis = 0> (f)
            doubled = Add (again, again)
        }""")
    yield "unique", unique, {"x": np.array([3, 1, 3, 2, 1, 3])}, {"n": 6}
    yield "unique_one", unique, {"x": np.array([5])}, {"n": 1}
    boxes = text("""
        m (float[1, n, 4] boxes, float[1, 2, n] scores) => (int64[k, 3] kept, float[k, 4] corners)
        <int64[1] axis = {1}, int64[1] first = {0}, int64[1] most = {3}, float[1] overlap = {0.5}, float[1] least = {0.1}, int64[1] two = {2}> {
            kept = NonMaxSuppression (boxes, scores, most, overlap, least)
            last = Gather <axis = 1> (kept, two)
            at = Squeeze (last, axis)
            all = Squeeze (boxes, first)
            corners = Gather <axis = 0> (all, at)
        }""")
    corners = np.random.default_rng(5).uniform(0, 1, (1, 9, 4)).astype(np.float32)
    scores = np.random.default_rng(6).uniform(0, 1, (1, 2, 9)).astype(np.float32)
    unlimited = text("""
        m (float[1, n, 4] boxes, float[1, 2, n] scores) => (int64[k, 3] kept) <int64 most = {9223372036854775807}, float overlap = {0.5}> {
            kept = NonMaxSuppression (boxes, scores, most, overlap)
        }""")
    yield "boxes_without_limit", unlimited, {"boxes": corners, "scores": scores}
    yield "boxes", boxes, {"boxes": corners, "scores": scores}
    yield "boxes_none", boxes, {"boxes": corners, "scores": scores * 0}
    flat = text("""
        m (float[n, 2] x, bool[n] c, bool[m] d) => (float[k, 2] rows, float[k2] some, float[k, 2] sum) {
            rows = Compress <axis = 0> (x, c)
            some = Compress (x, d)
            again = Compress <axis = 0> (x, c)
            sum = Add (rows, again)
        }""")
    yield "compress", flat, {"d": np.array([True, False, True])}, {"n": 5, "m": 3}


def sizes():
    """Sizes that the model computes from data."""
    count = "p = Greater (x, zero)  i = Cast <to = 7> (p)  k = ReduceSum <keepdims = 0> (i)  k1 = Unsqueeze (k, first)"
    stored = "<float zero = {0.0}, int64[1] first = {0}, int64 none = {0}, int64 one = {1}, int64[1] ones = {1}, int64 two = {2}>"
    made = text(f"""
        m (float[n] x) => (int64[k] r, float[k, 2] zeros, float[k, 3] wide, float[t] tiled, int64[k] from_one, int64[q] odd, int64[k] down, float[k] best) {stored} {{
            {count}
            r = Range (none, k, one)
            twos = Constant <value_ints = [2]> ()
            shape = Concat <axis = 0> (k1, twos)
            zeros = ConstantOfShape (shape)
            three = Constant <value_floats = [1.0, 2.0, 3.0]> ()
            threes = Constant <value_ints = [3]> ()
            to = Concat <axis = 0> (k1, threes)
            wide = Expand (three, to)
            pair = Constant <value_floats = [4.0, 5.0]> ()
            tiled = Tile (pair, k1)
            above = Add (k, one)
            from_one = Range (one, above, one)
            odd = Range (one, k, two)
            back = Constant <value_int = -1> ()
            down = Range (k, none, back)
            best, places = TopK (x, k1)
        }}""")
    for n in (1, 8):
        yield f"made_of_a_count_{n}", made, None, {"n": n}
    yield "made_of_a_count_of_0", made, {"x": f32(-1, -2)}
    cut = text("""
        m (float[n, 3] x, int64[1] a, int64[1] b) => (float[p, 3] part, float[q, 3] by_two, float[r, 3] back, float[2, 3] pair, float[s, 3] tail, float[q, 3] of_late) <int64[1] axis = {0}, int64[1] two = {2}, int64[1] back1 = {-1}, int64[1] far = {9223372036854775807}> {
            part = Slice (x, a, b, axis)
            by_two = Slice (x, a, b, axis, two)
            back = Slice (x, b, a, axis, back1)
            end = Add (a, two)
            pair = Slice (x, a, end, axis)
            tail = Slice (x, a, far, axis)
            zero = Constant <value_ints = [0]> ()
            of_late = Slice (part, zero, far, axis, two)
        }""")
    for a, b in ((0, 4), (1, 5), (2, 2), (1, -1), (-4, 99)):
        yield f"slice_{a}_{b}", cut, {"a": np.array([a]), "b": np.array([b])}, {"n": 6}
    tail = text("""
        m (float[n, 3] x) => (float[1, 3] last, float[p, 3] rest, float[p2, 3] reversed) <float zero = {0.0}, int64[1] axis = {0}, int64[1] back = {-1}, int64[1] far = {9223372036854775807}, int64[1] one = {1}, int64[1] near = {-9223372036854775807}> {
            s = ReduceMean <keepdims = 0> (x, one)
            c = Greater (s, zero)
            rows = Compress <axis = 0> (x, c)
            last = Slice (rows, back, far, axis)
            rest = Slice (rows, one, far, axis)
            reversed = Slice (rows, back, near, axis, back)
        }""")
    yield "parts_of_late_rows", tail, {"x": np.abs(np.random.default_rng(3).standard_normal((4, 3))).astype(np.float32)}
    split = text("""
        m (float[n, 2] x) => (float[p, 2] a, float[q, 2] b) <float zero = {0.0}, int64[1] one = {1}> {
            s = ReduceMean <keepdims = 0> (x, one)
            c = Greater (s, zero)
            i = Cast <to = 7> (c)
            k = ReduceSum <keepdims = 1> (i)
            d = Shape <start = 0, end = 1> (x)
            rest = Sub (d, k)
            parts = Concat <axis = 0> (k, rest)
            a, b = Split <axis = 0> (x, parts)
        }""")
    yield "split", split, None, {"n": 5}
    signs = text("""
        m (bool[n] c, float[n, 3] z) => (float[k, 3] last, float[k2, 3] before, float[k3, 3] near, float[k4, 3] nearer, int64[k5] numbers)
        <int64[1] first = {0}, int64[1] three = {3}, int64[1] far = {9223372036854775807}, int64 none = {0}, int64 one = {1}> {
            i = Cast <to = 7> (c)
            k = ReduceSum <keepdims = 1> (i)
            count = Squeeze (k)
            numbers = Range (none, count, one)
            back = Neg (k)
            off = Sub (k, three)
            last = Slice (z, back, far, first)
            before = Slice (z, first, back, first)
            near = Slice (z, off, far, first)
            nearer = Slice (z, first, off, first)
        }""")
    for count in (0, 1, 3, 5):
        yield f"bounds_of_either_sign_{count}", signs, {"c": np.arange(6) < count}, {"n": 6}
    turned = text("""
        m (bool[n] c, float[a, n] x) => (float[a, k] y, float[a2, k2] z) {
            kept = Compress <axis = 1> (x, c)
            end = Constant <value_ints = [-9223372036854775808]> ()
            last = Constant <value_ints = [-1]> ()
            axis = Constant <value_ints = [0]> ()
            two = Constant <value_ints = [2]> ()
            most = Constant <value_ints = [9223372036854775807]> ()
            down = Slice (kept, last, end, axis, last)
            y = Relu (down)
            one = Constant <value_ints = [1]> ()
            part = Slice (kept, one, most, axis)
            z = Tanh (part)
        }""")
    for count in (0, 2, 5):
        yield f"open_axes_beside_one_of_data_{count}", turned, {"c": np.arange(5) < count}, {"n": 5, "a": 3}
    padded = text("""
        m (bool[n] c, float[n, 2] x, float last) => (float[m, 2] y, float[m2, 2] z) <int64[1] first = {0}, int64[1] one = {1}> {
            i = Cast <to = 7> (c)
            k = ReduceSum <keepdims = 1> (i)
            amounts = Concat <axis = 0> (k, first, one, first)
            y = Pad (x, amounts, last)
            z = Pad <mode = "edge"> (x, amounts)
        }""")
    for name, c in (("some", [True, False, True]), ("none", [False] * 3)):
        yield f"padded_by_a_count_{name}", padded, {"c": np.array(c)}, {"n": 3}
    shaped = text("""
        m (float[n, 6] x, int64[1] k) => (float[a, b, 2] y) <int64[2] rest = {3, 2}> {
            shape = Concat <axis = 0> (k, rest)
            y = Reshape (x, shape)
        }""")
    yield "reshape", shaped, {"k": np.array([4])}, {"n": 4}


def branches():
    """Branches that give results of different sizes."""
    def both(name, body, sizes=None, **inputs):
        for truth in (True, False):
            yield f"{name}_{'then' if truth else 'else'}", text(body), {"c": np.array(truth), **inputs}, sizes or {"n": 3}

    yield from both("constant_sizes", """
        m (bool c, float[2, 3] x) => (float[k, j] y, float[k] sums, float[j, 3] z) <int64[1] one = {1}, float[3, 3] w = {1.0, 2.0, 3.0, -1.0, 0.5, 0.25, 0.0, 1.0, 2.0}> {
            y = If (c) <then_branch = t () => (float[4, 3] a) { a = Concat <axis = 0> (x, x) },
                        else_branch = e () => (float[2, 6] b) { b = Concat <axis = 1> (x, x) }>
            sums = ReduceSum <keepdims = 0> (y, one)
            s = Shape (y)
            z = If (c) <then_branch = t2 () => (float[3, 3] a2) { a2 = Identity (w) },
                        else_branch = e2 () => (float[2, 3] b2) { b2 = MatMul (x, w) }>
        }""")
    yield from both("symbolic_sizes", """
        m (bool c, float[n, 2] x, int64[n] i) => (float[k, 2] y, int64[k] j, float[n, 2] same) {
            y, j, same = If (c) <then_branch = t () => (float[p, 2] a, int64[p] ai, float[n, 2] s) {
                    a = Concat <axis = 0> (x, x)  ai = Concat <axis = 0> (i, i)  s = Neg (x) },
                  else_branch = e () => (float[q, 2] b, int64[q] bi, float[n, 2] r) {
                    zero = Constant <value_ints = [0]> ()  one = Constant <value_ints = [1]> ()
                    b = Slice (x, zero, one, zero)  bi = Slice (i, zero, one, zero)  r = Exp (x) }>
        }""")
    yield from both("sizes_of_data_inside", """
        m (bool c, float[n, 2] x) => (float[k, 2] y, float[k, 2] z) <float zero = {0.0}, int64[1] one = {1}> {
            s = ReduceMean <keepdims = 0> (x, one)
            y = If (c) <then_branch = t () => (float[p, 2] a) { m = Greater (s, zero)  a = Compress <axis = 0> (x, m) },
                        else_branch = e () => (float[n, 2] b) { b = Neg (x) }>
            z = Tanh (y)
        }""", {"n": 5})
    yield from both("a_branch_in_a_branch", """
        m (bool c, bool d, float[n] x) => (float[k] y) {
            y = If (c) <then_branch = t () => (float[p] a) {
                    a = If (d) <then_branch = tt () => (float[q] aa) { aa = Concat <axis = 0> (x, x) },
                                else_branch = te () => (float[n] ab) { ab = Exp (x) }> },
                  else_branch = e () => (float[r] b) { b = Concat <axis = 0> (x, x, x) }>
        }""", d=np.array(True))
    yield from both("shapes_of_branches", """
        m (bool c, float[n, 2] x) => (int64[2] shape, float[n] ramp) {
            shape, ramp = If (c) <then_branch = t () => (int64[2] a, float[n] ra) {
                    a = Shape (x)
                    n = Size (x)  zero = Constant <value_int = 0> ()  two = Constant <value_int = 2> ()
                    r = Range (zero, n, two)  ra = Cast <to = 1> (r) },
                  else_branch = e () => (int64[2] b, float[n] rb) {
                    b = Constant <value_ints = [1, -1]> ()
                    one = Constant <value_ints = [1]> ()  rb = ReduceMax <keepdims = 0> (x, one) }>
        }""")
    empty = text("""
        m (float[n, 2] x) => (float[k, 2] y, float[n, 2] whole) <float zero = {0.0}, int64[1] one = {1}, int64[1] flat = {-1}, int64 none = {0}> {
            s = ReduceMean <keepdims = 0> (x, one)
            c = Greater (s, zero)
            r = NonZero (c)
            rows = Reshape (r, flat)
            n = Size (rows)
            any = Greater (n, none)
            y = If (any) <then_branch = t () => (float[p, 2] a) { g = Gather <axis = 0> (x, rows)  a = Tanh (g) },
                          else_branch = e () => (float[q, 2] b) { z = Constant <value_ints = [0, 2]> ()  b = ConstantOfShape (z) }>
            other = Not (c)
            r2 = NonZero (other)
            rows2 = Reshape (r2, flat)
            rest = Gather <axis = 0> (x, rows2)
            joined = Concat <axis = 0> (y, rest)
            whole = Add (joined, x)
        }""")
    yield "rows_of_one_kind", empty, None, {"n": 6}
    yield "rows_of_one_kind_none", empty, {"x": -np.ones((3, 2), np.float32)}
    yield "rows_of_one_kind_all", empty, {"x": np.ones((3, 2), np.float32)}


def loops():
    """Loops whose carried values change their size, and whose rows data counts."""
    until = text("""
        m (float[2] x, float limit) => (float[2] y, float[k, 2] rows, int64[k] numbers, float[2] sum) <int64 m = {40}, bool go = {1}, int64[1] axis = {0}> {
            y, rows, numbers = Loop (m, go, x) <body = b (int64 i, bool ci, float[2] v) => (bool co, float[2] w, float[2] r, int64 j) {
                w = Add (v, x)
                r = Identity (v)
                j = Identity (i)
                s = ReduceSum <keepdims = 0> (w)
                co = Less (s, limit)
            }>
            sum = ReduceSum <keepdims = 0> (rows, axis)
        }""")
    for limit in (-1.0, 9.0, 30.0, 1e6):
        yield f"rows_until_{limit:.0f}", until, {"x": f32(0.5, 1.0), "limit": f32(limit).reshape(())}
    by_data = text("""
        m (bool[n] c, float[n, 2] x) => (float[k, 2] rows, float[2] last) <bool go = {1}, int64[1] axis = {0}> {
            i = Cast <to = 7> (c)
            k = ReduceSum <keepdims = 0> (i)
            start = ReduceMax <keepdims = 0> (x, axis)
            last, rows = Loop (k, go, start) <body = b (int64 i, bool ci, float[2] v) => (bool co, float[2] w, float[2] r) {
                co = Identity (ci)
                e = Gather (x, i)
                w = Add (v, e)
                r = Mul (e, v)
            }>
        }""")
    for name, c in (("some", [True, False, True, True]), ("none", [False] * 4), ("all", [True] * 4)):
        yield f"rows_counted_by_data_{name}", by_data, {"c": np.array(c)}, {"n": 4}
    grows = text("""
        m (bool[n] c, float[n, 2] x) => (float[k, 2] y, float[k] sums) <bool go = {1}, int64[1] axis = {1}> {
            i = Cast <to = 7> (c)
            k = ReduceSum <keepdims = 0> (i)
            y = Loop (k, go, x) <body = b (int64 i, bool ci, float[p, 2] v) => (bool co, float[q, 2] w) {
                co = Identity (ci)
                t = Tanh (v)
                a = Constant <value_ints = [0]> ()
                z = Constant <value_ints = [1]> ()
                e = Slice (x, a, z, a)
                w = Concat <axis = 0> (t, e)
            }>
            sums = ReduceSum <keepdims = 0> (y, axis)
        }""")
    for name, c in (("some", [True, False, True]), ("none", [False] * 3)):
        yield f"carried_grows_{name}", grows, {"c": np.array(c)}, {"n": 3}
    greedy = text("""
        m (int64[1] start, float[5, 5] w, int64 stop) => (int64[k] tokens, int64 steps) <int64 m = {30}, bool go = {1}, int64 none = {0}, int64 one = {1}> {
            tokens, steps = Loop (m, go, start, none) <body = b (int64 i, bool ci, int64[p] before, int64 s) => (bool co, int64[q] after, int64 t) {
                back = Constant <value_int = -1> ()
                last = Gather (before, back)
                row = Gather (w, last)
                next = ArgMax <keepdims = 1> (row)
                after = Concat <axis = 0> (before, next)
                t = Add (s, one)
                scalar = Squeeze (next)
                differs = Equal (scalar, stop)
                co = Not (differs)
            }>
        }""")
    chain = np.zeros((5, 5), np.float32)
    for at, to in enumerate([2, 4, 1, 3, 0]):
        chain[at, to] = 1.0
    for stop in (2, 4, 0, 3):
        yield f"greedy_until_{stop}", greedy, {"start": np.array([0]), "w": chain, "stop": np.array(stop)}
    shrinks = text("""
        m (float[n] x, float limit) => (float[k] y) <int64 m = {25}, bool go = {1}> {
            y = Loop (m, go, x) <body = b (int64 i, bool ci, float[p] v) => (bool co, float[q] w) {
                d = Less (v, limit)
                kept = Compress <axis = 0> (v, d)
                w = Add (kept, kept)
                n = Size (w)
                zero = Constant <value_int = 0> ()
                co = Greater (n, zero)
            }>
        }""")
    yield "carried_shrinks", shrinks, {"x": f32(0.1, 3.0, 0.7, 0.01), "limit": f32(2.0).reshape(())}
    drops = text("""
        m (float[n, 3] x, int64 steps, float limit) => (float[k, 3] fewer, float[j, 3] halves, float[i, 3] rest) <bool go = {1}> {
            fewer = Loop (steps, go, x) <body = b (int64 i, bool ci, float[p, 3] v) => (bool co, float[q, 3] w) {
                co = Identity (ci)
                one = Constant <value_ints = [1]> ()
                end = Constant <value_ints = [9223372036854775807]> ()
                w = Slice (v, one, end)
            }>
            halves = Loop (steps, go, x) <body = h (int64 i, bool ci, float[p, 3] v) => (bool co, float[q, 3] w) {
                co = Identity (ci)
                zero = Constant <value_ints = [0]> ()
                two = Constant <value_ints = [2]> ()
                s = Shape <start = 0, end = 1> (v)
                half = Div (s, two)
                part = Slice (v, zero, half)
                w = Tanh (part)
            }>
            none = Constant <value_int = 1000> ()
            rest = Loop (none, go, x) <body = r (int64 i, bool ci, float[p, 3] v) => (bool co, float[q, 3] w) {
                one = Constant <value_ints = [1]> ()
                end = Constant <value_ints = [9223372036854775807]> ()
                w = Slice (v, one, end)
                sum = ReduceSum <keepdims = 0> (w)
                co = Greater (sum, limit)
            }>
        }""")
    for steps in (0, 2, 9):
        given = {"steps": np.array(steps), "limit": f32(2.0).reshape(()), "x": np.full((6, 3), 0.3, np.float32)}
        yield f"carried_loses_{steps}_rows", drops, given
    stretch = text("""
        m (int64 k, float[n, 2] x) => (float[2, 2] y) <bool go = {1}, int64[1] axis = {0}, int64 one = {1}, float[2, 2] s0 = {0.0, 0.0, 0.0, 0.0}> {
            y = Loop (k, go, s0) <body = b (int64 i, bool ci, float[2, 2] v) => (bool co, float[2, 2] w) {
                co = Identity (ci)
                first = Unsqueeze (i, axis)
                two = Constant <value_ints = [2]> ()
                end = Add (first, two)
                part = Slice (x, first, end, axis)
                w = Add (v, part)
            }>
        }""")
    yield "a_stretch_in_every_step", stretch, {"k": np.array(3)}, {"n": 5}
    guarded = text("""
        m (float[2] x, float limit) => (float[k] y) <int64 m = {5}, bool go = {1}> {
            y = Loop (m, go, x) <body = b (int64 i, bool ci, float[p] v) => (bool co, float[q] w) {
                w = Concat <axis = 0> (v, x)
                s = ReduceSum <keepdims = 0> (w)
                co = Less (s, limit)
            }>
        }""")
    for limit in (0.0, 4.0, 99.0):
        yield f"a_few_steps_until_{limit:.0f}", guarded, {"x": f32(0.5, 1.0), "limit": f32(limit).reshape(())}


def windows():
    """Windows over images of which data decides the height, and over signals of which it decides the length."""

    def over(operand, body, outputs, **weights):
        """`body` over x, of which `c` says the rows that are kept."""
        proto = text(f"m (bool[n] c, float[{operand}] a) => ({outputs}) {{ x = Compress <axis = 2> (a, c) {body} }}")
        arrays = {name: random(len(dims) + dims[0], *dims) for name, dims in weights.items()}
        proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
        return proto

    def of(name, proto, *counts, n=9):
        for count in counts:
            kept = np.arange(n) * 5 % n < count
            yield f"{name}_of_{count}", proto, {"c": kept}, {"n": n}

    image, signal = "2, 4, n, 7", "2, 4, n"
    y = "float[b, f, h, w] y"
    yield from of("pointwise", over(image, "y = Conv (x, w, v)", y, w=(5, 4, 1, 1), v=(5,)), 1, 4, 9)
    yield from of("direct", over(image, "h = Conv <pads = [1, 1, 1, 1]> (x, w, v) y = Relu (h)", y, w=(24, 4, 3, 3), v=(24,)), 1, 2, 6, 9)
    yield from of("residual", over(image, "h = Conv <pads = [1, 1, 1, 1]> (x, w) s = Add (h, x) y = Relu (s)", y, w=(4, 4, 3, 3)), 1, 6)
    yield from of("unpadded", over(image, "h = Conv (x, w) r = Relu (h) y = Conv <strides = [2, 2]> (r, u)", y, w=(16, 4, 3, 3), u=(6, 16, 3, 3)), 5, 6, 7, 9)
    yield from of("dilated", over(image, "y = Conv <dilations = [3, 2], pads = [1, 0, 0, 1]> (x, w)", y, w=(20, 4, 3, 3)), 6, 7, 9)
    yield from of("grouped", over(image, "y = Conv <group = 2, pads = [0, 1, 0, 1]> (x, w)", y, w=(32, 2, 3, 3)), 3, 4, 9)
    yield from of("depthwise", over(image, "y = Conv <group = 4, pads = [0, 1, 0, 1], strides = [2, 1]> (x, w)", y, w=(4, 1, 3, 3)), 3, 4, 9)
    wide = "2, 4, n, 40"
    yield from of("planar", over(wide, "y = Conv <pads = [0, 1, 0, 1]> (x, w)", y, w=(3, 4, 3, 3)), 3, 4, 9)
    yield from of("by_a_computed_weight", over(image, "u = Tanh (w) y = Conv (x, u)", y, w=(9, 4, 3, 3)), 3, 9)
    line = "float[b, f, l] y"
    yield from of("signal", over(signal, "y = Conv <pads = [1, 0], strides = [2]> (x, w)", line, w=(16, 4, 3)), 2, 3, 40, 64, n=64)
    yield from of("signal_pool", over(signal, "y = MaxPool <kernel_shape = [3]> (x)", line), 3, 4, 64, n=64)
    yield from of("transposed", over(image, "y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w, v)", y, w=(4, 6, 3, 3), v=(6,)), 1, 2, 9)
    yield from of("transposed_unit", over(image, "y = ConvTranspose (x, w)", y, w=(4, 6, 3, 3)), 0, 1, 9)
    yield from of("max", over(image, "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (x)", y), 3, 4, 9)
    yield from of("max_ceil", over(image, "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (x)", y), 3, 4, 9)
    yield from of("average", over(image, "y = AveragePool <kernel_shape = [2, 2], pads = [1, 1, 0, 0]> (x)", y), 1, 2, 9)
    yield from of("average_with_pads", over(image, "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (x)", y), 1, 2, 9)
    yield from of("global", over(image, "m = GlobalMaxPool (x) e = GlobalAveragePool (x) y = Sub (m, e)", y), 1, 2, 9)
    yield from of("lp", over(image, "y = LpPool <kernel_shape = [2, 2]> (x)", y), 2, 9)
    yield from of("same", over(image, """h = Conv <auto_pad = "SAME_UPPER"> (x, w) p = MaxPool <auto_pad = "SAME_LOWER", kernel_shape = [2, 2]> (h)
        y = AveragePool <auto_pad = "SAME_UPPER", kernel_shape = [3, 2]> (p)""", y, w=(8, 4, 3, 3)), 1, 2, 5, 9)
    open = over("2, 4, n, w", "y = Conv (x, f) p = MaxPool <kernel_shape = [3, 3]> (x)", y + ", float[b2, f2, h2, w2] p", f=(8, 4, 3, 3))
    for count, w in ((3, 3), (5, 8), (9, 4)):
        yield f"windows_of_open_width_{count}_{w}", open, {"c": np.arange(9) < count}, {"n": 9, "w": w}
    yield from of("network", over(image, """h = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu (h) p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
        g = Conv <group = 16, pads = [1, 1, 1, 1]> (p, d) q = Clip (g) s = Add (q, p) t = Conv (s, u) y = GlobalAveragePool (t)""",
        y, w=(16, 4, 3, 3), d=(16, 1, 3, 3), u=(5, 16, 1, 1)), 2, 3, 9)
    volume = "1, 2, n, 4, 5"
    yield from of("volume", over(volume, "y = Conv (x, w)", "float[b, f, d, h, w2] y", w=(3, 2, 2, 2, 2)), 2, 5)
    both = text("""
        m (bool[n] r, bool[w] s, float[2, 3, n, w] a) => (float[b, f, p, q] y, float[b, f, i, j] z) {
            rows = Compress <axis = 2> (a, r)
            x = Compress <axis = 3> (rows, s)
            y = MaxPool <kernel_shape = [2, 3]> (x)
            z = Conv <pads = [0, 0, 1, 1]> (x, filters)
        }""")
    both.graph.initializer.append(numpy_helper.from_array(random(3, 8, 3, 2, 2), "filters"))
    for p, q in ((2, 3), (4, 9), (7, 5)):
        yield f"height_and_width_{p}_{q}", both, {"r": np.arange(7) < p, "s": np.arange(9) >= 9 - q}, {"n": 7, "w": 9}
    cut = text("""
        m (float[1, 3, n, 6] x, int64[1] a, int64[1] b) => (float[1, 8, k, 5] y) <int64[1] axis = {2}> {
            part = Slice (x, a, b, axis)
            y = Conv (part, filters)
        }""")
    cut.graph.initializer.append(numpy_helper.from_array(random(4, 8, 3, 2, 2), "filters"))
    for a, b in ((0, 2), (1, 8), (-4, 99)):
        yield f"windows_of_a_slice_{a}_{b}", cut, {"a": np.array([a]), "b": np.array([b])}, {"n": 8}
    guarded = text("""
        m (bool[n] c, float[1, 3, n, 5] a) => (float[b, f, k, q] y) <int64 least = {3}> {
            x = Compress <axis = 2> (a, c)
            i = Cast <to = 7> (c)
            k = ReduceSum <keepdims = 0> (i)
            small = Less (k, least)
            y = If (small) <then_branch = t () => (float[b1, f1, k1, q1] as_it_is) { as_it_is = Neg (x) },
                            else_branch = e () => (float[b2, f2, k2, q2] largest) { largest = MaxPool <kernel_shape = [3, 3]> (x) }>
        }""")
    for count in (1, 2, 3, 6):
        yield f"windows_where_they_fit_{count}", guarded, {"c": np.arange(6) < count}, {"n": 6}


    few = "data makes it a size of -"
    small = "y = MaxPool <kernel_shape = [3, 3]> (x)"
    for name, body, count in (("pool", small, 1), ("global", "y = GlobalAveragePool (x)", 0)):
        yield f"too_few_for_{name}", over(image, body, y), {"c": np.arange(5) < count}, {"n": 5}, None, few
    after = over(image, "h = Conv (x, w) y = Conv (h, u)", y, w=(6, 4, 2, 2), u=(4, 6, 3, 3))
    for count in (0, 3):
        yield f"too_few_for_convolutions_{count}", after, {"c": np.arange(5) < count}, {"n": 5}, None, few


def tests():
    for family in (selections, sizes, branches, loops, windows):
        for name, proto, inputs, *given in family():
            sizes_of, *judged = given or [None]
            yield name, proto, inputs, {"n": 3, **(sizes_of or {})}, *judged


if __name__ == "__main__":
    main(tests)

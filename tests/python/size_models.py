"""Writes small models of images and sequences whose sizes a run decides:  python size_models.py FOLDER"""
import numpy as np
from onnx import parser

from small_models import main, weights

HEADER = '<ir_version: 9, opset_import: ["" : 18]>\n'


def text(body):
    return parser.parse_model(HEADER + body)


def listed(values):
    return "{" + ", ".join(map(str, values)) + "}"


def joined(name, attributes):
    """The attributes of one node as text, and a name made of them."""
    words = "_".join(str(value).strip('"') for value in attributes.values())
    return f"{name}_{words}", ", ".join(f"{key} = {value}" for key, value in attributes.items())


COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def ways(mode, coordinates=COORDINATES, more=({},)):
    """The attributes of a `Resize` in several ways."""
    for coordinate in coordinates:
        for extra in more:
            yield {"mode": f'"{mode}"', "coordinate_transformation_mode": f'"{coordinate}"', **extra}


ROUNDED = [{"nearest_mode": f'"{rounding}"'} for rounding in ROUNDINGS]
FORMS = {
    "nearest": list(ways("nearest", more=ROUNDED)),
    "linear": list(ways("linear")),
    "cubic": list(ways("cubic")) + list(ways("cubic", ("half_pixel",), ({"exclude_outside": 1, "cubic_coeff_a": -0.5},))),
}


def resized(forms, operands):
    """One `Resize` per form: its nodes, and its results as they are declared."""
    nodes, declared = [], []
    for attributes in forms:
        name, given = joined("y", attributes)
        name = name.replace("-", "m").replace(".", "_")
        nodes.append(f"{name} = Resize <{given}> ({operands})")
        declared.append(f"float[a, b, c, d] {name}")
    return "\n".join(nodes), ", ".join(declared)


def scales():
    """`Resize` by constant scales."""
    for name, forms in FORMS.items():
        for by in ((2.0, 2.0), (1.0, 3.0), (1.5, 0.6), (0.5, 1.2)):
            # Of targets that are no whole numbers the specification aligns corners of what was not cut off, ONNX Runtime of
            # what was; and which of two elements is the nearest one to the middle between them, rounding decides.
            unclear = () if all(scale == int(scale) for scale in by) else ('"align_corners"', '"half_pixel_symmetric"')
            kept = [form for form in forms if form["coordinate_transformation_mode"] not in unclear]
            nodes, declared = resized(kept, "x, , scales")
            proto = text(f"m (float[n, 2, h, w] x) => ({declared}) <float[4] scales = {listed((1.0, 1.0) + by)}> {{ {nodes} }}")
            for h, w in ((2, 2), (3, 5), (10, 7)):
                yield f"scaled_{name}_{by[0]}_{by[1]}_{h}_{w}", proto, None, {"n": 2, "h": h, "w": w}
        if name != "cubic":
            nodes, declared = resized(forms, "x, , scales")
            proto = text(f"m (float[n, 2, h, w] x) => ({declared}) <float[4] scales = {{1.0, 1.0, 2.0, 2.0}}> {{ {nodes} }}")
            yield f"scaled_{name}_of_one", proto, None, {"n": 1, "h": 1, "w": 1}


def sized(forms, h, w, p, q):
    """`Resize` of an image of these dims to those of another."""
    nodes, declared = resized(forms, "x, , , to")
    return text(f"""
        m (float[n, 2, {h}, {w}] x, float[n, 3, {p}, {q}] like) => ({declared}) <int64[1] zero = {{0}}, int64[1] two = {{2}}, int64[1] four = {{4}}> {{
            own = Shape (x)
            lead = Slice (own, zero, two, zero)
            other = Shape (like)
            image = Slice (other, two, four, zero)
            to = Concat <axis = 0> (lead, image)
            {nodes}
        }}""")


def sizes_of_others():
    """`Resize` to the size of another image, as in a feature pyramid."""
    for name, forms in FORMS.items():
        proto = sized(forms, *"hwpq")
        for h, w, p, q in ((1, 2, 4, 1), (3, 5, 7, 10), (8, 9, 3, 4), (4, 4, 4, 4), (6, 5, 10, 13)):
            yield f"sized_{name}_{h}_{w}_to_{p}_{q}", proto, None, {"n": 2, "h": h, "w": w, "p": p, "q": q}
    # Results in the middle between two elements, or at one, as far as float32 can tell.
    clear = [form for form in FORMS["nearest"] if form["coordinate_transformation_mode"] != '"half_pixel_symmetric"']
    for h, w, p, q in ((36, 20, 78, 26), (49, 29, 14, 84), (61, 26, 81, 53), (61, 48, 77, 78), (75, 50, 9, 55)):
        sizes = {"n": 1, "h": h, "w": w, "p": p, "q": q}
        yield f"middles_{h}_{w}_to_{p}_{q}", sized(clear, *"hwpq"), None, sizes
        yield f"middles_of_known_sizes_{h}_{w}_to_{p}_{q}", sized(clear, h, w, p, q), None, sizes


def older_and_newer_forms():
    """`Upsample`, `Resize` as it was first, and `Resize` of listed axes."""
    for op, opset in (("Upsample", 9), ("Resize", 10)):
        proto = parser.parse_model(HEADER.replace("18", str(opset)) + f"""
            m (float[n, 2, h, w] x) => (float[n, 2, a, b] nearest, float[n, 2, a, b] linear) <float[4] scales = {{1.0, 1.0, 2.0, 3.0}}> {{
                nearest = {op} <mode = "nearest"> (x, scales)
                linear = {op} <mode = "linear"> (x, scales)
            }}""")
        for h, w in ((1, 1), (3, 4)):
            yield f"{op}_{opset}_{h}_{w}", proto, None, {"n": 2, "h": h, "w": w}
    proto = text("""
        m (float[n, 2, h, w] x) => (float[n, 2, a, w] y) <int64[1] three = {3}, int64[1] zero = {0}> {
            s = Shape (x)
            far = Constant <value_ints = [4]> ()
            to = Slice (s, three, far, zero)
            y = Resize <mode = "linear", axes = [2]> (x, , , to)
        }""")
    for h, w in ((1, 5), (7, 4)):
        yield f"listed_axes_{h}_{w}", proto, None, {"n": 1, "h": h, "w": w}


def networks():
    """Resized images between convolutions, of sizes computed in several ways."""
    weight = weights(1, 0.4)

    pyramid = text(f"""
        m (float[n, 3, h, w] x) => (float[n, 4, a, b] y, float[n, 4, c, d] z) <{weight("w1", 4, 3, 3, 3)}, {weight("w2", 4, 4, 3, 3)}, {weight("w3", 4, 4, 3, 3)}, {weight("w4", 4, 4, 1, 1)},
            int64[1] zero = {{0}}, int64[1] two = {{2}}, int64[1] four = {{4}}> {{
            c1 = Conv <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x, w1)
            r1 = Relu (c1)
            c2 = Conv <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (r1, w2)
            r2 = Relu (c2)
            c3 = Conv <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (r2, w3)
            s2 = Shape (r2)
            i2 = Slice (s2, two, four, zero)
            s3 = Shape (c3)
            l3 = Slice (s3, zero, two, zero)
            t2 = Concat <axis = 0> (l3, i2)
            u2 = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (c3, , , t2)
            a2 = Add (u2, r2)
            y = Conv <kernel_shape = [1, 1]> (a2, w4)
            s1 = Shape (r1)
            i1 = Slice (s1, two, four, zero)
            t1 = Concat <axis = 0> (l3, i1)
            u1 = Resize <mode = "linear", coordinate_transformation_mode = "pytorch_half_pixel"> (a2, , , t1)
            sum = Add (u1, r1)
            z = Relu (sum)
        }}""")
    for h, w in ((1, 1), (8, 8), (13, 22)):
        yield f"pyramid_{h}_{w}", pyramid, None, {"n": 2, "h": h, "w": w}
    doubled = text(f"""
        m (float[n, 3, h, w] x) => (float[n, 4, a, b] y) <{weight("w1", 4, 3, 3, 3)}, float[4] two = {{1.0, 1.0, 2.0, 2.0}}, float[4] half = {{1.0, 1.0, 0.5, 0.5}}> {{
            c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w1)
            u = Resize <mode = "linear", coordinate_transformation_mode = "align_corners"> (c, , two)
            r = Relu (u)
            d = Resize <mode = "nearest", coordinate_transformation_mode = "half_pixel"> (r, , half)
            y = Add (d, c)
        }}""")
    for h, w in ((1, 1), (4, 7)):
        yield f"up_and_down_{h}_{w}", doubled, None, {"n": 1, "h": h, "w": w}
    # What exporters write for a size of floats, `floor(size · factor)`.
    computed = text("""
        m (float[n, 2, h, w] x) => (float[n, 2, a, b] y, float[n, 2, c, d] z) <float factor = {1.5}, float by = {3.0}, int64 two = {2}, int64 three = {3}, int64[1] axis = {0}, int64[1] start = {0}, int64[1] end = {2}> {
            s = Shape (x)
            lead = Slice (s, start, end, axis)
            h = Gather (s, two)
            w = Gather (s, three)
            hf = Cast <to = 1> (h)
            wf = Cast <to = 1> (w)
            hm = Mul (hf, factor)
            wm = Mul (factor, wf)
            hr = Floor (hm)
            wr = Ceil (wm)
            hi = Cast <to = 7> (hr)
            wi = Cast <to = 7> (wr)
            hu = Unsqueeze (hi, axis)
            wu = Unsqueeze (wi, axis)
            to = Concat <axis = 0> (lead, hu, wu)
            y = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (x, , , to)
            hd = Div (hf, by)
            wd = Div (wf, factor)
            hc = Ceil (hd)
            hci = Cast <to = 7> (hc)
            wdi = Cast <to = 7> (wd)
            hcu = Unsqueeze (hci, axis)
            wdu = Unsqueeze (wdi, axis)
            less = Concat <axis = 0> (lead, hcu, wdu)
            z = Resize <mode = "nearest", coordinate_transformation_mode = "half_pixel"> (x, , , less)
        }""")
    for h, w in ((2, 2), (3, 5), (6, 4)):
        yield f"sizes_of_floats_{h}_{w}", computed, None, {"n": 1, "h": h, "w": w}


def integers():
    """Integers that are interpolated, at open sizes and constant ones."""
    for dtype in ("uint8", "int32"):
        for rows in ("h", "4"):
            proto = text(f"""
                m ({dtype}[1, 1, {rows}, 5] x) => ({dtype}[1, 1, a, b] y) <float[4] scales = {{1.0, 1.0, 2.0, 1.7}}> {{
                    y = Resize <mode = "linear"> (x, , scales)
                }}""")
            pixels = (np.arange(20).reshape(1, 1, 4, 5) ** 2 % 97).astype(dtype)
            yield f"{dtype}_interpolated_of_{rows}", proto, {"x": pixels}, {"h": 4}


def inexact_factors():
    """Sizes that float32 makes of others in ways that no fraction tells for all of them."""
    scaled = text("""
        m (float[n, 2, h, w] x) => (float[n, 2, a, b] near, float[n, 2, c, d] between) <float[4] scales = {1.0, 1.0, 2.1, 3.12}> {
            near = Resize <mode = "nearest"> (x, , scales)
            between = Resize <mode = "linear"> (x, , scales)
        }""")
    for h, w in ((30, 75), (10, 8)):
        yield f"inexact_scales_{h}_{w}", scaled, None, {"n": 1, "h": h, "w": w}
    ways = {
        "floor": "m = Mul (f, by)  r = Floor (m)",
        "ceil": "m = Mul (f, less)  r = Ceil (m)",
        "over": "m = Div (f, third)  r = Floor (m)",
        "twice": "m = Mul (f, most)  r = Mul (m, ten)",
    }
    uses = {
        "reshaped": ("y = Reshape (x, one)  z = Expand (y, i)", "float[a] z"),
        "counted": ("s0 = Squeeze (i, axis)  z = Range (null, s0, next)", "int64[a] z"),
        "resized": ("to = Concat <axis = 0> (lead, i)  z = Resize <mode = \"linear\"> (image, , , to)", "float[1, 1, a] z"),
    }
    for way, made in ways.items():
        for use, (taken, declared) in uses.items():
            proto = text(f"""
                m (float[h] v) => ({declared}) <float by = {{2.1}}, float less = {{0.6}}, float third = {{0.3}}, float most = {{0.9}}, float ten = {{10.0}}, float[1] x = {{1.5}}, int64[1] one = {{1}}, int64[1] axis = {{0}}, int64 null = {{0}}, int64 next = {{1}}, int64[2] lead = {{1, 1}}, int64[3] whole = {{1, 1, -1}}> {{
                    s = Shape (v)
                    f = Cast <to = 1> (s)
                    {made}
                    i = Cast <to = 7> (r)
                    image = Reshape (v, whole)
                    {taken}
                }}""")
            for h in (30, 25, 9, 3):
                yield f"inexact_{way}_{use}_{h}", proto, None, {"h": h}


def converted_sizes():
    """Sizes that conversions change before they are sizes again, and factors that are more than they."""
    for name, number in (("truth", 9), ("byte", 2), ("half", 10), ("bfloat", 16), ("int32", 6), ("double", 11)):
        proto = text(f"""
            m (float[1, h] v, float[n] w) => (float[a, 1] z) <float five = {{5.0}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] zero = {{0}}> {{
                s = Shape (v)
                n = Slice (s, one, two, zero)
                c = Cast <to = {number}> (n)
                f = Cast <to = 1> (c)
                m = Mul (f, five)
                i = Cast <to = 7> (m)
                long = Concat <axis = 0> (i, one)
                most = Shape (w)
                room = Concat <axis = 0> (most, one)
                least = Min (long, room)
                z = ConstantOfShape (least)
            }}""")
        for h in (3, 300, 2049):
            yield f"converted_to_{name}_{h}", proto, None, {"h": h, "n": 20000}
    spread = text("""
        m (float[h, w] v) => (int64[2, 2] z, int64[2, 1] y) <float[2, 1] by = {0.5, 2.0}, int64[1] first = {0}> {
            s = Shape (v)
            f = Cast <to = 1> (s)
            m = Mul (f, by)
            z = Cast <to = 7> (m)
            h0 = Gather (f, first)
            o = Mul (by, h0)
            y = Cast <to = 7> (o)
        }""")
    for h, w in ((3, 4), (8, 5)):
        yield f"spread_factors_{h}_{w}", spread, None, {"h": h, "w": w}


def automatic_padding():
    """`auto_pad` of windows with and without steps."""
    sides = ("SAME_UPPER", "SAME_LOWER")
    windows = [((3, 3), (1, 1)), ((4, 2), (1, 1)), ((3, 3), (2, 2)), ((5, 4), (3, 2)), ((1, 1), (2, 2)), ((2, 3), (3, 4))]
    rng = np.random.default_rng(2)
    for (kh, kw), (sh, sw) in windows:
        nodes, declared, stored = [], [], []
        for side in sides:
            window = f'auto_pad = "{side}", kernel_shape = [{kh}, {kw}], strides = [{sh}, {sw}]'
            values = ", ".join(f"{v:.3f}" for v in rng.standard_normal(3 * 2 * kh * kw))
            stored.append(f"float[3, 2, {kh}, {kw}] w_{side} = {{{values}}}")
            made = {f"conv_{side}": f"Conv <{window}> (x, w_{side})"}
            # Of poolings with gaps between their windows ONNX Runtime finds the padding negative.
            made |= {} if kh < sh or kw < sw else {
                f"most_{side}": f"MaxPool <{window}> (x)",
                f"mean_{side}": f"AveragePool <{window}> (x)",
                f"whole_{side}": f"AveragePool <{window}, count_include_pad = 1> (x)",
                f"norm_{side}": f"LpPool <{window}, p = 2> (x)",
            }
            nodes += [f"{name} = {node}" for name, node in made.items()]
            declared += [f"float[a, b, c, d] {name}" for name in made]
        proto = text(f"m (float[n, 2, h, w] x) => ({', '.join(declared)}) <{', '.join(stored)}> {{ {' '.join(nodes)} }}")
        for h, w in ((1, 1), (5, 6), (8, 7), (9, 12)):
            yield f"window_{kh}_{kw}_by_{sh}_{sw}_of_{h}_{w}", proto, None, {"n": 2, "h": h, "w": w}
    signal = text(f"""
        m (float[n, 2, t] x) => (float[n, 2, a] y, float[n, 2, b] z, float[n, 2, c] m) <float[2, 2, 5] k = {listed(np.arange(20) / 8)}> {{
            y = Conv <auto_pad = "SAME_UPPER", strides = [4]> (x, k)
            z = Conv <auto_pad = "SAME_LOWER", strides = [2]> (x, k)
            m = AveragePool <auto_pad = "SAME_LOWER", kernel_shape = [4], strides = [2]> (x)
        }}""")
    for t in (1, 6, 9):
        yield f"windows_of_a_signal_{t}", signal, None, {"n": 1, "t": t}
    transposed = text(f"""
        m (float[n, 2, h, w] x) => (float[n, 3, a, b] u, float[n, 3, c, d] l, float[n, 3, e, f] s) <float[2, 3, 3, 4] k = {listed(np.arange(72) / 32 - 1)}, float[2, 3, 2, 2] j = {listed(np.arange(24) / 16)}> {{
            u = ConvTranspose <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, k)
            l = ConvTranspose <auto_pad = "SAME_LOWER", strides = [2, 3]> (x, k)
            s = ConvTranspose <auto_pad = "SAME_UPPER", strides = [1, 1]> (x, j)
        }}""")
    for h, w in ((1, 1), (3, 4)):
        yield f"transposed_windows_{h}_{w}", transposed, None, {"n": 1, "h": h, "w": w}
    shaped = text(f"""
        m (float[n, 2, h, w] x) => (float[n, 3, 7, 9] u, float[n, 3, 7, 9] l) <float[2, 3, 3, 4] k = {listed(np.arange(72) / 32 - 1)}> {{
            u = ConvTranspose <output_shape = [7, 9], auto_pad = "SAME_UPPER", output_padding = [1, 0], strides = [2, 2]> (x, k)
            l = ConvTranspose <output_shape = [7, 9], strides = [2, 2]> (x, k)
        }}""")
    for h, w in ((3, 4), (4, 5)):
        yield f"transposed_windows_to_a_size_{h}_{w}", shaped, None, {"n": 1, "h": h, "w": w}
    incomplete = parser.parse_model(HEADER.replace("18", "19") + """
        m (float[n, 2, h, w] x) => (float[n, 2, a, b] norm, float[n, 2, c, d] mean, float[n, 2, e, f] spread, float[n, 2, e, f] whole) {
            norm = LpPool <kernel_shape = [3, 2], strides = [2, 2], ceil_mode = 1, p = 2> (x)
            mean = AveragePool <kernel_shape = [3, 2], strides = [2, 3], ceil_mode = 1, pads = [1, 0, 1, 1]> (x)
            spread = AveragePool <kernel_shape = [2, 2], dilations = [2, 1], strides = [2, 2], ceil_mode = 1> (x)
            whole = AveragePool <kernel_shape = [2, 2], dilations = [2, 1], strides = [2, 2], ceil_mode = 1, count_include_pad = 1> (x)
        }""")
    for h, w in ((3, 4), (6, 5), (8, 9)):
        yield f"incomplete_windows_{h}_{w}", incomplete, None, {"n": 1, "h": h, "w": w}
    gaps = parser.parse_model(HEADER.replace("18", "19") + """
        m (float[n, 2, h] x) => (float[n, 2, a] y, float[n, 2, b] z, float[n, 2, c] w) {
            y = AveragePool <kernel_shape = [2], dilations = [2], pads = [1, 1], ceil_mode = 1> (x)
            z = AveragePool <kernel_shape = [2], dilations = [2], pads = [1, 1], strides = [2]> (x)
            w = AveragePool <kernel_shape = [2], dilations = [2], pads = [1, 1], count_include_pad = 1> (x)
        }""")
    for h in (1, 2, 5):
        yield f"windows_around_everything_{h}", gaps, None, {"n": 1, "h": h}
    network = text(f"""
        m (float[n, 2, h, w] x) => (float[n, 3, a, b] y) <float[3, 2, 3, 3] k = {listed(np.arange(54) / 32 - 0.7)}, float[3, 3, 1, 1] j = {listed(np.arange(9) / 8 - 0.4)}, float[3, 1, 3, 3] d = {listed(np.arange(27) / 16 - 0.8)}> {{
            c = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, k)
            r = Relu (c)
            f = Conv <auto_pad = "SAME_UPPER", strides = [2, 2], group = 3> (r, d)
            g = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (r, j)
            s = Add (f, g)
            y = MaxPool <auto_pad = "SAME_UPPER", kernel_shape = [3, 3], strides = [2, 2]> (s)
        }}""")
    for h, w in ((1, 1), (11, 16), (14, 9)):
        yield f"network_of_windows_{h}_{w}", network, None, {"n": 2, "h": h, "w": w}


def paddings():
    """`Pad` of images whose size is open, also by amounts that follow from it."""
    modes = ("constant", "edge", "reflect", "wrap")
    for before, after in ((1, 2), (3, 0)):
        nodes = "\n".join(f'{mode} = Pad <mode = "{mode}"> (x, pads)' for mode in modes)
        declared = ", ".join(f"float[a, b, c, d] {mode}" for mode in modes)
        proto = HEADER.replace("18", "19") + f"m (float[n, 2, h, w] x) => ({declared}) <int64[8] pads = {listed((0, 0, before, after, 0, 0, after, before))}> {{ {nodes} }}"
        for h, w in ((4, 4), (5, 9)):
            yield f"padded_{before}_{after}_of_{h}_{w}", parser.parse_model(proto), None, {"n": 2, "h": h, "w": w}
    single = text("m (float[n, h] x) => (float[n, a] e, float[n, b] c) <int64[4] pads = {0, 2, 0, 3}, int64[4] cut = {0, -1, 0, -1}> { e = Pad <mode = \"edge\"> (x, pads)  c = Pad (x, cut) }")
    for h in (2, 6):
        yield f"padded_edges_of_{h}", single, None, {"n": 1, "h": h}
    for h in ("h", 5, 9):
        # ONNX Runtime refuses to reflect farther than there is.
        for modes, before, after in ((("edge", "wrap", "reflect"), -2, 1), (("edge", "wrap"), -2, 4), (("edge", "wrap"), 3, -1)):
            nodes = "\n".join(f'{mode} = Pad <mode = "{mode}"> (x, pads)' for mode in modes)
            declared = ", ".join(f"float[n, a] {mode}" for mode in modes)
            proto = HEADER.replace("18", "19") + f"m (float[n, {h}] x) => ({declared}) <int64[4] pads = {listed((0, before, 0, after))}> {{ {nodes} }}"
            yield f"cut_and_padded_{before}_{after}_of_{h}".replace("-", "m"), parser.parse_model(proto), None, {"n": 2, "h": 7}
    multiple = text("""
        m (float[n, 3, h, w] x) => (float[n, 3, a, b] y, float[n, 3, a, b] r, float[n, 3, h, w] back, float[n, 3, c, d] mean) <int64 by = {8}, int64 two = {2}, int64 three = {3}, int64[1] axis = {0}, int64[2] none = {0, 0}, int64[4] most = {0, 0, 0, 0}, int64[2] axes = {2, 3}> {
            s = Shape (x)
            h = Gather (s, two)
            w = Gather (s, three)
            hm = Mod (h, by)
            wm = Mod (w, by)
            hl = Sub (by, hm)
            wl = Sub (by, wm)
            hp = Mod (hl, by)
            wp = Mod (wl, by)
            hu = Unsqueeze (hp, axis)
            wu = Unsqueeze (wp, axis)
            pads = Concat <axis = 0> (most, none, hu, wu)
            y = Pad (x, pads)
            around = Concat <axis = 0> (none, hu, wu, none, none)
            r = Pad <mode = "edge"> (x, around)
            hs = Unsqueeze (h, axis)
            ws = Unsqueeze (w, axis)
            to = Concat <axis = 0> (hs, ws)
            back = Slice (y, none, to, axes)
            mean = AveragePool <kernel_shape = [8, 8], strides = [8, 8]> (y)
        }""")
    for h, w in ((1, 1), (8, 15), (9, 16)):
        yield f"padded_to_a_multiple_{h}_{w}", multiple, None, {"n": 1, "h": h, "w": w}
    rounded = text("""
        m (float[n, 3, h, w] x) => (float[n, 3, a, b] y, float[n, 3, 6, 5] z) <int64[2] by = {4, 6}, int64[2] less = {3, 5}, int64[2] two = {2, 2}, int64[1] start = {2}, int64[1] end = {4}, int64[1] axis = {0}, int64[2] none = {0, 0}, int64[2] fixed = {6, 5}, float value = {0.5}> {
            s = Shape (x)
            image = Slice (s, start, end, axis)
            more = Add (image, less)
            blocks = Div (more, by)
            whole = Mul (blocks, by)
            missing = Sub (whole, image)
            before = Div (missing, two)
            after = Sub (missing, before)
            pads = Concat <axis = 0> (none, before, none, after)
            y = Pad (x, pads, value)
            rest = Sub (fixed, image)
            behind = Concat <axis = 0> (none, none, none, rest)
            z = Pad (x, behind)
        }""")
    for h, w in ((1, 1), (4, 7), (6, 5), (9, 13)):
        yield f"padded_on_both_sides_{h}_{w}", rounded, None, {"n": 1, "h": h, "w": w}


def recurrent():
    """Sequences of different lengths that are read backwards."""
    weight = weights(3)

    for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        for direction, count in (("reverse", 1), ("bidirectional", 2)):
            stored = ", ".join([weight("w", count, gates * 3, 2), weight("r", count, gates * 3, 3), weight("b", count, gates * 6)])
            names = ["h", "c"] if op == "LSTM" else ["h"]
            states = [f"float[{count}, m, 3] {name}0" for name in names]
            declared = ", ".join([f"float[n, {count}, m, 3] y"] + [f"float[{count}, m, 3] {name}" for name in names])
            for kind, length in (("open", "n"), ("fixed", "4")):
                proto = text(f"""
                    m (float[{length}, m, 2] x, int32[m] lengths, {', '.join(states)}) => ({declared}) <{stored}> {{
                        {", ".join(["y"] + names)} = {op} <hidden_size = 3, direction = "{direction}"> (x, w, r, b, lengths, {", ".join(f"{name}0" for name in names)})
                    }}""")
                for lengths in ([4, 1, 2], [3, 4, 4]):
                    given = {"lengths": np.array(lengths, np.int32)}
                    yield f"{op}_{direction}_{kind}_{'_'.join(map(str, lengths))}", proto, given, {"n": 4, "m": 3}
            one = np.array([1], np.int32)
            proto = text(f"""
                m (float[n, m, 2] x, int32[m] lengths) => ({declared}) <{stored}> {{
                    {", ".join(["y"] + names)} = {op} <hidden_size = 3, direction = "{direction}"> (x, w, r, b, lengths)
                }}""")
            yield f"{op}_{direction}_of_one", proto, {"lengths": one}, {"n": 1, "m": 1}


def sizes_of_results():
    """Sizes that are differences and products: of pooled maps, and of two images."""
    best = text("""
        m (float[1, 1, h, w] x) => (float[k] best, int64[k] at) <int64[1] all = {-1}, int64[1] most = {20}> {
            pooled = MaxPool <kernel_shape = [3, 3]> (x)
            flat = Reshape (pooled, all)
            count = Shape (flat)
            k = Min (count, most)
            best, at = TopK (flat, k)
        }""")
    for h, w in ((3, 4), (5, 9)):
        yield f"best_of_a_pooled_map_{h}_{w}", best, None, {"h": h, "w": w}
    centred = text("""
        m (float[a, 2] x, float[b, 2] y) => (float[c, 2] z) <int64[1] two = {2}, int64[1] none = {0}> {
            have = Shape <start = 0, end = 1> (x)
            want = Shape <start = 0, end = 1> (y)
            more = Sub (want, have)
            before = Div (more, two)
            after = Sub (more, before)
            pads = Concat <axis = 0> (before, none, after, none)
            z = Pad (x, pads)
        }""")
    for a, b in ((3, 8), (3, 7), (7, 3), (8, 3)):
        yield f"centred_{a}_in_{b}", centred, None, {"a": a, "b": b}


def tests():
    for part in (scales, sizes_of_others, older_and_newer_forms, networks, sizes_of_results, integers, inexact_factors, converted_sizes, automatic_padding, paddings, recurrent):
        yield from part()


if __name__ == "__main__":
    main(tests)

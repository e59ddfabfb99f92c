"""Writes a small model per form of the operators of detection:  python vision_models.py FOLDER"""
import numpy as np
from onnx import helper

from small_models import f32, i64, main, model, random


def one(op, inputs, output, constants=(), opset=17, **attributes):
    """A model of one node: `inputs` are declarations, or the names of constants."""
    names = [i if isinstance(i, str) else i.name for i in inputs]
    node = helper.make_node(op, names, [output.name], **attributes)
    return model([node], [i for i in inputs if not isinstance(i, str)], [output], constants, opset)


def roi_align():
    x, boxes, images = f32("x", 2, 3, 12, 10), f32("boxes", "r", 4), i64("images", "r")
    corners = np.array([[2, 3, 30, 40], [0, 0, 39, 47], [-9, -7, 20, 11], [30, 30, 60, 60], [5, 6, 5.5, 6.5]], np.float32)
    given = {"boxes": corners, "images": np.array([0, 1, 1, 0, 1])}
    forms = {
        "default": dict(),
        "ratio": dict(output_height=4, output_width=3, sampling_ratio=2),
        "adaptive": dict(output_height=2, output_width=3),
        "output_half_pixel": dict(output_height=3, output_width=2, coordinate_transformation_mode="output_half_pixel"),
        # With more samples ONNX Runtime says of its own results that they are incorrect.
        "max": dict(output_height=3, output_width=3, sampling_ratio=1, mode="max"),
    }
    for name, attributes in forms.items():
        for opset in (10, 16):
            if opset == 10 and "coordinate_transformation_mode" in attributes:
                continue
            y = f32("y", "r", 3, attributes.get("output_height", 1), attributes.get("output_width", 1))
            proto = one("RoiAlign", [x, boxes, images], y, opset=opset, spatial_scale=0.25, **attributes)
            yield f"roi_align_{name}_{opset}", proto, given, {"r": len(corners)}


def deform_conv():
    x = f32("x", "n", 4, 7, 6)
    kernel, planes = {"w": random(1, 6, 2, 3, 2), "b": random(2, 6)}, 12
    window = dict(group=2, offset_group=2, pads=[1, 1, 1, 1], strides=[2, 1])
    offset, mask, y = f32("o", "n", 2 * planes, 4, 7), f32("m", "n", planes, 4, 7), f32("y", "n", 6, 4, 7)
    forms = {"plain": ["w", offset], "bias": ["w", offset, "b"], "mask": ["w", offset, "", mask], "both": ["w", offset, "b", mask]}
    for name, rest in forms.items():
        proto = one("DeformConv", [x, *rest], y, kernel, opset=19, **window)
        yield f"deform_conv_{name}", proto, None, {"n": 2}
    wide = dict(dilations=[2, 3], pads=[2, 1, 0, 2], kernel_shape=[3, 2])
    weight = {"w": random(3, 5, 4, 3, 2)}
    proto = one("DeformConv", [x, "w", f32("o", "n", 12, 5, 6)], f32("y", "n", 5, 5, 6), weight, opset=19, **wide)
    yield "deform_conv_dilated", proto, None, {"n": 2}


def det():
    yield "det", one("Det", [f32("x", "n", 3, 5, 5)], f32("y", "n", 3)), None, {"n": 2}
    yield "det_matrix", one("Det", [f32("x", 4, 4)], f32("y"))


def tests():
    yield from roi_align()
    yield from deform_conv()
    yield from det()


if __name__ == "__main__":
    main(tests)

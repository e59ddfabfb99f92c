"""Writes a small model per operator of `com.microsoft` and per form of it:  python contrib_models.py FOLDER"""
import numpy as np
from onnx import helper

from small_models import f32, i32, i64, main, model, random

B, S, D, N = 2, 5, 8, 2
H = D // N


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, domain="com.microsoft", **attributes)


def one(op, inputs, outputs, constants=(), **attributes):
    """A model of one node: `inputs` and `outputs` are declarations, constants come last among the operands."""
    names = [i if isinstance(i, str) else i.name for i in inputs]
    declared = [i for i in inputs if not isinstance(i, str)]
    results = ["" if isinstance(o, str) else o.name for o in outputs]
    made = node(op, names, results, **attributes)
    return model([made], declared, [o for o in outputs if not isinstance(o, str)], constants)


def elementwise():
    x, y = f32("x", "n", 6), f32("y", "n", 6)
    bias = {"b": random(1, 6)}
    yield "gelu", one("Gelu", [x], [y]), None, {"n": 3}
    yield "quick_gelu", one("QuickGelu", [x], [y]), None, {"n": 3}
    yield "quick_gelu_alpha", one("QuickGelu", [x], [y], alpha=1.1), None, {"n": 3}
    yield "fast_gelu", one("FastGelu", [x], [y]), None, {"n": 3}
    yield "fast_gelu_bias", one("FastGelu", [x, "b"], [y], bias), None, {"n": 3}
    yield "bias_gelu", one("BiasGelu", [x, "b"], [y], bias), None, {"n": 3}


def products():
    y = f32("y", *[None] * 3)
    yield "fused_matmul", one("FusedMatMul", [f32("a", 2, 4, 3), f32("b", 2, 4, 5)], [y], transA=1, alpha=0.5)
    yield "fused_matmul_b", one("FusedMatMul", [f32("a", 2, 3, 4), f32("b", 5, 4)], [y], transB=1)
    batch = one("FusedMatMul", [f32("a", 3, 2, 4), f32("b", 2, 4, 5)], [y], transBatchA=1)
    yield "fused_matmul_batch", batch
    both = one("FusedMatMul", [f32("a", 4, 2, 3), f32("b", 2, 4, 5)], [y], transBatchA=1, transA=1)
    yield "fused_matmul_batch_both", both
    gemm = {"b": random(2, 5, 4), "c": random(3, 5)}
    relu = dict(activation="Relu", transB=1, alpha=0.5)
    yield "fused_gemm", one("FusedGemm", [f32("a", "n", 4), "b", "c"], [f32("y", "n", 5)], gemm, **relu), None, {"n": 3}
    w = {"w": random(4, 6, 3, 3, 3), "c": random(5, 6)}
    x, y = f32("x", 1, 3, 8, 8), f32("y", 1, 6, 8, 8)
    for activation, parameters in [("Relu", None), ("LeakyRelu", [0.2]), ("Clip", [-0.5, 0.5]), ("HardSigmoid", [0.3, 0.4])]:
        attributes = dict(activation=activation, pads=[1, 1, 1, 1])
        if parameters:
            attributes["activation_params"] = parameters
        yield f"fused_conv_{activation.lower()}", one("FusedConv", [x, "w", "c"], [y], w, **attributes)
    summand = one("FusedConv", [x, "w", "c", f32("z", 1, 6, 8, 8)], [y], w, activation="Relu", pads=[1, 1, 1, 1])
    yield "fused_conv_sum", summand


def weight_only():
    """Products whose weights are stored in few bits."""
    rng = np.random.default_rng(5)

    def packed(bits, k, n, block, zeros=None, bias=False):
        blocks = -(-k // block)
        constants = {
            "b": rng.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8),
            "s": (rng.random(n * blocks) * 0.1 + 0.01).astype(np.float32),
        }
        operands = [f32("x", 2, "m", k), "b", "s"]
        if zeros == "packed":
            constants["z"] = rng.integers(0, 256, n * -(-blocks * bits // 8)).astype(np.uint8)
            operands.append("z")
        elif zeros == "floats":
            constants["z"] = (rng.random(n * blocks) * 9).astype(np.float32)
            operands.append("z")
        elif bias:
            operands.append("")
        if bias:
            constants["c"] = random(6, n)
            operands += ["", "c"]
        return one("MatMulNBits", operands, [f32("y", 2, "m", n)], constants, K=k, N=n, bits=bits, block_size=block)

    yield "matmul_4_bits", packed(4, 64, 5, 32), None, {"m": 3}
    yield "matmul_4_bits_rest", packed(4, 70, 5, 16), None, {"m": 3}
    yield "matmul_4_bits_zeros", packed(4, 96, 6, 32, "packed"), None, {"m": 1}
    yield "matmul_4_bits_float_zeros", packed(4, 64, 5, 32, "floats"), None, {"m": 3}
    yield "matmul_4_bits_bias", packed(4, 64, 6, 16, "packed", bias=True), None, {"m": 2}
    yield "matmul_8_bits", packed(8, 64, 5, 32), None, {"m": 3}
    yield "matmul_8_bits_zeros", packed(8, 48, 6, 16, "packed"), None, {"m": 2}


def norms():
    x, skip, y = f32("x", B, S, D), f32("skip", B, S, D), f32("y", B, S, D)
    wide = {"g": random(1, D), "b": random(2, D), "c": random(3, D)}
    scale = {"g": random(1, D)}
    total = f32("sum", B, S, D)
    yield "skip_layer_norm", one("SkipLayerNormalization", [x, skip, "g", "b", "c"], [y, "", "", total], wide)
    short = one("SkipLayerNormalization", [x, f32("skip", S, D), "g"], [y], scale, epsilon=1e-3)
    yield "skip_layer_norm_broadcast", short
    yield "skip_rms_norm", one("SkipSimplifiedLayerNormalization", [x, skip, "g"], [y, "", "", total], scale)
    with_bias = {"g": random(1, D), "c": random(3, D)}
    yield "skip_rms_norm_bias", one("SkipSimplifiedLayerNormalization", [x, skip, "g", "c"], [y], with_bias)
    # ONNX Runtime has this one in ONNX's own domain.
    rms = helper.make_node("SimplifiedLayerNormalization", ["x", "g"], ["y"], axis=-1, epsilon=1e-5)
    yield "rms_norm", model([rms], [x], [y], scale)


def embeddings():
    tables = {"w": random(1, 10, D), "p": random(2, 7, D), "t": random(3, 2, D), "g": random(4, D), "b": random(5, D)}
    ids, segments, mask = i32("ids", B, S), i32("segments", B, S), i32("mask", B, S)
    y, kept, total = f32("y", B, S, D), i32("kept", B), f32("sum", B, S, D)
    given = {"segments": np.array([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]], np.int32)}
    mask_of = {**given, "mask": np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)}
    full = one("EmbedLayerNormalization", [ids, segments, "w", "p", "t", "g", "b", mask], [y, kept, total], tables)
    yield "embed", full, mask_of
    plain = {k: v for k, v in tables.items() if k != "t"}
    yield "embed_plain", one("EmbedLayerNormalization", [ids, "", "w", "p", "", "g", "b"], [y, kept], plain)
    at = i32("at", B, S)
    placed = one("EmbedLayerNormalization", [ids, segments, "w", "p", "t", "g", "b", "", at], [y, kept], tables)
    yield "embed_positions", placed, given


def attentions():
    weights = {"w": random(1, D, 3 * D) / 2, "b": random(2, 3 * D)}
    x, y = f32("x", B, S, D), f32("y", B, S, D)
    yield "attention", one("Attention", [x, "w", "b"], [y], weights, num_heads=N)
    yield "attention_causal", one("Attention", [x, "w", "b"], [y], weights, num_heads=N, unidirectional=1)
    raw = {"mask": np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)}
    yield "attention_mask", one("Attention", [x, "w", "b", i32("mask", B, S)], [y], weights, num_heads=N), raw
    ends = {"mask": np.array([3, 5], np.int32)}
    yield "attention_lengths", one("Attention", [x, "w", "b", i32("mask", B)], [y], weights, num_heads=N), ends
    spans = {"mask": np.array([3, 5, 0, 1], np.int32)}
    yield "attention_spans", one("Attention", [x, "w", "b", i32("mask", 2 * B)], [y], weights, num_heads=N), spans
    past, present = f32("past", 2, B, N, 3, H), f32("present", 2, B, N, S + 3, H)
    cached = one("Attention", [x, "w", "b", "", past], [y, present], weights, num_heads=N, unidirectional=1)
    yield "attention_past", cached
    biased = one("Attention", [x, "w", "b", "", "", f32("bias", B, N, S, S)], [y], weights, num_heads=N)
    yield "attention_bias", biased


def multi_heads():
    q, k, v, y = f32("q", B, S, D), f32("k", B, 4, D), f32("v", B, 4, D), f32("y", B, S, D)
    bias = {"b": random(1, 3 * D)}
    yield "mha", one("MultiHeadAttention", [q, k, v], [y], num_heads=N)
    yield "mha_bias", one("MultiHeadAttention", [q, k, v, "b"], [y], bias, num_heads=N, scale=0.3)
    padding = {"mask": np.array([[1, 1, 0, 0], [1, 1, 1, 1]], np.int32)}
    yield "mha_padding", one("MultiHeadAttention", [q, k, v, "", i32("mask", B, 4)], [y], num_heads=N), padding
    scores = one("MultiHeadAttention", [q, k, v, "", "", f32("s", 1, N, S, 4)], [y], num_heads=N)
    yield "mha_scores", scores
    crossed = [q, f32("k", B, N, 4, H), f32("v", B, N, 4, H)]
    yield "mha_crossed", one("MultiHeadAttention", crossed, [y], num_heads=N)
    one_q, new_k, new_v = f32("q", B, 1, D), f32("k", B, 1, D), f32("v", B, 1, D)
    past = [f32("pk", B, N, 3, H), f32("pv", B, N, 3, H)]
    present = [f32("nk", B, N, 4, H), f32("nv", B, N, 4, H)]
    cached = one("MultiHeadAttention", [one_q, new_k, new_v, "", "", "", *past], [f32("y", B, 1, D), *present], num_heads=N)
    yield "mha_past", cached
    causal = one("MultiHeadAttention", [q, f32("k", B, S, D), f32("v", B, S, D)], [y], num_heads=N, unidirectional=1)
    yield "mha_causal", causal


def rotary():
    tables = {"cos": random(1, 9, H // 2), "sin": random(2, 9, H // 2)}
    x, y = f32("x", B, S, D), f32("y", B, S, D)
    at = {"at": np.array([[0, 1, 2, 3, 4], [3, 4, 5, 6, 7]], np.int64)}
    for interleaved in (0, 1):
        made = one("RotaryEmbedding", [x, i64("at", B, S), "cos", "sin"], [y], tables, interleaved=interleaved)
        yield f"rotary_{interleaved}", made, at
    start = {"at": np.array([2], np.int64)}
    yield "rotary_start", one("RotaryEmbedding", [x, i64("at", 1), "cos", "sin"], [y], tables), start
    by_heads = one("RotaryEmbedding", [f32("x", B, N, S, H), i64("at", B, S), "cos", "sin"], [f32("y", B, N, S, H)], tables)
    yield "rotary_by_heads", by_heads, at


def grouped():
    q_heads, size = 4, 16
    wide, narrow = q_heads * size, 2 * size
    tables = {"cos": random(1, 16, size // 2), "sin": random(2, 16, size // 2)}

    def gqa(batch, sequence, past, lengths, packed=False, rotary=False, **attributes):
        total = past + sequence
        constants = {"total": np.array(total, np.int32), **(tables if rotary else {})}
        kv = [f32("k", batch, sequence, narrow), f32("v", batch, sequence, narrow)]
        operands = [f32("q", batch, sequence, wide + 2 * narrow), "", ""] if packed else [f32("q", batch, sequence, wide), *kv]
        caches = [f32("pk", batch, 2, past, size), f32("pv", batch, 2, past, size)]
        operands += caches + [i32("last", batch), "total"] + (["cos", "sin"] if rotary else [])
        results = [f32("y", batch, sequence, wide), f32("nk", batch, 2, total, size), f32("nv", batch, 2, total, size)]
        made = one("GroupQueryAttention", operands, results, constants, num_heads=q_heads, kv_num_heads=2,
                   do_rotary=int(rotary), **attributes)
        return made, {"last": np.array(lengths, np.int32) - 1}

    yield "gqa_prompt", *gqa(2, 3, 0, [3, 3])
    yield "gqa_token", *gqa(1, 1, 4, [5])
    yield "gqa_token_batch", *gqa(2, 1, 4, [5, 5])
    yield "gqa_packed", *gqa(1, 3, 0, [3], packed=True)
    yield "gqa_rotary", *gqa(2, 1, 4, [5, 5], rotary=True)
    yield "gqa_rotary_prompt", *gqa(1, 5, 0, [5], rotary=True, packed=True)
    yield "gqa_window", *gqa(1, 5, 0, [5], local_window_size=2)
    yield "gqa_softcap", *gqa(1, 5, 0, [5], softcap=2.0)


def tests():
    for group in (elementwise, products, weight_only, norms, embeddings, attentions, multi_heads, rotary, grouped):
        yield from group()


if __name__ == "__main__":
    main(tests)

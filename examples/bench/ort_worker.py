"""ONNX Runtime behind a line protocol, so that another process can interleave its runs with others.

    python ort_worker.py MODEL INPUTS.npz OUTPUTS.npz THREADS

Runs once, writes the outputs, prints "ready"; then for every line N runs N times and prints the mean milliseconds.
"""
import sys
import time

import numpy as np
import onnxruntime as ort


def main(model, inputs, outputs, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(threads)
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    data = np.load(inputs)
    feeds = {i.name: data[i.name] for i in session.get_inputs()}
    results = session.run(None, feeds)
    np.savez(outputs, **{o.name: r for o, r in zip(session.get_outputs(), results)})
    print("ready", flush=True)
    for line in sys.stdin:
        count = int(line)
        start = time.perf_counter()
        for _ in range(count):
            session.run(None, feeds)
        print((time.perf_counter() - start) * 1e3 / count, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

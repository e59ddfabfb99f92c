"""ONNX Runtime behind the line protocol of the bench's workers (src/worker.rs).

    python ort_worker.py MODEL INPUTS.npz OUTPUTS.npz THREADS
"""
import sys
import time

import numpy as np
import onnxruntime as ort


def resident(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))


def main(model, inputs, outputs, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(threads)
    options.log_severity_level = 3
    data = dict(np.load(inputs))
    before, start = resident("VmRSS:"), time.perf_counter()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {i.name: data[i.name] for i in session.get_inputs()}
    results = session.run(None, feeds)
    load_ms = (time.perf_counter() - start) * 1e3
    peak_mb = (resident("VmHWM:") - before) / 1024
    np.savez(outputs, **{o.name: r for o, r in zip(session.get_outputs(), results)})
    print("ready", load_ms, peak_mb, flush=True)
    for line in sys.stdin:
        count = int(line)
        start = time.perf_counter()
        for _ in range(count):
            session.run(None, feeds)
        print((time.perf_counter() - start) * 1e3 / count, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

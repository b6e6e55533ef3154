"""A producer in plain pyzmq, after docs/protocol.md: one stream of made-up beats, one a second.

python examples/producer.py RUNTIME_DIR STREAM BEATS
"""

import sys
import time

import msgpack
import numpy as np
import zmq

runtime, stream, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
item = np.dtype([("kind", "u1"), ("quality", "u1"), ("flags", "<u2"), ("seq", "<u4"), ("sample", "<i8"), ("ready", "<i8"), ("rr", "<f4"), ("rr_ratio", "<f4")])  # fmt: skip
items = np.array([(3 if k == n else 0, 0, 0, k, 360 * k, 360 * k, 1.0, 1.0) for k in range(n + 1)], item)
windows = np.tile(np.exp(-(((np.arange(320) - 140) / 8.0) ** 2)).astype("<f4"), (n, 1))
info = {"stream": stream, "fs": 360.0, "leads": ["MLII"]}
hello = msgpack.packb({"type": "hello", "protocol": 1, "producer": f"example {stream}", "streams": [info]})
socket = zmq.Context().socket(zmq.DEALER)
socket.connect(f"ipc://{runtime}/producers")
stored = 0
while stored <= n:
    socket.send(hello)  # a repeated hello is a heartbeat, and its answer has the positions of the stream
    while (answer := msgpack.unpackb(socket.recv()))["type"] != "welcome":
        if answer["type"] == "refused":
            sys.exit(f"refused by the monitor: {answer['reason']}")
    stored, first = answer["stored"][0], answer["received"][0]
    stop = min(n + 1, stored + answer["window"])
    if first < stop:
        header = {"type": "deliver", "epoch": answer["epoch"], "parts": [[0, first, stop - first, min(stop, n) - first]], "segment_seconds": 0.0}  # fmt: skip
        socket.send_multipart([msgpack.packb(header), items[first:stop].tobytes(), windows[first:stop].tobytes(), bytes(4 * (stop - first))])  # fmt: skip
    time.sleep(0.1)
socket.send(msgpack.packb({"type": "bye", "epoch": answer["epoch"]}))

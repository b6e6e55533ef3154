"""A producer in plain pyzmq, after docs/protocol.md: one stream of made-up beats, one a second.

python examples/producer.py RUNTIME_DIR STREAM BEATS
"""

import sys

import msgpack
import numpy as np
import zmq

runtime, stream, beats = sys.argv[1], sys.argv[2], int(sys.argv[3])
item = np.dtype([("kind", "u1"), ("quality", "u1"), ("flags", "<u2"), ("seq", "<u4"), ("sample", "<i8"), ("ready", "<i8"), ("rr", "<f4"), ("rr_ratio", "<f4")])  # fmt: skip
items = np.zeros(beats + 1, item)
items["kind"][-1], items["seq"], items["sample"] = 3, range(beats + 1), 360 * np.arange(beats + 1)
items["rr"], items["rr_ratio"] = 1.0, 1.0
windows = np.tile(np.exp(-(((np.arange(320) - 140) / 8.0) ** 2)).astype("<f4"), (beats, 1))
socket = zmq.Context().socket(zmq.DEALER)
socket.connect(f"ipc://{runtime}/producers")
info = {"stream": stream, "fs": 360.0, "leads": ["MLII"]}
socket.send(msgpack.packb({"type": "hello", "protocol": 1, "producer": f"example {stream}", "streams": [info]}))
stored, sent, epoch, pause = 0, 0, 0, 1.0
while stored < beats + 1:
    if sent and not socket.poll(1000 * pause):
        socket.send(msgpack.packb({"type": "producer-ping", "epoch": epoch, "resent": 0}))
        continue
    told = msgpack.unpackb(socket.recv())
    if told["type"] == "welcome":
        epoch, window, pause = told["epoch"], told["window"], told["heartbeat"]
        sent, stored = told["received"][0], told["stored"][0]
    elif told["type"] == "stored":
        stored = told["positions"][0][1]
        socket.send(msgpack.packb({"type": "producer-ping", "epoch": epoch, "resent": 0}))
    elif told["type"] in {"unknown", "refused"}:
        sys.exit(f"the monitor says: {told}")
    stop = min(beats + 1, stored + window)
    if sent < stop:
        parts = [[0, sent, stop - sent, min(stop, beats) - sent]]
        header = {"type": "deliver", "epoch": epoch, "parts": parts, "segment_seconds": 0.0}
        ages = np.zeros(stop - sent, "<f4")
        socket.send_multipart([msgpack.packb(header), items[sent:stop], windows[sent : min(stop, beats)], ages])
        sent = stop
socket.send(msgpack.packb({"type": "bye", "epoch": epoch}))

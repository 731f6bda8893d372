# files.py FOLDER -- reads ours.safetensors and ours.npz with Python's own readers (PyTorch's where it is there), checks
# them against the numbers that files.lua wrote as text, and writes theirs.* of the same arrays.
import json
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

folder = sys.argv[1]
with open(folder + "/numbers.json") as f:
    want = {name: np.array(a["numbers"], dtype=a["dtype"]).reshape(a["shape"]) for name, a in json.load(f).items()}


def same(name, got):
    assert set(got) == set(want), (name, sorted(got))
    for k, a in want.items():
        b = np.asarray(got[k])
        assert a.dtype == b.dtype and a.shape == b.shape and (a == b).all(), (name, k)


same("ours.safetensors", load_file(folder + "/ours.safetensors"))
try:
    from safetensors.torch import load_file as torch_load
    same("ours.safetensors (torch)", {k: t.numpy() for k, t in torch_load(folder + "/ours.safetensors").items()})
    print("safetensors, by torch: equal")
except ImportError:
    pass
for name in "ours.npz", "deflated.npz":
    with np.load(folder + "/" + name) as z:
        same(name, {k: z[k] for k in z.files})
same("a.npy", {**want, "a": np.load(folder + "/a.npy")})
save_file(want, folder + "/theirs.safetensors", metadata={"from": "python"})
np.savez(folder + "/theirs.npz", **want)
np.savez_compressed(folder + "/packed.npz", **{k: np.asfortranarray(a) for k, a in want.items()})

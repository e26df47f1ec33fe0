"""Recorded cases that are changed, and what the comparison says of them."""

import json

from safetensors.torch import load_file, save_file


def change_tensor(case, name, change):
    tensors = load_file(case)
    tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, case)


def change_values(case, change):
    path = case.with_suffix(".json")
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def beyond(capsys):
    lines = capsys.readouterr().out.splitlines()
    return [line.split("  ")[0] for line in lines if line.endswith("BEYOND")]

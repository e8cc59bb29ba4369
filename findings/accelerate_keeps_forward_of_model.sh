#!/usr/bin/env bash
# Package: accelerate 1.15.0 (torch 2.13.0), on the CPU.
# Guess: `remove_hook_from_module` undoes what `dispatch_model` did to the modules of a model; its documentation says that
#   it restores the original forward method. The model then behaves as one that was never dispatched.
# What happens: it stores the original method, bound to its module, in the instance itself, where it stays and hides the
#   class's. A shallow copy takes it along: whatever is replaced in the copy, calling it runs the first model. And a
#   model that torch.save has written whole cannot be read again where it has a ModuleList: the method stored in that is
#   the stand-in that torch has for a missing forward, which is not found by its name. A deep copy is right.
#   `del vars(module)["forward"]` mends both.
# Why it matters: a copy with another head, or with a stand-in for its layers, gives the results of the first model: the
#   shapes fit, so nothing tells. Hooks come with several devices, with the disk, or with `force_hooks` as here.
# Seen:
#   never dispatched: forward in 0 of 4 modules; another head has no effect: False; written and read: right
#   hooks removed: forward in 4 of 4 modules; another head has no effect: True; written and read: AttributeError
#   forward deleted: forward in 0 of 4 modules; another head has no effect: False; written and read: right
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet torch==2.13.0 accelerate==1.15.0 || exit 2
cd "$work"
cat > copies.py <<'EOF'
import copy

import torch
from accelerate import dispatch_model
from accelerate.hooks import remove_hook_from_module
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 8)])
        self.head = nn.Linear(8, 5)

    def forward(self, hidden):
        for layer in self.layers:
            hidden = layer(hidden)
        return self.head(hidden)


torch.manual_seed(0)
hidden, other = torch.randn(3, 8), nn.Linear(8, 5)
never, removed, deleted = (Model() for _ in range(3))
for model in (removed, deleted):
    dispatch_model(model, {"layers": "cpu", "head": "cpu"}, force_hooks=True)
    remove_hook_from_module(model, recurse=True)
for module in deleted.modules():
    vars(module).pop("forward")


@torch.no_grad()
def seen(label, model):
    """How many modules keep a forward; whether a copy with another head gives the same; how it is read again."""
    kept = sum("forward" in vars(module) for module in model.modules())
    headed = copy.copy(model)
    headed._modules = {**model._modules, "head": other}  # a shallow copy shares this dictionary
    assert headed.head is other and model.head is not other
    same = torch.equal(headed(hidden), model(hidden))
    deep = copy.deepcopy(model)
    deep.head = other
    assert torch.equal(deep(hidden), other(model.layers[0](hidden)))
    torch.save(model, "model.pt")
    try:
        again = torch.load("model.pt", weights_only=False)
        read = "right" if torch.equal(again(hidden), model(hidden)) else "other results"
    except AttributeError as error:
        read = type(error).__name__
    of = len(list(model.modules()))
    print(f"{label}: forward in {kept} of {of} modules; another head has no effect: {same}; written and read: {read}")
    return kept, same, read


assert seen("never dispatched", never) == (0, False, "right")
assert seen("hooks removed", removed) == (4, True, "AttributeError")
assert seen("forward deleted", deleted) == (0, False, "right")
EOF
OMP_NUM_THREADS=1 "$work/env/bin/python" copies.py

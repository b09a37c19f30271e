"""Write down the signatures of Modal's SDK that are used: `python make_modal_signatures.py > modal_signatures.json`."""

from __future__ import annotations

import inspect
import json
import sys

import modal

USED = {
    "App.lookup": modal.App.lookup,
    "Image.from_registry": modal.Image.from_registry,
    "Image.apt_install": modal.Image.apt_install,
    "Image.pip_install": modal.Image.pip_install,
    "Image.add_local_python_source": modal.Image.add_local_python_source,
    "Secret.from_dict": modal.Secret.from_dict,
    "Secret.from_name": modal.Secret.from_name,
    "Sandbox.create": modal.Sandbox.create,
    "Sandbox.tunnels": modal.Sandbox.tunnels,
    "Sandbox.wait": modal.Sandbox.wait,
    "Sandbox.terminate": modal.Sandbox.terminate,
}

if __name__ == "__main__":
    found = {
        name: [[one.name, one.kind.name, one.default is not inspect.Parameter.empty]
               for one in inspect.signature(function).parameters.values()]
        for name, function in USED.items()
    }  # fmt: skip
    sys.stdout.write(json.dumps({"version": modal.__version__, "signatures": found}) + "\n")

"""What we send to vLLM and LMDeploy is what their newest releases take, by the source in their wheels.

Neither is installed, which needs a GPU's software. These tests run where their wheels are at hand:

    pip download --no-deps -d wheels vllm lmdeploy
    LAGENTLIKE_WHEELS=wheels python -m pytest tests/llms/test_engine_wheels.py
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lagentlike.llms.lmdeploy_server import _flags
from lagentlike.llms.openai_wire import request_options
from lagentlike.llms.token_wire import SERVERS

from . import engine_modules

WHEELS = os.environ.get("LAGENTLIKE_WHEELS")
pytestmark = pytest.mark.skipif(WHEELS is None, reason="LAGENTLIKE_WHEELS names no folder with wheels")
PARAMS = {"max_new_tokens": 8, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "repetition_penalty": 1.1}
PARAMS |= {"stop_words": ["."], "min_p": 0.1}


def wheel(name: str) -> zipfile.ZipFile:
    found = sorted(Path(WHEELS or "").glob(f"{name}-*.whl"))
    if not found:
        pytest.skip(f"there is no wheel of {name}")
    return zipfile.ZipFile(found[-1])


def source(package: zipfile.ZipFile, path: str) -> ast.Module:
    return ast.parse(package.read(path))


def class_of(module: ast.Module, name: str) -> ast.ClassDef:
    return next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name)


def fields_of(module: ast.Module, name: str) -> set[str]:
    """The annotated fields of a class, and of its bases in the same module."""
    found = class_of(module, name)
    names = {
        node.target.id for node in found.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    here = {node.name for node in module.body if isinstance(node, ast.ClassDef)}
    for base in found.bases:
        if isinstance(base, ast.Name) and base.id in here:
            names |= fields_of(module, base.id)
    return names


def arguments_of(module: ast.Module, function: str, of: str | None = None) -> list[str]:
    """The arguments of a function, or of a method, in their order."""
    body: Any = module.body if of is None else class_of(module, of).body
    found = next(
        node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function
    )
    return [argument.arg for argument in (*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs)]


def arguments_here(function: Any) -> list[str]:
    return [name for name, one in inspect.signature(function).parameters.items() if one.kind is not one.VAR_KEYWORD]


def fields_here(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def test_vllm_takes_what_its_stand_in_takes() -> None:
    package = wheel("vllm")
    sampling = source(package, "vllm/sampling_params.py")
    assert fields_here(engine_modules.SamplingParams) <= fields_of(sampling, "SamplingParams")
    assert {"FINAL_ONLY"} <= {
        target.id
        for node in class_of(sampling, "RequestOutputKind").body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    with engine_modules.vllm():
        import vllm
        from vllm.v1.engine.async_llm import AsyncLLM

        llm = source(package, "vllm/entrypoints/llm.py")
        assert set(arguments_here(vllm.LLM.__init__)) <= set(arguments_of(llm, "__init__", "LLM"))
        assert arguments_here(vllm.LLM.generate) == arguments_of(llm, "generate", "LLM")
        engine = source(package, "vllm/v1/engine/async_llm.py")
        assert arguments_here(AsyncLLM.from_engine_args) == arguments_of(engine, "from_engine_args", "AsyncLLM")[1:]
        ours, theirs = arguments_here(AsyncLLM.generate), arguments_of(engine, "generate", "AsyncLLM")
        assert theirs[: len(ours)] == ours
        assert "timeout" in arguments_of(engine, "shutdown", "AsyncLLM")
        arguments = source(package, "vllm/engine/arg_utils.py")
        assert fields_here(vllm.AsyncEngineArgs) <= fields_of(arguments, "AsyncEngineArgs")


def test_vllms_completions_take_our_requests() -> None:
    taken = fields_of(source(wheel("vllm"), "vllm/entrypoints/openai/completion/protocol.py"), "CompletionRequest")
    assert set(SERVERS["vllm"].request("m", [1], {**PARAMS, "seed": 1})) <= taken


def test_the_chat_completions_of_both_take_our_requests() -> None:
    params = {**PARAMS, "seed": 1, "tools": [{}], "tool_choice": "auto", "logprobs": True, "json_mode": True}
    asked = set(request_options("m", params, "max_tokens", stream=True)) | {"messages"}
    lmdeploy = source(wheel("lmdeploy"), "lmdeploy/serve/openai/protocol.py")
    assert asked <= fields_of(lmdeploy, "ChatCompletionRequest")
    vllm = source(wheel("vllm"), "vllm/entrypoints/openai/chat_completion/protocol.py")
    assert asked <= fields_of(vllm, "ChatCompletionRequest")


def test_lmdeploys_generate_takes_our_requests_and_we_read_its_answers() -> None:
    protocol = source(wheel("lmdeploy"), "lmdeploy/serve/openai/protocol.py")
    assert set(SERVERS["lmdeploy"].request("m", [1], PARAMS)) <= fields_of(protocol, "GenerateReqInput")
    assert {"text", "output_ids", "meta_info"} == fields_of(protocol, "GenerateReqOutput")
    assert {"finish_reason", "output_token_logprobs", "prompt_tokens", "completion_tokens"} <= fields_of(
        protocol, "GenerateReqMetaOutput"
    )


def test_lmdeploy_takes_what_its_stand_in_takes() -> None:
    package = wheel("lmdeploy")
    messages = source(package, "lmdeploy/messages.py")
    assert fields_here(engine_modules.GenerationConfig) <= fields_of(messages, "GenerationConfig")
    assert fields_here(engine_modules.PytorchEngineConfig) <= fields_of(messages, "PytorchEngineConfig")
    assert {"token_ids", "logprobs", "finish_reason", "input_token_len"} <= fields_of(messages, "Response") | fields_of(
        source(package, "lmdeploy/serve/core/async_engine.py"), "GenOut"
    )
    with engine_modules.lmdeploy():
        import lmdeploy

        pipeline = arguments_of(source(package, "lmdeploy/api.py"), "pipeline")
        assert set(arguments_here(lmdeploy.pipeline)) <= set(pipeline)
    engine = source(package, "lmdeploy/serve/core/async_engine.py")
    assert {"messages", "session_id", "gen_config", "input_ids"} <= set(
        arguments_of(engine, "preprocess", "AsyncEngine")
    )
    assert arguments_of(engine, "generate", "AsyncEngine") == ["self", "request", "stream_response"]


# It reads a command line as LMDeploy does: all of its modules but the command line's own are stood for.
_READ = """
import importlib.machinery, sys, types, unittest.mock

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("lmdeploy."):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return unittest.mock.MagicMock()

    def exec_module(self, module):
        pass

folder, *command = sys.argv[1:]
package = sys.modules["lmdeploy"] = types.ModuleType("lmdeploy")
package.__path__ = [f"{folder}/lmdeploy"]
command_line = sys.modules["lmdeploy.cli"] = types.ModuleType("lmdeploy.cli")
command_line.__path__ = [f"{folder}/lmdeploy/cli"]
sys.meta_path.append(Missing())
from lmdeploy.cli.serve import SubCliServe
from lmdeploy.cli.cli import CLI
SubCliServe.add_parser_api_server()
given = CLI.parser.parse_args(command)
print(given.model_path, given.server_name, given.server_port, given.model_name, given.tp, given.log_level)
print(given.backend, given.eager_mode)
"""


def test_lmdeploys_command_line_takes_ours(tmp_path: Path) -> None:
    package = wheel("lmdeploy")
    package.extractall(
        tmp_path, [name for name in package.namelist() if name.startswith(("lmdeploy/cli/", "lmdeploy/version"))]
    )
    settings: dict[str, Any] = {"server_name": "127.0.0.1", "server_port": 23333, "model_name": "m", "tp": 2}
    settings |= {"log_level": "WARNING", "backend": "pytorch"}
    settings |= {"eager_mode": True, "logprobs_mode": "raw_logprobs"}
    command = ["serve", "api_server", "org/model", *_flags(settings)]
    read = subprocess.run(
        [sys.executable, "-c", _READ, tmp_path, *command], capture_output=True, text=True, check=False
    )
    assert read.stdout.split() == ["org/model", "127.0.0.1", "23333", "m", "2", "WARNING", "pytorch", "True"], (
        read.stderr
    )

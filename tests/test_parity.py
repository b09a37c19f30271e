"""Agents have the surface of `nn.Module`: each row of the parity table, beside torch itself where torch has it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from lagentlike.agents import Agent, AgentDict, AgentList, Sequential
from lagentlike.errors import StateError
from lagentlike.llms import ScriptedLLM
from lagentlike.memory import SessionValue
from lagentlike.schema import AgentMessage

torch = pytest.importorskip("torch")
nn = torch.nn


class Block(Agent):
    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.first = Agent()
        self.rest = Sequential(Agent(), Agent())
        self.again = self.first

    def forward(self, message: AgentMessage, session_id: Any = 0) -> AgentMessage:
        return message


class TorchBlock(nn.Module):
    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.first = nn.Identity()
        self.rest = nn.Sequential(nn.Identity(), nn.Identity())
        self.again = self.first

    def forward(self, x: Any) -> Any:
        return x


@pytest.fixture
def pair() -> tuple[Block, Any]:
    return Block(), TorchBlock()


Pair = tuple[Block, Any]


def test_named_children(pair: Pair) -> None:
    ours, theirs = pair
    assert [name for name, _ in ours.named_children()] == [name for name, _ in theirs.named_children()]


def test_children(pair: Pair) -> None:
    ours, theirs = pair
    assert len(list(ours.children())) == len(list(theirs.children())) == 2


@pytest.mark.parametrize("options", [{}, {"prefix": "root"}, {"remove_duplicate": False}])
def test_named_modules(pair: Pair, options: dict[str, Any]) -> None:
    ours, theirs = pair
    assert [path for path, _ in ours.named_modules(**options)] == [path for path, _ in theirs.named_modules(**options)]


def test_modules(pair: Pair) -> None:
    ours, theirs = pair
    assert len(list(ours.modules())) == len(list(theirs.modules()))
    assert next(ours.modules()) is ours


def test_agents_and_named_agents(pair: Pair) -> None:
    ours, _ = pair
    assert list(ours.agents()) == list(ours.children())
    assert list(ours.named_agents()) == list(ours.named_children())


@pytest.mark.parametrize("path", ["", "first", "rest", "rest.1", "again"])
def test_get_submodule(pair: Pair, path: str) -> None:
    ours, theirs = pair
    assert ours.get_submodule(path) is dict(ours.named_modules(remove_duplicate=False))[path]
    assert theirs.get_submodule(path) is dict(theirs.named_modules(remove_duplicate=False))[path]


@pytest.mark.parametrize("path", ["nothing", "rest.5", "rest.name"])
def test_get_submodule_that_is_not_there(pair: Pair, path: str) -> None:
    for module in pair:
        with pytest.raises(AttributeError):
            module.get_submodule(path)


def test_apply(pair: Pair) -> None:
    orders = []
    for module in pair:
        paths = {id(unit): path for path, unit in module.named_modules()}
        seen: list[str] = []
        assert module.apply(lambda unit, seen=seen, paths=paths: seen.append(paths[id(unit)])) is module
        orders.append(seen)
    assert orders[0] == orders[1] == ["first", "rest.0", "rest.1", "rest", ""]


def test_add_module_and_add_agent(pair: Pair) -> None:
    ours, theirs = pair
    ours.add_module("more", Agent())
    ours.add_agent("most", Agent())
    theirs.add_module("more", nn.Identity())
    theirs.add_module("most", nn.Identity())
    assert [name for name, _ in ours.named_children()] == [name for name, _ in theirs.named_children()]


@pytest.mark.parametrize("name", ["", "a.b", "forward"])
def test_add_module_with_a_name_that_cannot_be(pair: Pair, name: str) -> None:
    ours, theirs = pair
    with pytest.raises(ValueError):
        ours.add_module(name, Agent())
    with pytest.raises(KeyError):
        theirs.add_module(name, nn.Identity())


def test_attributes_are_assigned_replaced_and_deleted(pair: Pair) -> None:
    ours, theirs = pair
    for module, kind in ((ours, Agent), (theirs, nn.Identity)):
        module.first = None
        module.new = kind()
        module.rest = kind()
        del module.again
    assert [name for name, _ in ours.named_children()] == [name for name, _ in theirs.named_children()]
    assert ours.first is theirs.first is None


def test_containers_are_sequential_list_and_dict() -> None:
    rows = [Sequential(Agent(), Agent()), nn.Sequential(nn.Identity(), nn.Identity())]
    lists = [AgentList([Agent()]), nn.ModuleList([nn.Identity()])]
    dicts = [AgentDict({"a": Agent()}), nn.ModuleDict({"a": nn.Identity()})]
    for ours, theirs in (rows, lists, dicts):
        assert [path for path, _ in ours.named_modules()] == [path for path, _ in theirs.named_modules()]
        assert len(ours) == len(theirs)
    for module, kind in ((rows[0], Agent), (rows[1], nn.Identity)):
        module.append(kind())
        module[0] = replaced = kind()
        assert [name for name, _ in module.named_children()] == ["0", "1", "2"]
        assert module[0] is replaced
    for module, kind in ((lists[0], Agent), (lists[1], nn.Identity)):
        module.append(kind())
        module.extend([kind()])
        module.insert(0, kind())
        module.pop(1)
        del module[0]
        assert [name for name, _ in module.named_children()] == ["0", "1"]
    for module, kind in ((dicts[0], Agent), (dicts[1], nn.Identity)):
        module["b"] = kind()
        module.update({"c": kind()})
        module.pop("a")
        assert (list(module.keys()), "b" in module, len(module)) == (["b", "c"], True, 2)


def test_state_dict_has_flat_paths() -> None:
    class TorchState(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory = nn.Parameter(torch.zeros(1))
            self.child = nn.Module()
            self.child.memory = nn.Parameter(torch.zeros(1))

    ours = Agent()
    ours.child = Agent()
    assert list(ours.state_dict()) == list(TorchState().state_dict()) == ["memory", "child.memory"]


def test_buffers_are_session_values() -> None:
    ours, theirs = Agent(), nn.Module()
    ours.notes = SessionValue(list)
    theirs.register_buffer("notes", torch.zeros(1))
    assert "notes" in ours.state_dict()
    assert "notes" in theirs.state_dict()


def test_load_state_dict_names_missing_and_unexpected_keys() -> None:
    ours = Agent()
    theirs = nn.Module()
    theirs.memory = nn.Parameter(torch.zeros(1))
    for module, error in ((ours, StateError), (theirs, RuntimeError)):
        state = module.state_dict()
        assert list(module.load_state_dict(state)) == [[], []]
        state["extra"] = state.pop("memory")
        with pytest.raises(error, match="extra"):
            module.load_state_dict(state)
        keys = module.load_state_dict(state, strict=False)
        assert (keys.missing_keys, keys.unexpected_keys) == (["memory"], ["extra"])


def test_save_and_load(tmp_path: Path) -> None:
    ours, again = Agent(ScriptedLLM(["x"])), Agent()
    ours("hi")
    ours.save(tmp_path / "state.json")
    again.load(tmp_path / "state.json")
    assert again.state_dict() == ours.state_dict()
    assert json.loads((tmp_path / "state.json").read_text())["version"] == 1


def test_forward_pre_hooks_and_forward_hooks_run_in_torchs_order() -> None:
    orders = []
    for module, given in ((Block(), "x"), (TorchBlock(), torch.zeros(1))):
        seen: list[str] = []
        handles = [
            module.register_forward_pre_hook(lambda m, a, seen=seen: seen.append("pre 1")),
            module.register_forward_pre_hook(lambda m, a, seen=seen: seen.append("pre 2"), prepend=True),
            module.register_forward_pre_hook(lambda m, a, k, seen=seen: seen.append("pre 3"), with_kwargs=True),
            module.register_forward_hook(lambda m, a, r, seen=seen: seen.append("post 1")),
            module.register_forward_hook(lambda m, a, r, seen=seen: seen.append("post 2"), prepend=True),
            module.register_forward_hook(lambda m, a, k, r, seen=seen: seen.append("post 3"), with_kwargs=True),
        ]
        module(given)
        for handle in handles[::2]:
            handle.remove()
            handle.remove()
        module(given)
        orders.append(seen)
    assert orders[0] == orders[1]
    assert orders[0][:6] == ["pre 2", "pre 1", "pre 3", "post 2", "post 1", "post 3"]


def test_hooks_replace_what_they_return() -> None:
    ours, theirs = Block(), TorchBlock()
    ours.register_forward_pre_hook(lambda m, messages: (AgentMessage(content=messages[0].content + "b"),))
    ours.register_forward_hook(lambda m, messages, reply: reply.content + "c")
    theirs.register_forward_pre_hook(lambda m, args: (args[0] + "b",))
    theirs.register_forward_hook(lambda m, args, output: output + "c")
    assert ours("a").content == theirs("a") == "abc"


def test_handles_are_context_managers() -> None:
    for module, given in ((Block(), "x"), (TorchBlock(), torch.zeros(1))):
        seen: list[int] = []
        with module.register_forward_hook(lambda *args, seen=seen: seen.append(1)):
            module(given)
        module(given)
        assert seen == [1]


def test_train_and_eval(pair: Pair) -> None:
    for module in pair:
        assert module.train() is module
        assert all(unit.training for unit in module.modules())
        assert module.eval() is module
        assert not any(unit.training for unit in module.modules())
        module.train(True)
        assert module.training


def test_repr_is_nested(pair: Pair) -> None:
    ours, theirs = pair
    renamed = repr(theirs).replace("TorchBlock", "Block").replace("Identity", "Agent")
    assert repr(ours) == renamed


def test_extra_repr() -> None:
    class Ours(Agent):
        def extra_repr(self) -> str:
            return "size=3"

        def forward(self, message: AgentMessage, session_id: Any = 0) -> str:
            return "x"

    class Theirs(nn.Module):
        def extra_repr(self) -> str:
            return "size=3"

    ours, theirs = Ours(), Theirs()
    ours.child, theirs.child = Agent(), nn.Identity()
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours").replace("Identity", "Agent")


def test_deepcopy(pair: Pair) -> None:
    for module in pair:
        twin = copy.deepcopy(module)
        assert twin is not module
        assert twin.first is twin.again
        assert twin.first is not module.first


def test_vmap_is_map() -> None:
    agent = Agent(ScriptedLLM(lambda messages, params: messages[-1]["content"] * 2))
    assert [reply.content for reply in agent.map(["1", "2"])] == ["11", "22"]
    assert torch.vmap(lambda x: x * 2)(torch.tensor([1, 2])).tolist() == [2, 4]


def test_forward_that_is_not_defined() -> None:
    from lagentlike.module import Module

    with pytest.raises(NotImplementedError):
        Module()("x")
    with pytest.raises(NotImplementedError):
        nn.Module()("x")


def test_summary_and_picture_come_without_a_call(pair: Pair) -> None:
    ours, _ = pair
    assert [row["path"] for row in ours.summary().rows] == ["", "first", "rest", "rest.0", "rest.1"]
    assert ours.to_mermaid().startswith("flowchart TD")

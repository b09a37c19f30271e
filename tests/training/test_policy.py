"""The policy: the engine's numbers, gradients, LoRA, and weights that go where they are needed."""

from __future__ import annotations

import asyncio
import copy
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lagentlike.actions import calculator
from lagentlike.agents import AsyncAgent, AsyncReAct, AsyncSequential
from lagentlike.errors import InvalidArgument
from lagentlike.ledger import Segment
from lagentlike.llms import AsyncTinyLM, ScriptedLLM, TinyLM
from lagentlike.llms.scripted import AsyncScriptedLLM
from lagentlike.llms.tiny.engine import SamplingParams, TinyEngine
from lagentlike.rollouts import reward, tokenize_trajectories
from lagentlike.training import AdamW, Policy, RLTrainer
from lagentlike.training.losses import supervised, token_weights
from lagentlike.trajectory import Trajectory


def sampled(engine: TinyEngine, count: int = 6, tokens: int = 20) -> list[Trajectory]:
    """Answers of different lengths to different questions, sampled at temperature 1."""
    found = []
    for number in range(count):
        prompt = engine.render(
            [{"role": "user", "content": f"What is {number} + {number * number}?" + " Now!" * number}]
        )
        answer = engine.generate(prompt, SamplingParams(tokens, temperature=1.0, seed=number))
        segment = Segment()
        segment.read(prompt)
        segment.sample(answer.token_ids, answer.logprobs, 1)
        found.append(Trajectory([], [segment]))
    return found


def rows_of(trajectories: list[Trajectory]) -> dict[str, torch.Tensor]:
    return tokenize_trajectories(trajectories, tensors="pt")


def learn(policy: Policy, rows: dict[str, torch.Tensor]) -> dict[str, float]:
    weights = token_weights(rows["action_mask"], rows["trajectory"])
    return policy.update(rows, lambda picked, logprobs, _: supervised(logprobs, weights[picked, : logprobs.shape[1]]))


def test_the_engine_and_the_module_agree_on_log_probabilities() -> None:
    rows = rows_of(sampled(TinyEngine.load()))
    found = Policy().current_logprobs(rows)
    assert (found - rows["logprobs"]).abs().max() < 1e-4


def test_log_probabilities_do_not_depend_on_micro_batches_or_on_the_shared_beginning(small: Path) -> None:
    rows = rows_of(sampled(TinyEngine(small)))
    whole, single = Policy(small), Policy(small, micro_batch=1)
    assert torch.allclose(whole.current_logprobs(rows), single.current_logprobs(rows), atol=1e-5)
    model = AutoModelForCausalLM.from_pretrained(small).float()
    for ids, mask, found in zip(rows["input_ids"], rows["attention_mask"], single.current_logprobs(rows), strict=True):
        ids = ids[mask.bool()]
        table = torch.log_softmax(model(ids[None]).logits[0, :-1], -1)
        wanted = table.gather(1, ids[1:, None])[:, 0]
        trained = found[1 : len(ids)] != 0
        assert torch.allclose(found[1 : len(ids)][trained], wanted[trained], atol=1e-5)


def test_gradients_do_not_depend_on_micro_batches_or_on_the_shared_beginning(small: Path) -> None:
    rows = rows_of(sampled(TinyEngine(small)))
    gradients = []
    for micro_batch in (1, 200, 100_000):
        policy = Policy(small, micro_batch=micro_batch, adamw=AdamW(max_norm=1e9))
        learn(policy, rows)
        gradients.append(torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None]))
    for other in gradients[1:]:
        assert torch.allclose(gradients[0], other, atol=1e-5, rtol=1e-3)
    assert gradients[0].abs().max() > 1e-2


def test_the_gradient_of_log_probabilities_is_that_of_finite_differences(small: Path) -> None:
    rows = rows_of(sampled(TinyEngine(small), 3, 6))
    policy = Policy(small)
    weights = [value for value in policy.model.parameters() if value.requires_grad]
    policy.logprobs(rows)[0].sum().backward()  # type: ignore[no-untyped-call]  # torch's own
    slope = float(sum((value.grad**2).sum() for value in weights))  # along the gradient itself

    def shifted(distance: float) -> float:
        with torch.no_grad():
            for value in weights:
                value += distance * value.grad
            total = float(policy.logprobs(rows)[0].sum())
            for value in weights:
                value -= distance * value.grad
        return total

    step = 0.05 / slope  # moves the sum by about 0.05
    assert slope == pytest.approx((shifted(step) - shifted(-step)) / (2 * step), rel=0.01)


def test_entropies_come_with_log_probabilities(small: Path) -> None:
    rows = rows_of(sampled(TinyEngine(small), 2, 5))
    logprobs, entropy = Policy(small).logprobs(rows, entropy=True)
    assert entropy is not None
    assert torch.equal(entropy != 0, rows["action_mask"].bool())
    assert torch.equal(logprobs != 0, rows["action_mask"].bool())


def test_updates_reach_the_engine_and_leave_the_shared_one_alone(small: Path) -> None:
    policy = Policy(small, adamw=AdamW(lr=1e-2))
    llm = policy.llm(max_new_tokens=8, temperature=0.0)
    shared = TinyLM(small, max_new_tokens=8, temperature=0.0)
    ask: Any = [{"role": "user", "content": "Hello"}]
    before = asyncio.run(llm.chat(ask, logprobs=True))
    assert before == shared.chat(ask)
    trajectories = sampled(TinyEngine(small))
    first = learn(policy, rows_of(trajectories))
    for _ in range(3):
        last = learn(policy, rows_of(trajectories))
    assert last["loss"] < first["loss"]
    after = asyncio.run(llm.chat(ask, logprobs=True))
    assert after.tokens.logprobs != before.tokens.logprobs
    assert shared.chat(ask) == before
    rows = rows_of(sampled(llm.engine))
    assert (policy.current_logprobs(rows) - rows["logprobs"]).abs().max() < 1e-4


def test_learning_rate_warms_up_and_gradients_are_clipped(small: Path) -> None:
    policy = Policy(small, adamw=AdamW(lr=1e-3, warmup=4, max_norm=1e-3))
    rows = rows_of(sampled(TinyEngine(small), 2, 5))
    rates = [learn(policy, rows)["lr"] for _ in range(5)]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3])
    norm = torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)


def test_an_update_leaves_arithmetic_in_this_thread_as_it_was(small: Path) -> None:
    policy = Policy(small)
    learn(policy, rows_of(sampled(TinyEngine(small), 2, 5)))
    assert sys.float_info.min * 0.5 > 0.0


def test_a_gradient_that_is_not_finite_changes_nothing(small: Path) -> None:
    policy = Policy(small)
    before = copy.deepcopy(policy.state_dict()["trained"])
    rows = rows_of(sampled(TinyEngine(small), 2, 5))
    told = policy.update(rows, lambda picked, logprobs, _: logprobs.sum() * float("nan"))
    assert told["skipped"] == 1.0
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict()["trained"].items())


def test_lora_trains_small_matrices_and_hands_over_merged_weights(small: Path, tmp_path: Path) -> None:
    policy = Policy(small, lora={"r": 4, "lora_alpha": 8}, adamw=AdamW(lr=1e-2))
    frozen = {name: value.clone() for name, value in policy.model.named_parameters() if not value.requires_grad}
    llm = policy.llm(max_new_tokens=8)
    rows = rows_of(sampled(TinyEngine(small)))
    losses = [learn(policy, rows)["loss"] for _ in range(4)]
    assert losses[-1] < losses[0]
    assert all(torch.equal(dict(policy.model.named_parameters())[name], value) for name, value in frozen.items())
    again = rows_of(sampled(llm.engine))
    assert (policy.current_logprobs(again) - again["logprobs"]).abs().max() < 1e-4
    reference = policy.reference_logprobs(rows)
    assert torch.allclose(reference, rows["logprobs"], atol=1e-4)
    merged = TinyEngine(policy.save(tmp_path / "merged"))
    assert (policy.current_logprobs(rows_of(sampled(merged))) - rows_of(sampled(merged))["logprobs"]).abs().max() < 1e-4
    policy.save(tmp_path / "adapter", merge=False)
    assert {path.name for path in (tmp_path / "adapter").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_options_that_lora_does_not_know_are_named(small: Path) -> None:
    with pytest.raises(InvalidArgument, match="lora="):
        Policy(small, lora={"rank": 4})


def test_the_reference_is_what_training_began_with(small: Path) -> None:
    policy = Policy(small, adamw=AdamW(lr=1e-2))
    rows = rows_of(sampled(TinyEngine(small)))
    learn(policy, rows)
    assert torch.allclose(policy.reference_logprobs(rows), rows["logprobs"], atol=1e-4)
    assert not torch.allclose(policy.current_logprobs(rows), rows["logprobs"], atol=1e-2)


def test_a_saved_policy_is_a_directory_that_tinylm_and_transformers_load(small: Path, tmp_path: Path) -> None:
    policy = Policy(small, adamw=AdamW(lr=1e-2))
    learn(policy, rows_of(sampled(TinyEngine(small))))
    folder = policy.save(tmp_path / "out")
    rows = rows_of(sampled(TinyEngine(folder)))
    assert (policy.current_logprobs(rows) - rows["logprobs"]).abs().max() < 1e-4
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.dtype == torch.float32
    for name, value in policy.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert AutoTokenizer.from_pretrained(folder)("Hi").input_ids == AutoTokenizer.from_pretrained(small)("Hi").input_ids
    assert Policy(folder).llm(max_new_tokens=2) is not None
    with pytest.raises(InvalidArgument, match="another directory"):
        policy.save(small)


def test_agents_on_the_same_directory_sample_from_the_policy_at_temperature_one(small: Path) -> None:
    policy = Policy(small)
    react = AsyncReAct(AsyncTinyLM(small, max_new_tokens=9), [calculator])
    judge = AsyncAgent(AsyncScriptedLLM(["good"]))
    both = AsyncSequential(react, judge)
    paths = policy.attach(both)
    assert [both.get_submodule(path) for path in paths] == [react.agent]
    assert react.agent.llm.gen_params["temperature"] == 1.0
    assert react.agent.llm.gen_params["max_new_tokens"] == 9
    assert policy.attach(both) == paths
    with pytest.raises(InvalidArgument, match=r"policy\.llm\(\)"):
        policy.attach(judge)
    assert ScriptedLLM(["good"]).chat([{"role": "user", "content": "?"}]) == "good"


def test_the_same_round_gives_the_same_samples_in_whatever_order(small: Path) -> None:
    policy = Policy(small)
    llm = policy.llm(max_new_tokens=6)

    def ask(*texts: str) -> list[str]:
        async def all_() -> list[str]:
            return await asyncio.gather(*(llm.chat([{"role": "user", "content": text}]) for text in texts))

        return asyncio.run(all_())

    policy.begin(0, 1)
    first = ask("a", "a", "b")
    policy.begin(0, 1)
    second = ask("b", "a", "a")
    policy.begin(0, 2)
    third = ask("a", "a", "b")
    assert second == [first[2], first[0], first[1]]
    assert first[0] != first[1]
    assert third != first


def test_copies_of_an_agent_sample_from_the_one_policy(small: Path) -> None:
    policy = Policy(small)
    agent = AsyncAgent(policy.llm())
    assert copy.deepcopy(agent).llm is agent.llm


def test_decoding_is_changed_for_a_block(small: Path) -> None:
    policy = Policy(small)
    llm = policy.llm(max_new_tokens=6)
    with policy.decoding(temperature=0.0):
        assert llm.gen_params["temperature"] == 0.0
    assert llm.gen_params["temperature"] == 1.0


def test_a_checkpoint_of_another_model_is_refused(small: Path) -> None:
    state = Policy(small, lora={"r": 2}).state_dict()
    with pytest.raises(ValueError, match="another model"):
        Policy(small).load_state_dict(state)


def test_a_directory_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=str(tmp_path)):
        Policy(tmp_path)


def test_weights_are_float32_arrays_under_their_names(small: Path) -> None:
    weights = Policy(small).weights()
    engine = TinyEngine(small)
    assert np.array_equal(weights["model.embed_tokens.weight"].numpy(), engine.network._embedding)


def test_a_model_of_another_kind_is_sampled_from_the_very_module_that_is_trained(small: Path, tmp_path: Path) -> None:
    config = json.loads((small / "config.json").read_text())
    config |= {"num_key_value_heads": 2}  # which the embedded engine does not run
    for path in small.glob("*.json"):
        shutil.copy(path, tmp_path / path.name)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path)).save_pretrained(tmp_path)
    policy = Policy(tmp_path, adamw=AdamW(lr=2e-2))
    queries = [{"messages": [{"role": "user", "content": f"{number}?"}]} for number in range(4)]

    @reward
    def even(trajectory: Trajectory) -> float:
        return float(trajectory.segments[0].ids[-1] % 2 == 0)

    agent = AsyncAgent(policy.llm(max_new_tokens=1))
    history = RLTrainer(policy, agent, queries, even, batch=4, group=8, steps=20).train()
    assert all(row.get("ratio_off", 0.0) < 1e-3 for row in history[1:])
    assert sum(row["reward"] for row in history[-3:]) / 3 > history[1]["reward"] + 0.2
    assert AutoModelForCausalLM.from_pretrained(policy.save(tmp_path / "out")).config.model_type == "llama"


def test_models_of_one_policy_that_transformers_runs_are_decoded_together_and_follow_its_updates(foreign: Path) -> None:
    policy = Policy(foreign, adamw=AdamW(lr=1e-2))
    one, other = policy.llm(max_new_tokens=6), policy.llm(max_new_tokens=6)
    assert one.engine is other.engine
    ask: Any = [{"role": "user", "content": "Hello"}]
    for _ in range(2):
        policy.begin(1)
        assert one.engine.prefixes.size == 0
        span = asyncio.run(one.chat(ask, logprobs=True)).tokens
        again = asyncio.run(other.chat(ask, prompt_ids=[*span.prompt_ids, *span.ids], logprobs=True)).tokens
        assert one.engine.prefixes.reused_tokens >= len(span.prompt_ids)
        segment = Segment()
        segment.read(span.prompt_ids)
        segment.sample(span.ids, span.logprobs, 1)
        segment.sample(again.ids, again.logprobs, 3)
        rows = rows_of([Trajectory([{}] * 4, [segment])])
        assert (policy.current_logprobs(rows) - rows["logprobs"]).abs().max() < 1e-4
        learn(policy, rows)


def test_matrices_multiplied_in_bfloat16_change_little_and_weights_stay_float32(small: Path) -> None:
    exact, narrow = Policy(small), Policy(small, dtype="bfloat16", adamw=AdamW(lr=1e-2))
    agent = AsyncAgent(narrow.llm(max_new_tokens=8))

    @reward
    def even(trajectory: Trajectory) -> float:
        [segment] = trajectory.segments
        return sum(i % 2 == 0 for i in segment.ids[-8:]) / 8

    rows = rows_of(sampled(TinyEngine(small)))
    off = (narrow.current_logprobs(rows) - exact.current_logprobs(rows)).abs()
    assert 0 < off.max() < 0.1
    [_, step] = RLTrainer(narrow, agent, ["one?", "two?"], even, batch=2, group=4, steps=1).train()
    assert step["ratio_off"] < 0.1  # sampled by the very module that is trained, in bfloat16 too
    assert {value.dtype for value in narrow.weights().values()} == {torch.float32}
    with pytest.raises(InvalidArgument, match="dtype='int8'"):
        Policy(small, dtype="int8")


def test_a_device_that_is_not_there_is_named(small: Path) -> None:
    with pytest.raises(InvalidArgument, match="device='quantum'"):
        Policy(small, device="quantum")
    if not torch.cuda.is_available():
        with pytest.raises(InvalidArgument, match="device='cuda': torch sees no GPU here"):
            Policy(small, device="cuda")


def test_what_is_no_agent_is_refused(small: Path) -> None:
    with pytest.raises(InvalidArgument, match="agent=5: give an async agent"):
        Policy(small).attach(5)  # type: ignore[arg-type]

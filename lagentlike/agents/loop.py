"""The tool-calling loop: ask the model, run its calls, ask again, until there is an answer or a reason to stop."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from operator import is_
from typing import Any, TYPE_CHECKING

from ..concurrency import Stopped
from ..errors import BudgetExceeded, ContextLengthExceeded, InvalidArgument, RequestRefused, StateError
from ..memory import Memory, SessionId
from ..prompts.parsers.tool_call import loads_strictly
from ..schema import AgentMessage, copied, ToolCall, ToolResult, unchecked_message, Usage
from .approvals import decision_of, verdict
from .compression import compressed, in_view, is_mark
from .controls import Control
from .conversation import NO_RESULT, results_message, system_message
from .delegation import AnsweringTool
from .guardrails import Refuse, screened
from .handoffs import HandBack
from .loop_model import EmptyReply, INTERRUPTED
from .reasoning import refuses_reasoning
from .run import FinishReason, KEY, Over, Run, run_of
from .workflow import Call, Steps

if TYPE_CHECKING:
    from .ai_agent import AIAgent

__all__ = ["Loop"]

TRIES = 3
"""How often a model may call what is no tool, say nothing, or answer what a guardrail refuses, before the run ends."""

CONTINUATIONS = 3
"""How often an answer that a limit on its length cut off is continued."""

COMPRESSIONS = 4
"""How often a conversation is compressed for one request."""

CONTINUE = "Your answer was cut off by a limit on its length. Go on exactly where it ends, and repeat nothing."
LAST_TURN = "No more tools can be used. Give the answer that you have so far."

_NOTHING = Usage()


class Loop:
    """One run of an agent in a session.

    Args:
        agent: whose run it is.
        run: what an earlier run of the session left over.
        control: what others want of it.
        session_id: the session.
        options: parameters of each request.
    """

    def __init__(
        self, agent: AIAgent, run: Run, control: Control, session_id: SessionId, options: dict[str, Any]
    ) -> None:
        self.agent = agent
        self.run = run
        self.control = control
        self.session_id = session_id
        self.options = options
        self.asking = {**options, "control": control}
        tools = agent.actions.tools() if agent.native else None
        self.tools = {**self.asking, "tools": tools} if tools else self.asking
        self.stopping = {"stop": control}
        self.sub_agents = [tool for tool in agent.actions.values() if isinstance(tool, AnsweringTool)]
        back = [tool.name for tool in agent.actions.values() if isinstance(tool, HandBack)]
        self.leaving = {*agent.handoffs, *back}  # the tools after which another agent has the conversation
        self.said: list[str] = []  # the pieces of an answer that is continued
        self.empty = self.refused = 0
        self.reply: AgentMessage | None = None  # the model's last one

    def steps(self, messages: tuple[AgentMessage, ...], system: str | None) -> Steps:
        """The loop; it returns the run's reply."""
        run = self.run
        try:
            if run.active:
                given = yield from self._handed_over(run.active, messages)
            else:
                given = yield from self._opening(messages)
            if system is not None and (text := self.agent.instructed(system)) != self._instructions():
                given.insert(0, system_message(text))
            while True:
                self._check(given)
                given += [unchecked_message(content=text) for text in self.control.spoken()]
                last = run.turns >= self.agent.max_turns
                if last:
                    given.append(_notice(LAST_TURN))
                try:
                    reply = yield from self._ask(given, self.asking if last else self.tools)
                except Stopped as stopped:
                    raise self._over("interrupted", given, str(stopped)) from stopped
                run.turns += 1
                if reply.finish_reason == INTERRUPTED and self.control.reason is not None:  # its beginning stays
                    self.said.append(reply.content)
                    raise self._over("interrupted", [], self.control.reason)
                if reply.tool_calls and not last:
                    given = yield from self._called(reply)
                elif reply.tool_calls:
                    run.unasked = [results_message(self._unmade(reply.tool_calls, NO_RESULT), self.agent.actions.name)]
                    raise Over("max_turns", self._text_of(reply))
                else:
                    given = yield from self._answered(reply, last)
        except Over as over:
            return over.reply or self._reply(over)

    # How it begins and ends

    def _opening(self, messages: tuple[AgentMessage, ...]) -> Generator[Call, AgentMessage, list[AgentMessage]]:
        """What the model is asked first: what was left over, and what is new."""
        run = self.run
        given, run.unasked = run.unasked, []
        decision = decision_of(messages[-1])
        if decision is not None:
            call_id, approved, why = decision
            if call_id not in [call["id"] for call in run.pending]:
                waiting = [call["id"] for call in run.pending]
                raise InvalidArgument("call_id", call_id, f"no such call waits for an approval; waiting are {waiting}")
            run.decisions[call_id] = (approved, why)
            try:
                answered = yield from self._called(self._paused())
            except Over:
                run.unasked += given
                raise
            return answered + given
        if run.pending:
            results = [*run.results, *self._unmade(self._paused().tool_calls or [], "not approved: the user went on")]
            given.insert(0, results_message(results, self.agent.actions.name))
            run.begin_anew()
        for message in messages:
            content = yield from self._let_in(message.content, given)
            changed = content is not message.content
            given.append(message.model_copy(update={"content": content}) if changed else message)
        return given

    def _let_in(self, content: Any, given: list[AgentMessage]) -> Generator[Call, AgentMessage, Any]:
        """What the guardrails leave of what comes in; where they refuse it, what is given waits for the next run."""
        guardrails = self.agent.guardrails.input
        if not guardrails:
            return content
        screening = yield from screened(guardrails, copied(content), self.agent.callbacks)
        if isinstance(screening, Refuse):
            self.run.unasked = given
            raise Over("guardrail", screening.reason, screening.reason)
        return copied(screening)

    def _paused(self) -> AgentMessage:
        """The reply whose calls wait."""
        memory = self._memory()
        reply = memory[-1] if len(memory) else None
        known = {call.id for call in (reply.tool_calls or ())} if reply is not None else set()
        if reply is None or not {call["id"] for call in self.run.pending} <= known:
            raise InvalidArgument("session_id", self.session_id, "its memory no longer has the calls that wait")
        return reply

    def _check(self, given: list[AgentMessage]) -> None:
        """End the run if somebody wants that, or a limit is used up; the messages are kept for the next run."""
        if self.control.reason is not None:
            raise self._over("interrupted", given, self.control.reason)
        used_up = self.agent.limits.used_up(self.run)
        if used_up:
            raise self._over("budget_exceeded", given, used_up)

    def _over(self, reason: FinishReason, unasked: list[AgentMessage], detail: str) -> Over:
        """The end of a run whose model was not given these messages; the next run gives it them."""
        self.run.unasked = [message for message in unasked if not is_mark(message) and message.type != _NOTICE]
        return Over(reason, "".join(self.said) if self.said else self._text_of(self.reply), detail)

    def _reply(self, over: Over) -> AgentMessage:
        last = self.reply
        self.run.unasked += [unchecked_message(content=text) for text in self.control.spoken()]
        return unchecked_message(
            content=over.text,
            sender=self.agent.name,
            finish_reason=over.reason,
            reasoning=None if last is None else last.reasoning,
            model=None if last is None else last.model,
            extra_info={KEY: self.run.dump(over.detail)},
        )

    # The model

    def _ask(self, given: list[AgentMessage], options: dict[str, Any]) -> Generator[Call, AgentMessage, AgentMessage]:
        """The model's reply to what it is given."""
        agent, run = self.agent, self.run
        compressions = 0
        while True:
            run.api_calls += 1
            try:
                reply = yield Call(agent.agent, tuple(given), options)
            except EmptyReply as error:
                self.empty += 1
                if error.usage is not None:
                    run.usage += error.usage
                if self.empty >= TRIES:
                    raise self._over("empty_reply", given, f"the model said nothing {TRIES} times") from error
                self._check(given)
            except ContextLengthExceeded as error:
                compressions += 1
                mark = yield from self._compressed(given)
                if mark is None or compressions > COMPRESSIONS:
                    detail = f"the conversation does not fit the model's window: {error}"
                    raise self._over("context_overflow", given, detail) from error
                given = [mark, *(message for message in given if not is_mark(message))]
            except BudgetExceeded as error:
                run.api_calls -= 1
                raise self._over("budget_exceeded", given, str(error)) from error
            except RequestRefused as error:
                if not (refuses_reasoning(error) and agent.keep_reasoning()):
                    raise
            else:
                self.empty = 0
                self.reply = reply
                if reply.usage is not None:
                    run.usage += reply.usage
                return reply

    def _compressed(self, given: list[AgentMessage]) -> Generator[Call, AgentMessage, AgentMessage | None]:
        """The mark of a compression, to be put before what the model is given; None if there can be none."""
        agent = self.agent
        if agent.compressor is None or agent.training:
            return None
        view = in_view(self._memory(), given)
        messages = [message.clone() for _, message in view]
        made = (yield agent.callbacks.call(agent.compressor, messages)).formatted
        return compressed(view, made, agent.compressor)

    def _answered(self, reply: AgentMessage, last: bool) -> Generator[Call, AgentMessage, list[AgentMessage]]:
        """What the model is asked after an answer that is not the end."""
        if reply.finish_reason == "length":
            self.said.append(reply.content)
            if last or len(self.said) > CONTINUATIONS:
                raise Over("length", "".join(self.said), "the answer was cut off by a limit on its length")
            return [_notice(CONTINUE)]
        text = "".join([*self.said, reply.content])
        said = self.control.spoken()
        if said and not last and self.control.reason is None:
            self.said = []
            return [unchecked_message(content=text) for text in said]
        screening = yield from screened(self.agent.guardrails.output, text, self.agent.callbacks)
        if isinstance(screening, Refuse):
            self.refused += 1
            self.said = []
            if last or self.refused >= TRIES:
                raise Over("guardrail", screening.reason, screening.reason)
            return [_notice(f"This answer was refused: {screening.reason}")]
        if not text.strip():
            raise Over("empty_reply", text)
        raise Over("max_turns" if last else "stop", screening)

    # Its calls

    def _called(self, reply: AgentMessage) -> Generator[Call, AgentMessage, list[AgentMessage]]:
        """The results of a reply's calls, as what the model is asked next."""
        agent, run, calls = self.agent, self.run, reply.tool_calls or []
        results, run.results, run.pending = run.results, [], []
        whole: AgentMessage | None = None
        stop: Over | None = None
        try:
            whole = yield from self._made(reply, calls, results)
        except Over as over:
            if over.reason == "approval_required":
                run.results = results
                raise
            stop = over
        except BudgetExceeded as error:
            stop = Over("budget_exceeded", self._text_of(reply), str(error))
        if stop is not None:
            results += self._unmade(calls[len(results) :], f"this call was not made: {stop.detail}")
        given = [results_message(results, agent.actions.name) if whole is None else whole]
        run.decisions = {}
        if stop is None:
            leaving = next((one for one in results if one.success and one.name in self.leaving), None)
            if leaving is not None:
                run.unasked, run.since = given, 0
                if leaving.name not in agent.handoffs:
                    raise Over("handed_back", self._text_of(reply), leaving.output)
                return (yield from self._handed_over(leaving.name, ()))
            run.bad_turns = run.bad_turns + 1 if any(map(self._is_bad, calls)) else 0
            if run.bad_turns >= TRIES:
                why = f"{TRIES} replies in a row called what is no tool"
                stop = Over("invalid_tool_calls", self._text_of(reply), why)
        if stop is not None:
            run.unasked = given
            raise stop
        return given

    def _made(
        self, reply: AgentMessage, calls: list[ToolCall], results: list[ToolResult]
    ) -> Generator[Call, AgentMessage, AgentMessage | None]:
        """Make the calls that have no result yet; the executor's own message, if that has all results."""
        agent, run = self.agent, self.run
        while len(results) < len(calls):
            if self.control.reason is not None:
                raise Over("interrupted", self._text_of(reply), self.control.reason)
            used_up = agent.limits.used_up(run)
            if used_up:
                raise Over("budget_exceeded", self._text_of(reply), used_up)
            group = self._group(calls, len(results))
            made, refusals = yield from self._permitted(group, calls, results)
            if not made:
                results += [refusals[call.id] for call in group]
                continue
            whole = len(made) == len(calls) and all(map(is_, made, calls))
            given = reply if whole else unchecked_message(content="", sender=agent.agent.name, tool_calls=made)
            run.tool_calls += len(made)
            answer = yield Call(agent.actions, given, self.stopping)
            for tool in self.sub_agents:
                run.usage += tool.spent.pop(self.session_id, _NOTHING)
            by_id = {result.id: result for result in answer.tool_results or ()}
            results += [refusals.get(call.id) or by_id[call.id] for call in group]
            if whole:
                return answer
        return None

    def _group(self, calls: list[ToolCall], start: int) -> list[ToolCall]:
        """The calls to be made next: those in a row whose tools only read, else one."""
        stop = start
        while stop < len(calls) and self._only_reads(calls[stop]):
            stop += 1
        return calls[start : max(stop, start + 1)]

    def _permitted(
        self, group: list[ToolCall], calls: list[ToolCall], results: list[ToolResult]
    ) -> Generator[Call, AgentMessage, tuple[list[ToolCall], dict[str, ToolResult]]]:
        """The calls of a group that may be made, as guardrails leave them, and the results of those that may not."""
        agent, run = self.agent, self.run
        made, refusals = [], {}
        guardrails = agent.guardrails.tool_call
        for place, call in enumerate(group, len(results)):
            screening = yield from screened(guardrails, copied(call) if guardrails else call, agent.callbacks)
            if isinstance(screening, Refuse):
                refusals[call.id] = _refused(call, screening.reason)
                continue
            if not isinstance(screening, ToolCall):
                raise InvalidArgument("guardrails.tool_call", screening, "return None, Refuse(reason) or a ToolCall")
            screening.id = call.id
            why = self._needs_approval(screening)
            if why is not None:
                decision = run.decisions.get(call.id)
                if decision is None and agent.approve_call is not None:
                    asking = agent.callbacks.call(agent.approve_call, copied(screening), stop=self.control)
                    try:
                        decision = verdict((yield asking).formatted)
                    except Stopped as stopped:
                        raise Over("interrupted", self._text_of(self.reply), str(stopped)) from None
                if decision is None:
                    run.pending = self._pending([screening, *calls[place + 1 :]])
                    raise Over("approval_required", self._text_of(self.reply), why)
                if not decision[0]:
                    refusals[call.id] = _refused(call, f"not approved{decision[1] and ': ' + decision[1]}")
                    continue
            made.append(screening)
        return made, refusals

    def _text_of(self, reply: AgentMessage | None) -> str:
        """What a reply says beside its calls."""
        return "" if reply is None else self.agent._shown(reply).content

    def _pending(self, calls: list[ToolCall]) -> list[dict[str, Any]]:
        """Those of the calls that wait for a decision."""
        return [
            {"id": call.id, "name": call.name, "arguments": copied(call.arguments), "reason": why}
            for call in calls
            if call.id not in self.run.decisions and (why := self._needs_approval(call)) is not None
        ]

    def _needs_approval(self, call: ToolCall) -> str | None:
        api = self.agent.actions.find(call.name)
        return None if api is None else api.approval(call.arguments)

    def _unmade(self, calls: list[ToolCall], why: str) -> list[ToolResult]:
        """Results of calls that are not made."""
        known = {result.id for result in self.run.results}
        return [_refused(call, why) for call in calls if call.id not in known]

    def _only_reads(self, call: ToolCall) -> bool:
        api = self.agent.actions.find(call.name)
        return api is None or (api.read_only and api.approval(call.arguments) is None)

    def _is_bad(self, call: ToolCall) -> bool:
        """Whether a call names no tool, or its arguments are no JSON object."""
        if call.error or self.agent.actions.find(call.name) is None:
            return True
        if isinstance(call.arguments, Mapping):
            return False
        try:
            return not isinstance(loads_strictly(call.arguments), dict)
        except ValueError:
            return True

    # Other agents

    def _handed_over(
        self, name: str, messages: tuple[AgentMessage, ...]
    ) -> Generator[Call, AgentMessage, list[AgentMessage]]:
        """Let the agent of a handoff answer; what the model here is asked, if that hands the conversation back.

        Raises:
            Over: with its reply, if it does not.
        """
        agent, run = self.agent, self.run
        if name not in agent.handoffs:
            raise StateError(f"the session was handed over to {name!r}, which is none of the handoffs")
        handoff, run.active, run.pending = agent.handoffs[name], name, []  # what waits is the other's
        if self.control.reason is not None:
            raise Over("interrupted", self._text_of(self.reply), self.control.reason)
        if not run.since:
            shown = agent.transcript.aggregate(self._memory(), agent.agent.name)
            messages = (unchecked_message(content=handoff.brief(shown)), *messages)
            run.since = len(handoff.messages(self.session_id)) + 1
        reply: AgentMessage = yield Call(handoff.agent, messages, self.options)
        back = reply.finish_reason == "handed_back"
        if not back and (not handoff.returns or reply.finish_reason == "approval_required"):
            raise Over("stop", "", reply=handoff.passed_on(reply, run, agent.name))
        told = handoff.report(self.session_id, run.since, run_of(reply).get("detail", "") if back else "")
        run.active, run.since = "", 0
        if not back:
            run.unasked.append(unchecked_message(content=told))
            raise Over("stop", "", reply=handoff.passed_on(reply, run, agent.name))
        run.add(run_of(reply))
        given, run.unasked = run.unasked, []
        told = yield from self._let_in(told, given)
        return [*given, unchecked_message(content=told)]

    def _memory(self) -> Memory:
        assert self.agent.agent.memory is not None
        return self.agent.agent.memory.get(self.session_id)

    def _instructions(self) -> str | None:
        """The session's own instructions."""
        shown = self.agent.agent.aggregator._history(self._memory(), self.agent.agent.name, None)
        return shown[0]["content"] if shown and shown[0]["role"] == "system" else None


_NOTICE = "notice"


def _notice(text: str) -> AgentMessage:
    """What the loop itself says to the model, for one request."""
    return unchecked_message(content=text, type=_NOTICE)


def _refused(call: ToolCall, why: str) -> ToolResult:
    return ToolResult(False, error=why, id=call.id, name=call.name)

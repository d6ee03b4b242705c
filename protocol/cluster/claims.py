"""Claims: one session per peer over all hosts.

A claim is one write when a session's peer is known, and one when its last session ends. A claim of an epoch that is over is
void. If the store does not answer, the session is let in without a claim (or refused, as the user wishes), and claimed when
the store is back. If another host has a session with the same peer by then, the older session stays.

Whoever replaces a claim of another host leaves that host a note first, so that a host which is alive after all learns of it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from heapq import heappop, heappush
from typing import Final

import msgspec

from rlpx.protocol.cluster.hosts import Hosts
from rlpx.protocol.cluster.records import Claim, Note, decode, note_key, peer_key
from rlpx.protocol.cluster.steps import Admitted, Answer, EndSession, Outcome, Refused, Step
from rlpx.protocol.cluster.store import Store
from rlpx.protocol.errors import DisconnectReason

# So many claims are looked at again at once after the store was away; the claims of new sessions go on beside them.
REVIEW_CLAIMS: Final = 256
# A lost call is repeated after this time.
RETRY_SECONDS: Final = 1.0
# A note is written before the claim is replaced, so its reader looks when that is probably over, and when it must be.
NOTED_SECONDS: Final = 1.0
RECHECK_SECONDS: Final = 5.0
# A note that nobody has read is of no use after this time: its host is gone, or has looked at all its claims anew.
NOTE_SECONDS: Final = 600.0


class State(Enum):
    """What the store has of a claim as far as we know: nothing yet, our record, or nobody knows, though it has sessions."""

    ASKING = auto()
    HELD = auto()
    LOOSE = auto()


class Held(msgspec.Struct, gc=False):
    """The claim of one peer, and its sessions here, which are two if they cross. `unanswered` ones await their verdict.

    A write of it is `may_be_late` if it was lost: it may be done even later, unless another write comes before it.
    It `is_doubtful` after an outage or a note until the store has been asked: another host may have it now.
    """

    peer: bytes
    session: int
    since_us: int
    state: State = State.ASKING
    revision: int = 0
    sessions: list[int] = msgspec.field(default_factory=list)
    unanswered: list[int] = msgspec.field(default_factory=list)
    may_be_late: bool = False
    is_doubtful: bool = False
    is_busy: bool = False

    @property
    def has_begun(self) -> bool:
        """Whether a session has been admitted."""
        return len(self.unanswered) < len(self.sessions)


class Claims:
    """See the module. `lets_in`: whether a session may begin while the store is away."""

    def __init__(self, hosts: Hosts, store: Store, steps: list[Step], *, lets_in: bool) -> None:
        self._hosts = hosts
        self._store = store
        self._steps = steps
        self._lets_in = lets_in
        self._held: dict[bytes, Held] = {}
        self._of_session: dict[int, Held] = {}
        # Claims to look at again: now, as many at once as is good for the store, and later.
        self._to_review: deque[bytes] = deque()
        self._reviewing = 0
        self._later: list[tuple[float, bytes]] = []
        # Sessions that are claimed, but whose host has to make sure of itself or of the claim first.
        self._gated: deque[Held] = deque()
        # Whether our host has a place for each of its sessions, and is sure of them or has nobody to ask.
        self.is_open: Callable[[float], bool] = lambda _now: False

    def __len__(self) -> int:
        return len(self._held)

    def states(self) -> Counter[State]:
        """The number of claims by their state. Those that are `LOOSE` have sessions, but are not in the store."""
        return Counter(held.state for held in self._held.values())

    @property
    def is_settled(self) -> bool:
        """Whether no claim waits to be looked at again."""
        return not self._to_review and not self._reviewing and not self._later

    def holds(self, peer: bytes) -> bool:
        """Whether the store has our claim of this peer, as far as we know."""
        held = self._held.get(peer)
        return held is not None and held.state is State.HELD and not held.is_busy and not held.is_doubtful

    # -- sessions -----------------------------------------------------------------------------------------------------------

    def claim(self, session: int, peer: bytes, since_us: int, now: float) -> None:
        """A session's peer is known: `Admitted` or `Refused` follows, unless the session is released before."""
        held = self._held.get(peer)
        if held is None:
            held = self._held[peer] = Held(peer, session, since_us)
        elif not held.sessions:
            # Its age is that of the session, not that of a claim which was not erased yet.
            held.session, held.since_us = session, since_us
            if held.state is State.LOOSE:
                held.state = State.ASKING
        self._of_session[session] = held
        held.sessions.append(session)
        held.unanswered.append(session)
        if held.is_busy:
            return
        if held.state is not State.ASKING:
            self._admit(held, now)
        elif self._hosts.is_away:
            self._on_silence(held, now)
        else:
            self._put(held, 0)

    def release(self, session: int, now: float) -> None:
        """A session has ended; a second release is harmless."""
        held = self._of_session.pop(session, None)
        if held is None:
            return
        held.sessions.remove(session)
        if session in held.unanswered:
            held.unanswered.remove(session)
        self._drop(held, now)

    def on_note(self, key: str, revision: int, peer: bytes, now: float) -> None:
        """Another host replaces our claim of this peer."""
        self._store.erase(key, revision, lambda _answer, _now: None)
        held = self._held.get(peer)
        if held is not None:
            held.is_doubtful = True
            for wait_s in (NOTED_SECONDS, RECHECK_SECONDS):
                heappush(self._later, (now + wait_s, peer))

    # -- the store ----------------------------------------------------------------------------------------------------------

    def on_return(self, *, writes: bool = False) -> None:
        """The store has been away, or this host has: look at every claim again, and write it anew if others may erase it."""
        self._to_review.extend(self._held)
        for held in self._held.values():
            held.is_doubtful = True
            held.may_be_late = held.may_be_late or writes

    def tick(self, now: float) -> None:
        """Go on with what waits."""
        while self._later and self._later[0][0] <= now:
            self._to_review.append(heappop(self._later)[1])
        if not self._hosts.is_away and self._hosts.is_firm(now):
            # Before that others may believe that we are gone, and take what we claim.
            while self._to_review and self._reviewing < REVIEW_CLAIMS:
                self._review(self._to_review.popleft(), now)
        for _ in range(len(self._gated)):
            self._admit_gated(self._gated.popleft(), now)

    def _put(self, held: Held, expected: int) -> None:
        me = self._hosts.me
        held.is_busy = True
        record = Claim(me.host, me.epoch, held.session, held.since_us)
        self._store.put(peer_key(held.peer), record, expected, partial(self._on_put, held))

    def _on_put(self, held: Held, answer: Answer, now: float) -> None:
        held.is_busy = False
        if answer.outcome is Outcome.DONE:
            self._on_ours(held, answer.revision, now)
        elif answer.outcome is Outcome.CONFLICT:
            self._on_found(held, answer, now)
        else:
            held.may_be_late = True
            self._again(held, now)
            self._on_silence(held, now)

    def _on_ours(self, held: Held, revision: int, now: float) -> None:
        """The store has our claim, and no earlier write of it can be done any more."""
        held.state, held.revision, held.may_be_late, held.is_doubtful = State.HELD, revision, False, False
        self._admit(held, now)
        self._drop(held, now)

    def _on_found(self, held: Held, found: Answer, now: float) -> None:
        """The store has this record of the peer, or none."""
        me = self._hosts.me
        claim = decode(Claim, found.value)
        is_ours = claim is not None and (claim.host, claim.epoch) == (me.host, me.epoch)
        if is_ours and not held.may_be_late:
            self._on_ours(held, found.revision, now)
        elif claim is None or is_ours:
            # Nobody's, nonsense, or ours with a late write on the way. Even without sessions a claim is written then, and
            # erased: a late write finds another revision.
            if held.sessions or held.may_be_late:
                self._put(held, found.revision)
            else:
                self._forget(held)
        elif not held.sessions and held.may_be_late:
            self._touch(held, claim, found.revision)
        elif not held.sessions:
            self._forget(held)
        elif self._hosts.is_dead(claim.host, claim.epoch, now):
            self._confirm(held, claim, found.revision)
        else:
            self._on_rival(held, claim, found.revision, now)

    def _touch(self, held: Held, claim: Claim, revision: int) -> None:
        """Write another host's claim as it is, so that a late write of ours over this revision is refused."""
        held.is_busy = True

        def on_touched(answer: Answer, now: float) -> None:
            held.is_busy = False
            if answer.outcome is Outcome.LOST:
                self._again(held, now)
                return
            held.may_be_late = False
            if held.sessions:
                self._put(held, 0)
            else:
                self._forget(held)

        self._store.put(peer_key(held.peer), claim, revision, on_touched)

    def _confirm(self, held: Held, claim: Claim, revision: int) -> None:
        """The claim of an epoch that seems to be over is replaced once that is confirmed."""
        held.is_busy = True

        def on_confirmed(is_dead: bool, now: float) -> None:  # noqa: FBT001 - the answer to a question
            held.is_busy = False
            if not held.sessions:
                self._drop(held, now)
            elif is_dead:
                self._replace(held, claim, revision)
            else:
                self._on_rival(held, claim, revision, now)

        self._hosts.confirm_dead(claim.host, claim.epoch, on_confirmed)

    def _replace(self, held: Held, claim: Claim, revision: int, over: int = 0) -> None:
        """Leave the other host a note, over an earlier one, then replace its claim."""
        held.is_busy = True

        def on_noted(answer: Answer, now: float) -> None:
            held.is_busy = False
            if not held.sessions:
                self._drop(held, now)
            elif answer.outcome is Outcome.LOST:
                self._again(held, now)
                self._on_silence(held, now)
            elif answer.outcome is Outcome.CONFLICT:
                # The host has read an earlier note perhaps, and has to see a new one.
                self._replace(held, claim, revision, over=answer.revision)
            else:
                self._put(held, revision)

        note = Note(self._hosts.me.host)
        self._store.put(note_key(claim.host, held.peer), note, over, on_noted, ttl_s=NOTE_SECONDS)

    def _on_rival(self, held: Held, claim: Claim, revision: int, now: float) -> None:
        """A host that lives has a session with the peer. Ours is refused if it has not begun; else the older one stays."""
        cause = f"the peer has session {claim.session} at host {claim.host} already"
        ours = Claim(self._hosts.me.host, self._hosts.me.epoch, held.session, held.since_us)
        if held.has_begun and ours.is_older(claim):
            self._replace(held, claim, revision)
            return
        # The store has another's claim, not ours.
        held.state = State.ASKING
        self._end(held, cause, now)

    def _on_silence(self, held: Held, now: float) -> None:
        """The store does not answer."""
        if self._lets_in or held.state is not State.ASKING:
            if held.sessions and held.state is State.ASKING:
                held.state = State.LOOSE
            self._admit(held, now)
            self._drop(held, now)
        else:
            self._end(held, "the fleet cannot be asked whether another host has the peer", now)

    def _end(self, held: Held, cause: str, now: float) -> None:
        """Refuse or end all sessions of a peer that is not ours."""
        ended, held.sessions = held.sessions, []
        refused, held.unanswered = held.unanswered, []
        reason = DisconnectReason.ALREADY_CONNECTED
        for session in ended:
            del self._of_session[session]
            kind = Refused if session in refused else EndSession
            self._steps.append(kind(session, reason, cause))
        self._drop(held, now)

    def _admit(self, held: Held, now: float) -> None:
        """Admit the sessions of a claim that is ours, or let in without one, once our host is sure of itself and of it."""
        if not held.unanswered:
            return
        if not self.is_open(now) or (held.is_doubtful and not (self._hosts.is_away and self._lets_in)):
            self._gated.append(held)
            return
        admitted, held.unanswered = held.unanswered, []
        self._steps.extend(map(Admitted, admitted))

    def _admit_gated(self, held: Held, now: float) -> None:
        """Admit sessions that have waited, unless the store is being asked about their peer, or will be."""
        is_ours = held.state is State.HELD or (held.state is State.LOOSE and self._hosts.is_away)
        if is_ours and not held.is_busy:
            self._admit(held, now)
        elif held.unanswered:
            self._gated.append(held)

    # -- ends ---------------------------------------------------------------------------------------------------------------

    def _drop(self, held: Held, now: float) -> None:
        """If a claim has no sessions any more, see that the store has none of ours either."""
        if held.sessions or held.is_busy:
            return
        if held.state is State.HELD and not self._hosts.is_away:
            held.is_busy = True
            self._store.erase(peer_key(held.peer), held.revision, partial(self._on_erased, held))
        elif held.state is State.HELD or held.may_be_late:
            self._again(held, now)
        else:
            self._forget(held)

    def _on_erased(self, held: Held, answer: Answer, now: float) -> None:
        held.is_busy = False
        if answer.outcome is Outcome.LOST:
            held.state, held.may_be_late = State.ASKING, True
            self._again(held, now)
            self._on_silence(held, now)
            return
        held.state = State.ASKING
        if answer.outcome is Outcome.CONFLICT:
            # Another host has replaced it, or a write of ours was done without our knowledge.
            self._on_found(held, answer, now)
            return
        held.may_be_late = False
        if held.sessions:
            # The peer has come again meanwhile.
            held.session = held.sessions[0]
            self._put(held, 0)
        else:
            self._forget(held)

    def _forget(self, held: Held) -> None:
        self._held.pop(held.peer, None)

    # -- looking again ------------------------------------------------------------------------------------------------------

    def _again(self, held: Held, now: float) -> None:
        heappush(self._later, (now + RETRY_SECONDS, held.peer))

    def _review(self, peer: bytes, now: float) -> None:
        held = self._held.get(peer)
        if held is None:
            return
        if held.is_busy:
            self._again(held, now)
            return
        self._reviewing += 1
        held.is_busy = True

        def on_read(answer: Answer, then: float) -> None:
            self._reviewing -= 1
            held.is_busy = False
            if answer.outcome is Outcome.LOST:
                self._again(held, then)
                self._on_silence(held, then)
            else:
                self._on_found(held, answer, then)

        self._store.read(peer_key(peer), on_read)

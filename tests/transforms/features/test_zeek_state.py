"""Zeek's `conn_state` and `history` against the words of its documentation and a second telling of its machine."""

import re

import pytest
from flow_testing import fold_family, packets
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms import records
from transforms.features import tcp_quality
from transforms.features.zeek_state import LETTERS
from transforms.records import ACK, FIN, RST, SYN

FLAGS = {"S": SYN, "H": SYN | ACK, "A": ACK, "D": ACK, "F": FIN | ACK, "R": RST}


def conversation(letters, **columns):
    """A packet for each letter: capital ones from the initiator; D carries 10 octets. Sequence numbers follow on."""
    flow = packets(
        range(len(letters)),
        payload=[10 if letter in "Dd" else 0 for letter in letters],
        forward=[letter.isupper() for letter in letters],
        flags=[FLAGS[letter.upper()] for letter in letters],
    )
    following = {True: 1000, False: 5000}
    for packet, letter in zip(flow, letters, strict=True):
        packet["tcp_seq"] = following[letter.isupper()]
        following[letter.isupper()] += {"S": 1, "H": 1, "D": 10, "F": 1}.get(letter.upper(), 0)
    for name, values in columns.items():
        flow[name] = values
    return flow


def zeek(flow):
    found = fold_family(tcp_quality, flow)
    return found["conn_state"], found["history"]


@pytest.mark.parametrize(
    ("letters", "conn_state"),
    [
        ("S", "S0"),
        ("Sh", "S1"),
        ("ShADad", "S1"),
        ("ShADadFf", "SF"),
        ("ShADadfF", "SF"),
        ("Sr", "REJ"),
        ("ShAF", "S2"),
        ("ShAf", "S3"),
        ("ShADR", "RSTO"),
        ("ShADr", "RSTR"),
        ("SR", "RSTOS0"),
        ("hr", "RSTRH"),
        ("SF", "SH"),
        ("hf", "SHR"),
        ("h", "OTH"),
        ("ADad", "OTH"),
        ("R", "OTH"),
        ("DR", "OTH"),
        ("ShAFfR", "SF"),
        ("ShAFr", "RSTR"),
        ("ShADfR", "RSTO"),
        ("ShAR", "RSTO"),
        ("ShARr", "REJ"),
        ("ShADRr", "RSTR"),
        ("Sa", "S0"),
    ],
)
def test_conn_states(letters, conn_state):
    """Each word of Zeek's documentation, and what its script makes of odd endings."""
    assert zeek(conversation(letters)) == (conn_state, letters)


def test_reset_after_fin_is_undone_by_the_fin_of_the_peer():
    """FIN and RST of one side, then the peer's FIN: a normal end."""
    assert zeek(conversation("ShADFRf")) == ("SF", "ShADFRf")


def test_data_and_acks_have_one_letter_for_each_side():
    """However many there are."""
    assert zeek(conversation("ShADDAadda")) == ("S1", "ShADad")


def test_control_packets_have_another_letter_for_another_sequence_number():
    """The same SYN, FIN or RST again has none."""
    flow = conversation("SSShFFR" + "RR")
    flow["tcp_seq"] = [1, 1, 2, 9, 7, 8, 5, 5, 6]
    assert zeek(flow)[1] == "SShFFRR"


def test_fin_is_known_by_its_end():
    """A FIN that repeats less of the payload before it is the same FIN, across the wrap of sequence numbers too."""
    flow = conversation("FF", payload_octets=[10, 4], tcp_seq=[(1 << 32) - 5, 1])
    assert zeek(flow)[1] == "FT"


def test_flags_that_exclude_each_other():
    """I for FIN with RST, Q for SYN with either, once for each side."""
    flow = conversation("SSSSs")
    flow["tcp_flags"] = [FIN | RST, FIN | RST, SYN | FIN, SYN | RST, SYN | FIN | RST]
    assert zeek(flow)[1] == "IQi"


@pytest.mark.parametrize(("repeats", "letters"), [(1, "T"), (9, "T"), (10, "TT"), (99, "TT"), (100, "TTT")])
def test_retransmissions_have_letters_by_powers_of_ten(repeats, letters):
    """The 1st, 10th, 100th packet whose payload ends at or below the highest."""
    flow = conversation("ShA" + "D" * (repeats + 1))
    flow["tcp_seq"][3:] = 1001
    assert zeek(flow)[1] == "ShAD" + letters


def test_zero_windows_have_letters_by_powers_of_ten():
    """Not with RST, and not after the peer's FIN."""
    flow = conversation("ShA" + "a" * 12 + "FaR")
    flow["tcp_window"][3:] = 0
    assert zeek(flow)[1] == "ShAawwFWR"


def test_letters_beyond_the_last_are_dropped():
    """A storm of RSTs fills the history and no more."""
    flow = conversation("S" + "r" * 40, tcp_seq=range(41))
    assert zeek(flow)[1] == "S" + "r" * (LETTERS - 1)


@pytest.mark.parametrize(
    ("forward", "expected"),
    [([True], ("S0", "D")), ([True, False], ("SF", "Dd")), ([False], ("SHR", "d")), ([False, True], ("SF", "dD"))],
    ids=["unanswered", "answered", "answer-only", "part-that-begins-with-the-answer"],
)
def test_udp(forward, expected):
    """Who sent anything, in the order of the first packets; empty datagrams count."""
    assert zeek(packets(range(len(forward)), forward=forward, protocol=records.UDP)) == expected


def test_other_protocols_have_no_state():
    """As in Zeek, ICMP is OTH and has no history."""
    assert zeek(packets([0, 1], forward=[True, False], protocol=records.ICMP)) == ("OTH", None)


def test_tcp_without_a_whole_header():
    """Nothing is known of it."""
    assert zeek(packets([0], transport=records.TRANSPORT_TRUNCATED)) == ("OTH", None)


class EndPoint:
    def __init__(self):
        self.state, self.previous, self.last = "INACTIVE", None, {}

    def become(self, state):
        if state != self.state:
            self.previous, self.state = self.state, state


def zeek_again(flow):
    """Zeek's TCPSessionAdapter step by step, with the previous state it keeps; no T, no W."""
    orig, resp, history = EndPoint(), EndPoint(), ""
    for packet in flow:
        is_orig = packet["src_port"] == 1234
        me, peer = (orig, resp) if is_orig else (resp, orig)
        payload, seq, flags = int(packet["payload_octets"]), int(packet["tcp_seq"]), int(packet["tcp_flags"])
        syn, fin, rst, ack = (bool(flags & bit) for bit in (SYN, FIN, RST, ACK))
        for kind, letter, key in letters_of(syn, fin, rst, ack, payload, seq):
            if kind not in me.last or me.last[kind] != key:
                history += letter if is_orig else letter.lower()
            me.last[kind] = key
        state = me.state
        if state == "INACTIVE":
            if syn and is_orig:
                me.become("SYN_ACK_SENT" if ack else "SYN_SENT")
            elif syn:
                if peer.state == "SYN_SENT":
                    peer.become("ESTABLISHED")
                me.become("ESTABLISHED")
            if fin:
                me.become("CLOSED")
            if rst:
                me.become("RESET")
            if me.state == "INACTIVE":
                if not is_orig and payload == 0 and orig.state == "SYN_SENT":
                    pass
                elif ack and peer.state == "ESTABLISHED":
                    me.become("ESTABLISHED")
                else:
                    me.become("PARTIAL")
        elif state in ("SYN_SENT", "SYN_ACK_SENT"):
            if fin:
                me.become("CLOSED")
            if rst:
                me.become("RESET")
        elif state in ("ESTABLISHED", "PARTIAL"):
            if syn and state == "PARTIAL" and peer.state == "INACTIVE" and not ack:
                me.become("SYN_SENT")
            if fin and not rst:
                me.become("CLOSED")
                if peer.state == "RESET" and peer.previous == "CLOSED":
                    peer.become("CLOSED")
            if rst:
                me.become("RESET")
        elif state == "CLOSED" and rst and peer.state != "CLOSED":
            me.become("RESET")
    return word(orig.state, resp.state, history, not flow["payload_octets"].any()), history[:LETTERS] or None


def letters_of(syn, fin, rst, ack, payload, seq):
    if syn + fin + rst > 1:
        yield ("IR", "I", 0) if fin and rst else ("Q", "Q", 0)
    elif syn:
        yield "SYN", "H" if ack else "S", seq
    elif fin:
        yield "FIN", "F", seq + payload
    elif rst:
        yield "RST", "R", seq
    elif payload:
        yield "D", "D", 0
    elif ack:
        yield "A", "A", 0


def word(orig, resp, history, no_payload):
    """The function `conn_state` of Zeek's script."""
    idle = ("INACTIVE", "PARTIAL")
    if resp == "RESET":
        if orig in ("SYN_SENT", "SYN_ACK_SENT") or (orig == "RESET" and no_payload):
            return "REJ"
        return "RSTRH" if orig in idle else "RSTR"
    if orig == "RESET":
        if resp in idle:
            return "RSTOS0" if re.fullmatch("S[^HAFGIQ]*R.*", history) else "OTH"
        return "RSTO"
    if orig == "CLOSED" or resp == "CLOSED":
        if orig == resp:
            return "SF"
        if orig == "CLOSED":
            return "SH" if resp in idle else "S2"
        return "SHR" if orig in idle else "S3"
    return {("SYN_SENT", "INACTIVE"): "S0", ("ESTABLISHED", "ESTABLISHED"): "S1"}.get((orig, resp), "OTH")


USUAL = st.sampled_from([SYN, SYN | ACK, ACK, ACK, FIN | ACK, RST, RST | ACK])
ANY = st.sampled_from([0, FIN, SYN, RST, FIN | SYN, FIN | RST, SYN | RST, FIN | SYN | RST]).flatmap(
    lambda control: st.sampled_from([control, control | ACK])
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(USUAL | ANY, st.booleans(), st.integers(0, 2), st.booleans()), min_size=1, max_size=16))
def test_any_packets_equal_zeek_told_again(drawn):
    """Random flags of either side, sensible or not."""
    flags, forward, seq, with_payload = ([*column] for column in zip(*drawn, strict=True))
    flow = packets(
        [0] * len(drawn), payload=[7 * some for some in with_payload], flags=flags, forward=forward, tcp_seq=seq
    )
    conn_state, history = zeek(flow)
    assert (conn_state, (history or "").translate({ord("T"): None, ord("t"): None}) or None) == zeek_again(flow)

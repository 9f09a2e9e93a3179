"""Alerts as posts to a receiver in this process."""

import hashlib
import hmac
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import alert_testing
import pytest
import sink_testing
from servers.certificates import write_certificates
from webhook_testing import Receiver, serving

from sinks import outputs, webhook
from sinks.blocks import Sent, Unavailable
from sinks.outputs import parse_url
from transforms.records import InputError


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    yield from serving(Receiver())


def opened(url, flows, **of):
    ((_, sink),) = outputs.open_outputs([url], alert_testing.context(flows, **of))
    return sink


def send(url, flows, **of) -> Sent:
    """Sends one block as a worker would."""
    sender = opened(url, flows, **of).sender()
    try:
        return sender.send(flows)
    finally:
        sender.close()


def test_alerts_are_posted_once_for_source_and_class(receiver):
    """Over batches; what is no alert and what has no value is not posted, nor are features."""
    flows = alert_testing.scored(range(4), [True, False, True, True], src_ip=["10.0.0.1"] * 3 + ["2001:db8::1"])
    counters = sink_testing.run([flows, flows], opened(receiver.url, flows))
    assert [alert["src_ip"] for alert in receiver.alerts] == ["10.0.0.1", "2001:db8::1"]
    assert (counters["records_written"], counters["alerts_suppressed"]) == (2, 4)
    one = receiver.alerts[0]
    assert one["flow_id"] == sink_testing.flow_id(0).hex()
    assert one["flow_start_ns"] == sink_testing.START_NS
    assert one["explanation"] == [{"feature": "fwd_packets", "contribution": 0.5}]
    assert (one["predicted_class"], one["score"], one["is_alert"]) == ("scan", pytest.approx(0.9), True)
    assert not {"tunnel", "fwd_iat_mean_us"} & one.keys()


def test_flows_that_were_meant_for_another_output_are_posted_if_they_are_alerts(receiver):
    """Blocks that are resent have all flows; those that are posted count as written."""
    sent = send(receiver.url, alert_testing.scored(range(3), [True, False, True], src_ip=["10.0.0.1"] * 3))
    assert [alert["flow_id"] for alert in receiver.alerts] == [sink_testing.flow_id(n).hex() for n in (0, 2)]
    assert (sent.written, sent.counts["records_left_out"]) == (2, 1)


def test_the_id_is_that_of_the_window(receiver):
    """Whichever flow of it came first."""
    for numbers in ([0], [200], [300]):
        flows = alert_testing.scored(numbers)
        sink_testing.run([flows], opened(f"{receiver.url}?window_s=300", flows))
    first, other, later = (alert["id"] for alert in receiver.alerts)
    assert first == other != later


def test_every_alert_is_posted_without_a_window(receiver):
    flows = alert_testing.scored(range(5))
    sink_testing.run([flows], opened(f"{receiver.url}?window_s=0&per_post=2", flows))
    assert [len(json.loads(body)["alerts"]) for _, body, _ in receiver.posts] == [2, 2, 1]
    assert [alert["id"] for alert in receiver.alerts] == [sink_testing.flow_id(number).hex() for number in range(5)]


def test_posts_are_signed(receiver, monkeypatch, tmp_path):
    """By the secret of a file here, over the time of posting and the body."""
    (tmp_path / "secret").write_text("Zürich\n", encoding="utf-8")
    monkeypatch.setenv("FLOWBEAM_WEBHOOK_SECRET_FILE", str(tmp_path / "secret"))
    monkeypatch.setenv("FLOWBEAM_WEBHOOK_AUTHORIZATION", "Bearer abc")
    flows = alert_testing.scored([1])
    send(receiver.url, flows)
    ((headers, body, _),) = receiver.posts
    signed = hmac.new("Zürich".encode(), headers["X-Flowbeam-Timestamp"].encode() + b"." + body, hashlib.sha256)
    assert headers["X-Flowbeam-Signature"] == f"sha256={signed.hexdigest()}"
    assert headers["Authorization"] == "Bearer abc"


def test_posts_come_no_faster_than_allowed(receiver):
    flows = alert_testing.scored(range(5))
    send(f"{receiver.url}?window_s=0&per_post=1&posts_per_s=50", flows)
    times = [at for _, _, at in receiver.posts]
    assert times[-1] - times[0] >= 4 / 50 * 0.9


def test_what_may_pass_is_tried_again(receiver):
    """Busy, broken, cut off in the middle: the same post comes until it is taken, with the same key."""
    flows = alert_testing.scored([1])
    receiver.answers = [(429, {"Retry-After": "1"}), (503, {}), None, (500, {"Connection": "close"})]
    began = time.monotonic()
    sent = send(receiver.url, flows)
    assert (sent.written, sent.tries, sent.rejects) == (1, 5, [])
    assert time.monotonic() - began >= 1
    assert len({headers["Idempotency-Key"] for headers, _, _ in receiver.posts}) == 1


@pytest.mark.parametrize("status", [301, 400, 401, 413])
def test_what_is_refused_is_rejected(receiver, status):
    """Each alert by itself; the next post is another matter."""
    flows = alert_testing.scored(range(3))
    receiver.answers = [(status, {"Location": "/elsewhere"})]
    sent = send(f"{receiver.url}?window_s=0&per_post=2", flows)
    assert [reject[:3] for reject in sent.rejects] == [
        ("webhook", f"refused with status {status}", str(outputs.parse_url(receiver.url)))
    ] * 2
    assert json.loads(sent.rejects[1].payload)["flow_id"] == sink_testing.flow_id(1).hex()
    assert (sent.written, len(receiver.posts)) == (1, 2)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "see that FLOWBEAM_WEBHOOK_AUTHORIZATION and FLOWBEAM_WEBHOOK_SECRET are right"),
        (403, "see that FLOWBEAM_WEBHOOK_AUTHORIZATION and FLOWBEAM_WEBHOOK_SECRET are right"),
        (404, "see that the address is right"),
        (405, "see that the address is right"),
        (410, "see that the address is right"),
    ],
)
def test_a_receiver_that_takes_no_posts_is_one_line_at_start(receiver, monkeypatch, status, remedy):
    """It is asked by a post without alerts, signed and authorized as all are, unless that is not wanted."""
    monkeypatch.setenv("FLOWBEAM_WEBHOOK_SECRET", "s3cret")
    monkeypatch.setenv("FLOWBEAM_WEBHOOK_AUTHORIZATION", "Bearer me")
    receiver.check_status = status
    flows = alert_testing.scored([1])
    with pytest.raises(InputError, match=f"a post without alerts is answered {status}; {remedy}, or leave this"):
        opened(receiver.url, flows)
    (headers,) = receiver.checks
    signed = headers["X-Flowbeam-Timestamp"].encode() + b'.{"alerts":[]}'
    assert headers["X-Flowbeam-Signature"] == f"sha256={hmac.new(b's3cret', signed, hashlib.sha256).hexdigest()}"
    assert headers["Authorization"] == "Bearer me"
    opened(f"{receiver.url}?check=no", flows)
    assert len(receiver.checks) == 1


@pytest.mark.parametrize("status", [200, 400, 429, 503])
def test_a_receiver_that_may_take_posts_is_no_mistake(receiver, status):
    receiver.check_status = status
    assert send(receiver.url, alert_testing.scored([1])).written == 1
    assert (len(receiver.checks), len(receiver.posts)) == (1, 1)


def test_a_receiver_that_stays_away_is_one_line(receiver):
    flows = alert_testing.scored([1])
    receiver.answers = [(503, {})] * 1000
    with pytest.raises(InputError, match=r"gave up after .*: 503"):
        send(receiver.url, flows, retry_s=0.2)


def test_tls_checks_who_answers(tmp_path):
    write_certificates(tmp_path / "server.pem", tmp_path / "authority.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    flows = alert_testing.scored([1])
    for server in serving(Receiver(context)):
        send(f"{server.url}?ca={tmp_path}/authority.pem", flows)
        assert len(server.alerts) == 1
        with pytest.raises(InputError, match=r"no TLS connection .*; name the authority with ca=FILE"):
            opened(server.url, flows)


def test_a_receiver_that_goes_away_in_the_middle_of_a_handshake_is_tried_again():
    """As one behind a balancer does that is restarted; it is no mistake of the user."""

    def hangs_up() -> None:
        with listening.accept()[0] as one:
            one.recv(1)
            one.shutdown(socket.SHUT_WR)
            while one.recv(4096):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=hangs_up)
        thread.start()
        url = parse_url(f"webhook:https://127.0.0.1:{listening.getsockname()[1]}/")
        with pytest.raises(Unavailable, match="EOF"):
            webhook.connected(webhook.receiver_of(url))
        thread.join()


def test_an_address_may_be_a_secret(receiver, monkeypatch):
    """Then no message has it."""
    monkeypatch.setenv("RECEIVER", receiver.url.removeprefix("webhook:"))
    flows = alert_testing.scored([1])
    receiver.answers = [(400, {})]
    (reject,) = send("webhook:env:RECEIVER", flows).rejects
    assert reject.source == "webhook:env:RECEIVER"
    assert json.loads(reject.payload)["src_ip"] == "10.0.0.1"


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("webhook:example.org/alerts", "write webhook:https://HOST/PATH"),
        ("webhook:http://example.org/alerts", "alerts would travel in the clear; write https"),
        ("webhook:https://user:pw@example.org/", "must not carry a password; set FLOWBEAM_WEBHOOK_AUTHORIZATION"),
        ("webhook:env:NOWHERE", "there is no environment variable NOWHERE"),
        ("webhook:http://127.0.0.1:1/?window_s=-1", "window_s=-1 is no number from 0"),
        ("webhook:http://127.0.0.1:1/?check=maybe", "check=maybe; it is yes or no"),
        ("webhook:http://127.0.0.1:1/?token=x", "unknown parameter 'token'"),
        ("webhook:http://127.0.0.1:1/?ca=/nowhere.pem", "ca=/nowhere.pem cannot be read"),
        ("webhook:http://127.0.0.1:1/", "Connection refused; see that it is up and the address right"),
    ],
)
def test_settings_are_checked_at_start(url, line):
    with pytest.raises(InputError, match=line):
        opened(url, alert_testing.scored([1]))


def test_without_scores_there_are_no_alerts(receiver):
    with pytest.raises(InputError, match="there are alerts only where flows are scored; add --model DIR"):
        opened(receiver.url, sink_testing.flows([1]))

import pytest
from sink_testing import START_NS, bundle, flows, schema_of, write

from sinks import outputs, terminal
from sinks.outputs import SinkContext
from sinks.terminal import Screen
from transforms.records import InputError

CONTEXT = SinkContext(("cic@1",), schema_of(), "terminal", streaming=True)


class Clock:
    """Seconds that pass when told."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def watched():
    """A screen of two rows a second, its clock, and what it wrote."""
    clock, written = Clock(), []
    screen = Screen(2, clock, lambda octets: written.extend(octets.decode().splitlines()))
    yield screen, clock, written
    if screen._notice is not None:
        screen._notice.cancel()


def test_a_flow_is_a_row_that_a_person_reads(watched):
    screen, _, written = watched
    values = {"fwd_packets": 17, "rev_packets": 24, "fwd_ip_octets": 3310, "rev_ip_octets": 26634, "end_reason": 3}
    flow = flows([1], protocol=6, src_port=47444, dst_port=443, flow_end_ns=START_NS + 1_785_432_100, **values)
    assert screen.show(flow) == 1
    assert written == [
        "ended         from                   to                     protocol  packets        octets    duration  end",
        "13:00:01.785  10.0.0.1:47444         10.0.0.2:443           tcp            41        29,944      0.79 s  end",
    ]


def test_rows_stay_in_columns_that_grow_with_what_is_in_them(watched):
    screen, clock, written = watched
    screen.show(flows([1], protocol=17, src_ip="2001:db8:1111:2222:3333:4444:5555:6666", src_port=53, end_reason=1))
    clock.now = 1.0
    screen.show(flows([2], protocol=1, src_port=8, end_reason=4))
    screen.show(flows([3], protocol=89))
    header, udp, icmp, ospf = written
    assert "[2001:db8:1111:2222:3333:4444:5555:6666]:53  10.0.0.2:0 " in udp
    assert header.index("protocol") == udp.index("udp") == icmp.index("icmp") == ospf.index("89")
    assert "10.0.0.1 " in icmp
    assert (udp.split()[-1], icmp.split()[-1], ospf.split()[-1]) == ("idle", "forced", "s")


def test_so_many_rows_a_second_and_a_count_of_the_others(watched):
    """A flood costs no more than a trickle."""
    screen, clock, written = watched
    assert screen.show(flows(range(5000))) == 2
    assert screen.show(flows(range(10))) == 0
    screen.tell_hidden()
    screen.tell_hidden()
    assert written[3:] == [f"{'':14}… 5,008 more"]
    clock.now = 0.5
    assert screen.show(flows(range(10))) == 1
    clock.now = 100.0
    assert screen.show(flows(range(10))) == 2


def test_the_count_comes_by_itself(watched, monkeypatch):
    """Also if nothing follows."""
    monkeypatch.setattr(terminal, "_NOTICE_S", 0.01)
    screen, _, written = watched
    screen.show(flows(range(3)))
    notice = screen._notice
    notice.join(60)
    assert written[-1].endswith("… 1 more")


def test_a_terminal_has_colours_and_a_pipe_has_none(watched, monkeypatch):
    screen, _, written = watched
    monkeypatch.setattr(terminal.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen.show(flows([1], protocol=6))
    assert "\x1b[" in written[1]


def test_only_final_records_are_shown(capfd):
    """In a job as it is: `terminal:` needs no place."""
    counters = write("terminal:?rows_per_s=3", [flows(range(5), record_kind=["interim", *["final"] * 4])])
    assert counters == {"flows_shown": 3, "flows_not_shown": 1}
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[-1].endswith("… 1 more")


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("terminal:?rows_per_s=0", "rows_per_s=0 is no positive number"),
        ("terminal:?rows_per_s=many", "rows_per_s=many is no positive number"),
        ("terminal:?rows=3", "unknown parameter 'rows'; known: rows_per_s"),
        ("terminal:flows", "the terminal has no places; write terminal: or csv:flows"),
    ],
)
def test_wrong_settings_are_one_line(output, told):
    with pytest.raises(InputError) as error:
        outputs.open_outputs([output], CONTEXT)
    assert told in str(error.value)


def test_the_threads_of_a_process_share_a_screen(capfd):
    """The limit is the terminal's, however many bundles there are."""
    steps = [terminal._Show("sharing", 2) for _ in range(2)]
    for step in steps:
        step.setup()
        bundle(step, [flows(range(2))])
    for step in steps:
        step.teardown()
    assert len(capfd.readouterr().out.splitlines()) == 1 + 2 + 1

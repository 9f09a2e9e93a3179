"""`make servers`: once, whole or not at all, and one line for what lacks."""

import pytest
from servers import install
from servers.install import NotInstalled

MAVEN = """
case "$*" in *--version*) echo "Apache Maven 3.9.1"; exit;; esac
for word; do case $word in -DoutputDirectory=*) touch "${word#*=}/kafka.jar"; echo made >>"$CALLS";; esac; done
"""


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """An empty cache; makes programs, the only ones that are found beside the machine's own plain ones."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("FLOWBEAM_SERVERS", str(tmp_path / "servers"))
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))

    def make(name, text):
        (programs / name).write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{text}\n", encoding="utf-8")
        (programs / name).chmod(0o755)

    return make


def test_a_server_is_made_once(tools, tmp_path, capfd):
    tools("java", "echo 'openjdk version \"17.0.15\"' >&2")
    tools("mvn", MAVEN)
    with pytest.raises(NotInstalled, match=r"needs kafka: run `make servers`"):
        install.installed("kafka")
    assert install.main(["kafka"]) == 0
    assert install.main(["kafka"]) == 0
    assert [path.name for path in install.installed("kafka").iterdir()] == ["kafka.jar"]
    assert (tmp_path / "calls").read_text() == "made\n"
    assert "kafka is there, after" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("maven", "line"),
    [
        (None, "servers: kafka needs mvn, version 3.6 or newer; on Debian and Ubuntu: apt install maven\n"),
        (
            "printf '\\033[1mApache Maven 3.3.9\\033[m'",
            "servers: kafka needs mvn 3.6 or newer, this is 3.3; on Debian and Ubuntu: apt install maven\n",
        ),
    ],
    ids=["missing", "too-old"],
)
def test_a_tool_that_lacks_is_named(tools, capfd, maven, line):
    tools("java", "echo 'openjdk version \"21\"' >&2")
    if maven:
        tools("mvn", maven)
    assert install.main(["kafka"]) == 2
    assert capfd.readouterr().err == line


def test_what_fails_leaves_no_server(tools, tmp_path, capfd):
    """The log keeps what the tool said."""
    tools("java", "echo 'openjdk version \"17.0.15\"' >&2")
    tools("mvn", f"{MAVEN}\necho no such artifact; exit 1")
    assert install.main(["kafka"]) == 2
    log = tmp_path / "servers" / "kafka.log"
    assert capfd.readouterr().err == f"servers: kafka: `mvn` ended with status 1; what it said is in {log}\n"
    assert log.read_text() == "no such artifact\n"
    assert not [path for path in log.parent.iterdir() if path.is_dir()]


def test_a_name_that_is_none_is_refused(tools, capfd):
    assert install.main(["kafkaa"]) == 2
    assert capfd.readouterr().err.startswith("servers: no server kafkaa; there are kafka, ")

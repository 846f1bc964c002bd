import uuid
from pathlib import Path

import pytest

from client_container.allow_list import AllowList
from client_container.config import BadSetting, from_env


@pytest.fixture
def env(tmp_path):
    (tmp_path / "key").write_text("dca_secret\n")
    return {"DOCKERCOMP_KEY_FILE": str(tmp_path / "key")}


def test_settings_have_defaults_for_all_but_the_key(env, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    settings = from_env(env)

    assert settings.server == "http://127.0.0.1:8765"
    assert settings.account_key == "dca_secret"
    assert settings.home == tmp_path / "var" / "client"
    assert settings.allow == AllowList(())
    assert (settings.cpus, settings.spool_bytes) == (1.0, 64 * 1024 * 1024)


def test_the_key_is_not_shown(env):
    assert "dca_secret" not in repr(from_env(env))


def test_every_setting_is_read(env):
    host = str(uuid.uuid4())

    settings = from_env(
        env
        | {
            "DOCKERCOMP_SERVER": "https://server.example:8765/",
            "DOCKERCOMP_HOME": "/srv/client",
            "DOCKERCOMP_ALLOW": '[["/usr/bin/awk", "{print}"]]',
            "DOCKERCOMP_IMAGE": "sha256:ab",
            "DOCKERCOMP_HOST_ID": host,
            "DOCKERCOMP_HOST_NAME": "attic",
            "DOCKERCOMP_LABELS": '{"room": "attic", "floor": 3}',
            "DOCKERCOMP_CPUS": "1.5",
            "DOCKERCOMP_SPOOL_MB": "2",
        }
    )

    assert settings.server == "https://server.example:8765"
    assert settings.allow.permits(["/usr/bin/awk", "{print}", "x"])
    assert (settings.image, settings.host_id, settings.host_name) == ("sha256:ab", host, "attic")
    assert settings.labels == {"room": "attic", "floor": 3}
    assert (settings.cpus, settings.spool_bytes) == (1.5, 2 * 1024 * 1024)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DOCKERCOMP_SERVER", "server.example:8765"),
        ("DOCKERCOMP_SERVER", "ftp://server.example"),
        ("DOCKERCOMP_SERVER", "http://server.example:notaport"),
        ("DOCKERCOMP_SERVER", "http://me:secret@server.example"),
        ("DOCKERCOMP_KEY_FILE", ""),
        ("DOCKERCOMP_KEY_FILE", "/nowhere/key"),
        ("DOCKERCOMP_KEY_FILE", "/dev/null"),
        ("DOCKERCOMP_RUNTIME", "docker"),
        ("DOCKERCOMP_ALLOW", "/usr/bin/awk"),
        ("DOCKERCOMP_ALLOW", "[[]]"),
        ("DOCKERCOMP_HOST_ID", "attic"),
        ("DOCKERCOMP_HOST_NAME", "two\nlines"),
        ("DOCKERCOMP_LABELS", "[1]"),
        ("DOCKERCOMP_LABELS", '{"a": true}'),
        ("DOCKERCOMP_LABELS", '{"a": NaN}'),
        ("DOCKERCOMP_CPUS", "two"),
        ("DOCKERCOMP_CPUS", "nan"),
        ("DOCKERCOMP_SPOOL_MB", "0"),
        ("DOCKERCOMP_MEMORY_MB", "lots"),
    ],
)
def test_a_complaint_is_one_sentence_that_names_the_variable(env, name, value):
    with pytest.raises(BadSetting) as complaint:
        from_env(env | {name: value})

    assert name in str(complaint.value)
    assert str(complaint.value).endswith(".") and "\n" not in str(complaint.value)


def test_behind_a_launcher_its_socket_is_needed_and_no_list_of_programs(env):
    behind = env | {"DOCKERCOMP_RUNTIME": "sandbox", "DOCKERCOMP_MEMORY_MB": "512"}

    settings = from_env(behind | {"DOCKERCOMP_LAUNCHER_SOCKET": "/var/lib/dockercomp/launcher.sock"})

    assert (settings.runtime, settings.memory_mb) == ("sandbox", 512)
    assert settings.launcher_socket == Path("/var/lib/dockercomp/launcher.sock")
    assert settings.allow.nothing
    for wrong in ("", "launcher.sock"):
        with pytest.raises(BadSetting, match="DOCKERCOMP_LAUNCHER_SOCKET"):
            from_env(behind | {"DOCKERCOMP_LAUNCHER_SOCKET": wrong})


def test_the_process_runtime_knows_no_launcher(env):
    assert from_env(env | {"DOCKERCOMP_LAUNCHER_SOCKET": "/x"}).launcher_socket is None

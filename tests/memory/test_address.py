"""Stores by their path or their address."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lagentlike.errors import InvalidArgument, StateError
from lagentlike.memory import open_store, PostgresStore, RedisStore, SQLiteStore


def test_a_path_is_an_sqlite_file(tmp_path: Path) -> None:
    for path in (tmp_path / "a.db", str(tmp_path / "b:c.db")):
        store = open_store(path)
        assert isinstance(store, SQLiteStore)
        assert open_store(store) is store
        store.blocking.close()


@pytest.mark.parametrize(
    ("address", "kind", "shown"),
    [
        ("postgresql://ann:secret@h:5432/talks", PostgresStore, "'postgresql://***@h:5432/talks'"),
        ("postgres:///talks?user=ann&password=secret", PostgresStore, "'postgres:///talks?user=ann&password=***'"),
        ("redis://:secret@h:6379/0", RedisStore, "'redis://***@h:6379/0'"),
        ("rediss://h", RedisStore, "'rediss://h'"),
        ("unix://ann:secret@/run/redis.sock?db=3", RedisStore, "'unix://***@/run/redis.sock?db=3'"),
    ],
)
def test_an_address_says_which_store_and_shows_no_password(address: str, kind: type, shown: str) -> None:
    pytest.importorskip("asyncpg")
    pytest.importorskip("redis")
    store = open_store(address)
    assert type(store) is kind
    assert shown in repr(store)
    assert "secret" not in repr(store)


def test_an_address_that_cannot_be_read_shows_no_password_either() -> None:
    pytest.importorskip("asyncpg")
    pytest.importorskip("redis")
    with pytest.raises(InvalidArgument, match=r"redis://\*\*\*@h/0': give an address") as caught:
        open_store("redis://:sec/r@et@h/0")
    assert "sec" not in str(caught.value)
    with pytest.raises(InvalidArgument, match=r"postgresql://\*\*\*@h:port/x': give an address") as caught:
        open_store("postgresql://ann:secret@h:port/x").blocking.session_ids()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "address"), [("postgres", "postgresql://x@127.0.0.1:{}/x"), ("redis", "redis://127.0.0.1:{}")]
)
def test_a_server_that_says_nothing_is_not_waited_for_for_ever(
    module: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("asyncpg")
    pytest.importorskip("redis")
    monkeypatch.setattr(f"lagentlike.memory.{module}._PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = open_store(address.format(silent.getsockname()[1]))
        with pytest.raises(StateError, match=r"failed: .*[Tt]ime"):
            store.blocking.session_ids()
        store.blocking.close()


@pytest.mark.parametrize("place", ["mysql://ann:secret@h/talks", "sqlite:///s.db", 7, None])
def test_what_is_no_place_is_refused_with_the_places_there_are(place: object) -> None:
    with pytest.raises(InvalidArgument, match=r"path of an SQLite file, postgresql://…, redis://") as caught:
        open_store(place)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("address", "extra"), [("postgresql://h/x", "postgres"), ("redis://h", "redis")])
def test_what_is_missing_is_named_with_its_extra(address: str, extra: str) -> None:
    code = (
        "import sys; sys.modules.update(asyncpg=None, redis=None)\n"
        "from lagentlike.memory import open_store\n"
        f"open_store({address!r})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"pip install 'lagentlike[{extra}]'" in ended.stderr

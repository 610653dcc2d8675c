"""The connection: faults become causes with a remedy, and nothing waits longer than it may."""

import asyncio
import contextlib
import gc
import gzip
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from scaler.core.model import Cause
from scaler.signals.faults import SourceError
from scaler.signals.prometheus_answer import Cell, open_answer
from scaler.signals.prometheus_http import PrometheusHttp, Reply
from scaler.signals.settings import PrometheusSettings
from tests.signals.fake_prometheus import (
    Canned,
    FakePrometheus,
    Fault,
    Seen,
    error,
    success,
    vector,
)

GOOD = vector([({"pod": "a"}, 1.5)])


def settings(url: str, **changes: Any) -> PrometheusSettings:
    quick = {"timeout_s": 5.0, "attempt_timeout_s": 5.0, "retry_backoff_s": 0.0}
    return PrometheusSettings(url=url, **{**quick, **changes})


async def ask(url: str, *, attempts: int = 2, limit_s: float = 5.0, **changes: Any) -> list[Cell]:
    http = PrometheusHttp(settings(url, **changes))
    until_s = asyncio.get_running_loop().time() + limit_s
    try:
        return await http.post(
            "/api/v1/query",
            {"query": "up"},
            lambda reply: list(open_answer(reply).cells()),
            until_s=until_s,
            attempts=attempts,
        )
    finally:
        await http.close()


async def test_an_answer_that_is_of_no_use_is_freed_with_its_fault() -> None:
    """A hundred of a megabyte each, of a server that misunderstands us, must not pile up."""
    gc.collect()
    gc.disable()
    try:
        with (
            FakePrometheus(lambda _: success("matrix", [])) as server,
            contextlib.suppress(SourceError),  # `raises` would hold what is looked for
        ):
            await ask(server.url)
        for thread in threading.enumerate():
            if "query" in thread.name:  # it lets go of its work after telling us
                thread.join()
        await asyncio.sleep(0)  # and so does the handle that told us
        held = [one for one in gc.get_objects() if isinstance(one, Reply)]
    finally:
        gc.enable()
    assert not held


async def fault_of(canned: Canned, **changes: Any) -> SourceError:
    with FakePrometheus(lambda _: canned) as server:
        with pytest.raises(SourceError) as caught:
            await ask(server.url, **changes)
        return caught.value


def body(result: Any) -> Canned:
    return success("vector", result)


async def test_a_query_is_posted_in_the_body_and_its_rows_are_read() -> None:
    with FakePrometheus(lambda _: GOOD) as server:
        cells = await ask(server.url)
    assert cells == [Cell({"pod": "a"}, 1000.0, 1.5)]
    (seen,) = server.seen
    assert (seen.method, seen.path, seen.query) == ("POST", "/api/v1/query", "up")
    assert seen.headers["Content-Type"] == "application/x-www-form-urlencoded"


async def test_a_path_in_the_url_is_kept() -> None:
    with FakePrometheus(lambda _: GOOD) as server:
        await ask(f"{server.url}/prometheus/")
    assert server.seen[0].path == "/prometheus/api/v1/query"


async def test_nan_and_infinities_are_values() -> None:
    rows: list[tuple[dict[str, str], str]] = [({}, "NaN"), ({}, "+Inf"), ({}, "-Inf")]
    with FakePrometheus(lambda _: vector(rows)) as server:
        values = [cell.value for cell in await ask(server.url)]
    assert values[0] != values[0]
    assert values[1:] == [float("inf"), float("-inf")]


async def test_a_scalar_is_one_row_without_labels() -> None:
    with FakePrometheus(lambda _: success("scalar", [1000.25, "7"])) as server:
        assert await ask(server.url) == [Cell({}, 1000.25, 7.0)]


@pytest.mark.parametrize(
    ("canned", "cause", "part"),
    [
        (error(400, "bad_data", "parse error"), Cause.MALFORMED, "bad_data (400): parse error"),
        (error(422, "execution", "too many samples"), Cause.MALFORMED, "too many samples"),
        (error(503, "timeout", "slow"), Cause.UNREACHABLE, "timeout (503): slow"),
        (Canned(status=500, body=b"oops"), Cause.UNREACHABLE, "500"),
        (Canned(status=429), Cause.UNREACHABLE, "429"),
        (Canned(status=401), Cause.UNREACHABLE, "check token_file"),
        (Canned(status=403), Cause.UNREACHABLE, "check token_file"),
        (Canned(status=404), Cause.UNREACHABLE, "check the path in url"),
        (Canned(status=302, headers={"Location": "/login"}), Cause.UNREACHABLE, "redirect"),
        (
            Canned(body=b"<html>log in</html>", content_type="text/html; charset=utf-8"),
            Cause.MALFORMED,
            "text/html, not JSON",
        ),
        (Canned(body=b""), Cause.MALFORMED, "not the JSON"),
        (Canned(body=b"\xff\xfe\x00"), Cause.MALFORMED, "not the JSON"),
        (Canned(body=b'{"status": "success", "data": {"resu'), Cause.MALFORMED, "truncated"),
        (Canned(body=b'{"status": "success"}'), Cause.MALFORMED, "$.data is missing"),
        (Canned(body=b"[]"), Cause.MALFORMED, "Expected `object`"),
        (Canned(body=b'{"status": 7}'), Cause.MALFORMED, "`$.status`"),
        (success("matrix", []), Cause.MALFORMED, "must be 'vector'"),
        (success("string", [1, "x"]), Cause.MALFORMED, "must be 'vector'"),
        (success("scalar", [1]), Cause.MALFORMED, "$.data.result"),
        (body([{"metric": {}}]), Cause.MALFORMED, "at `$.data.result[0]`"),
        (body([{"metric": {"a": 1}, "value": [1, "1"]}]), Cause.MALFORMED, "result[0].metric"),
        (body([{"metric": {}, "value": [1, "1"]}, 5]), Cause.MALFORMED, "at `$.data.result[1]`"),
        (body([{"metric": {}, "value": [1, 1]}]), Cause.MALFORMED, "`$.data.result[0].value[1]`"),
        (body([{"metric": {}, "value": [1, "x"]}]), Cause.MALFORMED, "result[0].value[1] is 'x'"),
        (body([{"metric": {}, "value": ["1", "1"]}]), Cause.MALFORMED, "result[0].value[0]"),
        (Canned(fault=Fault.RESET), Cause.UNREACHABLE, "check url and network policy"),
        (
            Canned(body=b'{"status": "success"}', fault=Fault.HALF),
            Cause.UNREACHABLE,
            "IncompleteRead",
        ),
        (
            Canned(body=b"not gzip", headers={"Content-Encoding": "gzip"}),
            Cause.MALFORMED,
            "cannot be unpacked",
        ),
    ],
)
async def test_a_broken_answer_has_a_cause_and_says_what_is_wrong(
    canned: Canned, cause: Cause, part: str
) -> None:
    fault = await fault_of(canned)
    assert fault.cause is cause
    assert part in fault.detail


@pytest.mark.parametrize(
    "big",
    [
        Canned(body=b'{"status": "' + b"x" * 10_000_000 + b'"}'),
        Canned(body=gzip.compress(b" " * 10_000_000), headers={"Content-Encoding": "gzip"}),
    ],
)
async def test_a_body_over_the_limit_is_given_up(big: Canned) -> None:
    fault = await fault_of(big, max_body_bytes=100_000)
    assert fault.cause is Cause.MALFORMED
    assert "longer than 100000 bytes; raise max_body_bytes" in fault.detail


async def test_ten_megabytes_within_the_limit_are_read() -> None:
    # 70,000 rows of about 150 bytes: 10.5 MB
    rows = [({"namespace": "llm", "pod": f"p-{i}", "filler": "x" * 80}, i) for i in range(70_000)]
    canned = vector(rows)
    assert len(canned.body) > 10_000_000
    with FakePrometheus(lambda _: canned) as server:
        cells = await ask(server.url)
    assert len(cells) == 70_000
    assert cells[-1].value == 69_999.0


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.DRIP_BODY, Fault.DRIP_HEADERS])
async def test_a_server_that_never_finishes_costs_its_time_limit_and_no_thread(
    fault: Fault,
) -> None:
    before = threading.active_count()
    with FakePrometheus(lambda _: Canned(fault=fault)) as server:
        threads_of_server = threading.active_count() - before
        with pytest.raises(SourceError) as caught:
            await ask(server.url, attempts=1, attempt_timeout_s=0.1)
        assert caught.value.cause is Cause.UNREACHABLE
        assert "attempt_timeout_s" in caught.value.detail or "in time" in caught.value.detail
        # The server goes on; the thread of the attempt ends, because its socket was shut down.
        for thread in threading.enumerate():
            if thread.name.startswith("prometheus-query"):
                thread.join(5.0)
                assert not thread.is_alive()
    assert threads_of_server >= 1


async def test_the_time_limit_of_the_collection_counts_not_only_the_attempts() -> None:
    with FakePrometheus(lambda _: Canned(fault=Fault.HANG)) as server:
        async with asyncio.timeout(4.0):
            with pytest.raises(SourceError):
                await ask(server.url, limit_s=0.1, attempt_timeout_s=60.0)
    assert len(server.seen) == 1


async def test_cancelling_the_caller_ends_the_thread() -> None:
    begun = threading.Event()

    def hang(_: Seen) -> Canned:
        begun.set()
        return Canned(fault=Fault.HANG)

    with FakePrometheus(hang) as server:
        asking = asyncio.create_task(ask(server.url, attempt_timeout_s=60.0, limit_s=60.0))
        await asyncio.to_thread(begun.wait, 5.0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        for thread in threading.enumerate():
            if thread.name.startswith("prometheus-query"):
                thread.join(5.0)
                assert not thread.is_alive()


def scripted(*answers: Canned) -> Callable[[Seen], Canned]:
    left = list(answers)
    return lambda _: left.pop(0)


@pytest.mark.parametrize(
    "first",
    [Canned(fault=Fault.RESET), Canned(status=502), error(503, "unavailable", "starting")],
)
async def test_a_passing_fault_is_tried_once_more(first: Canned) -> None:
    with FakePrometheus(scripted(first, GOOD)) as server:
        assert len(await ask(server.url)) == 1
    assert len(server.seen) == 2


async def test_a_refused_query_is_not_tried_again() -> None:
    refusal = error(400, "bad_data", "no")
    with FakePrometheus(scripted(refusal)) as server, pytest.raises(SourceError):
        await ask(server.url)
    assert len(server.seen) == 1


async def test_no_third_attempt() -> None:
    down = Canned(status=503)
    with FakePrometheus(scripted(down, down)) as server, pytest.raises(SourceError):
        await ask(server.url)
    assert len(server.seen) == 2


async def test_nothing_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(SourceError) as caught:
        await ask(f"http://127.0.0.1:{port}")
    assert caught.value.cause is Cause.UNREACHABLE
    assert "refused" in caught.value.detail


async def test_connections_are_reused() -> None:
    with FakePrometheus(lambda _: GOOD) as server:
        http = PrometheusHttp(settings(server.url, queries_in_flight=1))
        until_s = asyncio.get_running_loop().time() + 5.0
        for _ in range(3):
            await http.post("/api/v1/query", {"query": "up"}, open_answer, until_s=until_s)
        await http.close()
    assert (len(server.seen), server.connections) == (3, 1)


async def test_no_more_queries_are_in_flight_than_allowed() -> None:
    lock = threading.Lock()
    running = most = 0
    gate = threading.Barrier(2)  # two answers leave together: two were there at one time

    def answer(_: Seen) -> Canned:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait(5.0)
        with lock:
            running -= 1
        return GOOD

    with FakePrometheus(answer) as server:
        http = PrometheusHttp(settings(server.url, queries_in_flight=2))
        until_s = asyncio.get_running_loop().time() + 5.0
        calls = (
            http.post("/api/v1/query", {"query": "up"}, open_answer, until_s=until_s)
            for _ in range(8)
        )
        await asyncio.gather(*calls)
        await http.close()
    assert most == 2


async def test_headers_of_a_tenant_and_a_token_that_is_replaced(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    with FakePrometheus(lambda _: GOOD) as server:
        http = PrometheusHttp(
            settings(server.url, token_file=str(token), headers={"X-Scope-OrgID": "team-a"})
        )
        until_s = asyncio.get_running_loop().time() + 5.0
        for text in ("first", "second"):
            token.write_text(f"{text}\n")
            os.utime(token, ns=(0, len(text)))  # another time of change, whatever the clock says
            await http.post("/api/v1/query", {"query": "up"}, open_answer, until_s=until_s)
        await http.close()
    assert [seen.headers["Authorization"] for seen in server.seen] == [
        "Bearer first",
        "Bearer second",
    ]
    assert {seen.headers["X-Scope-OrgID"] for seen in server.seen} == {"team-a"}


async def test_basic_authentication_with_any_characters(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("s3cret:x\n")
    with FakePrometheus(lambda _: GOOD) as server:
        await ask(server.url, username="reader", password_file=str(password))
    # base64("reader:s3cret:x")
    assert server.seen[0].headers["Authorization"] == "Basic cmVhZGVyOnMzY3JldDp4"


@pytest.mark.parametrize("text", ["", "two\nlines", "contr\x00l", "ünïcode"])
async def test_an_unusable_token_is_named_and_not_shown(tmp_path: Path, text: str) -> None:
    token = tmp_path / "token"
    token.write_text(text)
    with FakePrometheus(lambda _: GOOD) as server, pytest.raises(SourceError) as caught:
        await ask(server.url, token_file=str(token))
    assert f"token_file {token}" in caught.value.detail
    assert not text or text not in caught.value.detail
    assert server.seen == []


async def test_a_missing_token_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        await ask("http://127.0.0.1:9", token_file=str(tmp_path / "none"))


async def test_the_environment_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password wrong\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with FakePrometheus(lambda _: GOOD) as server:
        await ask(server.url)
    assert "Authorization" not in server.seen[0].headers


class TestTls:
    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    @pytest.fixture
    def context(self, authority: trustme.CA) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        return context

    async def test_a_ca_file(
        self, authority: trustme.CA, context: ssl.SSLContext, tmp_path: Path
    ) -> None:
        ca_file = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(ca_file))
        with FakePrometheus(lambda _: GOOD, context) as server:
            assert len(await ask(server.url, ca_file=str(ca_file))) == 1

    async def test_an_unknown_ca_is_refused_with_a_hint(self, context: ssl.SSLContext) -> None:
        unknown = pytest.raises(SourceError, match="check ca_file")
        with FakePrometheus(lambda _: GOOD, context) as server, unknown as caught:
            await ask(server.url)
        assert caught.value.cause is Cause.UNREACHABLE
        assert server.seen == []

    async def test_a_client_certificate(
        self, authority: trustme.CA, context: ssl.SSLContext, tmp_path: Path
    ) -> None:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
        ca_file, cert_file, key_file = (str(tmp_path / name) for name in ("ca", "cert", "key"))
        authority.cert_pem.write_to_path(ca_file)
        client = authority.issue_cert("client.test")
        client.cert_chain_pems[0].write_to_path(cert_file)
        client.private_key_pem.write_to_path(key_file)
        with FakePrometheus(lambda _: GOOD, context) as server:
            cells = await ask(server.url, ca_file=ca_file, cert_file=cert_file, key_file=key_file)
            assert len(cells) == 1
            with pytest.raises(SourceError):
                await ask(server.url, ca_file=ca_file)

    async def test_a_hung_server_behind_tls_holds_no_thread(
        self, authority: trustme.CA, context: ssl.SSLContext, tmp_path: Path
    ) -> None:
        ca_file = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(ca_file))
        with FakePrometheus(lambda _: Canned(fault=Fault.DRIP_BODY), context) as server:
            with pytest.raises(SourceError):
                await ask(server.url, attempts=1, attempt_timeout_s=0.2, ca_file=str(ca_file))
            for thread in threading.enumerate():
                if thread.name.startswith("prometheus-query"):
                    thread.join(5.0)
                    assert not thread.is_alive()


def test_warnings_mean_partial_and_remarks_about_the_query_do_not() -> None:
    canned = success(
        "vector",
        [],
        warnings=["store b: down"],
        infos=["PromQL info: not a counter", "shard 3 out"],
    )
    notes = open_answer(Reply(status=200, content_type="application/json", body=canned.body)).notes
    assert notes.partial == ("store b: down", "shard 3 out")
    assert notes.remarks == ("PromQL info: not a counter",)
    assert json.loads(canned.body)["infos"]


def many(count: int, odd_at: int | None = None) -> Canned:
    """Rows in the form in which servers write them: without blanks, metric first."""
    rows = [
        {"metric": {"pod": f'p-{i}}},{{"metric"'}, "value": [1, "x" if i == odd_at else str(i)]}
        for i in range(count)
    ]
    data = {"resultType": "vector", "result": rows}
    answer = {"status": "success", "data": data, "warnings": ["w"]}
    return Canned(body=json.dumps(answer, separators=(",", ":")).encode())


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5000])
async def test_slices_give_every_row_once_whatever_the_labels_look_like(count: int) -> None:
    reply = Reply(status=200, content_type="application/json", body=many(count).body)
    answer = open_answer(reply)
    cells = list(answer.cells())
    assert [cell.value for cell in cells] == [float(i) for i in range(count)]
    assert [cell.labels["pod"] for cell in cells] == [f'p-{i}}},{{"metric"' for i in range(count)]
    assert answer.notes.partial == ("w",)


@pytest.mark.parametrize("odd_at", [0, 1, 2500, 4998, 4999])
async def test_the_path_of_a_wrong_value_counts_rows_of_the_whole_answer(odd_at: int) -> None:
    fault = await fault_of(many(5000, odd_at))
    assert f"$.data.result[{odd_at}].value[1] is 'x'" in fault.detail


async def test_a_wrong_type_in_a_later_slice_has_the_path_of_the_whole_answer() -> None:
    broken = Canned(body=many(5000).body.replace(b'"value":[1,"2500"]', b'"value":[1,2500]'))
    fault = await fault_of(broken)
    assert "`$.data.result[2500].value[1]`" in fault.detail


async def test_an_answer_cut_in_the_middle_of_its_rows_is_malformed() -> None:
    whole = many(5000).body
    fault = await fault_of(Canned(body=whole[: len(whole) // 2]))
    assert fault.cause is Cause.MALFORMED


async def test_a_redirect_is_never_followed_with_our_credentials(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    moved = Canned(status=307, headers={"Location": "/elsewhere"})
    with FakePrometheus(lambda _: moved) as server, pytest.raises(SourceError):
        await ask(server.url, token_file=str(token))
    assert [seen.path for seen in server.seen] == ["/api/v1/query"]

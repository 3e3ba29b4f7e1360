"""The explorer: its numbers without a browser, its server, and its page in a real browser."""

from __future__ import annotations

import asyncio
import base64
import csv
import functools
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import naive
import numpy as np
import pytest
from bokeh.document import Document
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tornado.websocket import websocket_connect

import bsr_theory as bsr
from bsr_theory import Status, cli
from bsr_theory.explore import model, page, server
from bsr_theory.explore.model import CHANNELS, View, _Quick
from bsr_theory.results import read_dataset

explore = functools.cache(model.explore)

ROOT = Path(__file__).resolve().parent.parent
HARD = View(channel="abs", alpha=0.45, beta=1.0, rho=0.2, delta=0.0)
NOISY = View(channel="abs", alpha=0.53, beta=1.0, rho=0.2, delta=0.01)
VIEWS = [
    View(),
    View(alpha=0.3, beta=np.inf, rho=0.5, delta=0.0),
    View(alpha=0.9, beta=1.0, rho=0.2, delta=0.0),  # perfect recovery
    View(alpha=2.0, beta=5.0, rho=np.inf, delta=0.5, log=True),
    View(alpha=1.5, rho=0.1, delta=1e-4, log=True),
    View(channel="sign", alpha=1.0),
    View(channel="relu", alpha=0.6, beta=1.0, rho=0.2, delta=1e-3),
    View(channel="logistic", gain=4.0),
    View(channel="quantized", levels=(-0.5, 0.5), delta=0.0),
    View(channel="abs", alpha=0.2),  # nothing is learned
    HARD,
    NOISY,
]
each_view = pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.query)


# --------------------------------------------------------------------------------------------
# A view and its words
# --------------------------------------------------------------------------------------------


@each_view
def test_the_address_of_a_view_says_all_of_it(view: View) -> None:
    words = dict(part.split("=") for part in view.query.split("&"))
    assert View.read(words) == (view, [])


@pytest.mark.parametrize(
    ("name", "word", "value"),
    [
        ("alpha", " 1e-3 ", 1e-3),
        ("beta", "inf", np.inf),
        ("rho", "\N{INFINITY}", np.inf),
        ("delta", "0", 0.0),
        ("levels", "\N{MINUS SIGN}1 0,  2.5", (-1.0, 0.0, 2.5)),
        ("log", "1", True),
        ("channel", "relu", "relu"),
    ],
)
def test_words_are_read(name: str, word: str, value: Any) -> None:
    view = View().with_word(name, word)
    assert getattr(view, name) == value
    assert View().with_word(name, view.word(name)) == view


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("alpha", "0"),
        ("alpha", "inf"),
        ("alpha", "nan"),
        ("alpha", "one"),
        ("alpha", ""),
        ("beta", "0.99"),
        ("rho", "-1"),
        ("delta", "-0.1"),
        ("delta", "inf"),
        ("gain", "-1"),
        ("levels", "1,0"),
        ("levels", ""),
        ("levels", "0,inf"),
        ("levels", ",".join(map(str, range(17)))),
        ("channel", "cubic"),
        ("log", "yes"),
    ],
)
def test_bad_words_leave_the_rest(name: str, word: str) -> None:
    start = View(rho=0.7, channel="quantized")
    words = {"alpha": "0.25", name: word}
    view, problems = View.read(words, start)
    assert len(problems) == 1
    assert problems[0].startswith(f"{name} must be ")
    assert view == (start if name == "alpha" else start.with_word("alpha", "0.25"))


# --------------------------------------------------------------------------------------------
# Numbers
# --------------------------------------------------------------------------------------------


@each_view
def test_the_point_is_that_of_the_package(view: View) -> None:
    shown = explore(view)
    problem = view.problem
    point, values = bsr.solve(problem), shown.summary
    assert shown.status == point.status
    assert values["mmse"] == pytest.approx(point.mmse, rel=1e-9)
    assert values["q"] == pytest.approx(point.q, rel=1e-9)
    assert values["s"] * point.qhat == pytest.approx(1.0, rel=1e-9) or point.qhat in (0.0, np.inf)
    assert values["free_entropy"] == pytest.approx(-point.information, rel=1e-9, abs=1e-12)
    assert values["generalization_error"] == pytest.approx(point.generalization_error, rel=1e-9)
    # message passing goes where the iteration from next to no knowledge ends
    if not view.labels.single_fixed_point:
        end = bsr.iterate(problem, 500, q=1e-5).mmse[-1]
        assert values["mmse_algorithm"] == pytest.approx(end, rel=1e-4, abs=1e-4)


@each_view
def test_the_curve_is_that_of_the_package(view: View) -> None:
    curve = explore(view).curve
    assert curve.alpha[0] < view.alpha < curve.alpha[-1]
    assert np.all(np.diff(curve.alpha) > 0.0)
    few = np.r_[0 : curve.alpha.size : 16, curve.alpha.size - 1]
    problem = bsr.Problem(view.prior, view.labels, curve.alpha[few])
    np.testing.assert_allclose(curve.mmse_bayes[few], bsr.solve(problem).mmse, rtol=1e-8)
    assert np.all(curve.mmse_algorithm >= curve.mmse_bayes - 1e-12)
    inside = np.zeros(curve.alpha.size, dtype=bool)
    for low, high in curve.hard:
        inside |= (curve.alpha >= low) & (curve.alpha <= high)
    np.testing.assert_array_equal(inside, curve.mmse_algorithm - curve.mmse_bayes > 1e-9)
    assert bool(curve.hard.size) == (view in (HARD, NOISY))


@pytest.mark.parametrize(
    ("alpha", "beta", "rho", "delta"), [(0.4, 2.0, 0.5, 0.1), (0.35, 1.5, 0.3, 0.0)]
)
def test_the_error_is_that_of_a_plain_calculation(
    alpha: float, beta: float, rho: float, delta: float
) -> None:
    shown = explore(View(alpha=alpha, beta=beta, rho=rho, delta=delta))
    assert shown.summary["mmse"] == pytest.approx(naive.solve(alpha, beta, rho, delta), abs=1e-7)


def test_independent_entries_have_a_closed_form() -> None:
    shown = explore(View(alpha=0.8, rho=np.inf, delta=0.3, nuclear_norm=True))
    # M(s) = s/(1 + s) = alpha s - delta
    s = np.max(np.roots([0.8, 0.8 - 0.3 - 1.0, -0.3]))
    assert shown.summary["s"] == pytest.approx(s, rel=1e-10)
    assert shown.summary["mmse"] == pytest.approx(s / (1.0 + s), rel=1e-10)
    # ridge regression is optimal then
    np.testing.assert_allclose(shown.curve.ridge, shown.curve.mmse_bayes, rtol=1e-9)
    assert np.all(shown.curve.nuclear_norm >= shown.curve.mmse_bayes)


def test_the_hard_phase_of_magnitudes() -> None:
    shown = explore(HARD)
    # degrees of freedom rho (1 + beta - rho)/beta
    assert shown.curve.marks["strong recovery"] == pytest.approx(0.36, rel=1e-12)
    ((low, high),) = shown.curve.hard
    assert low == pytest.approx(0.36, rel=1e-8)
    assert high == pytest.approx(shown.curve.marks["algorithmic"], rel=1e-8)
    values = shown.summary
    assert (values["mmse"], values["mmse_algorithm"]) == (0.0, 1.0)
    assert shown.phase.startswith("hard")
    # both sides of the jump are on the curve
    jump = np.flatnonzero(np.diff(shown.curve.mmse_bayes) < -0.5)
    assert jump.size == 1
    assert shown.curve.alpha[jump[0] + 1] - shown.curve.alpha[jump[0]] < 1e-8


@pytest.mark.parametrize("view", [HARD, NOISY, View(), View(channel="sign")])
def test_the_curve_of_all_fixed_points_holds_those_at_alpha(view: View) -> None:
    shown = explore(view)
    every = shown.curve.every
    order = np.log(every.s)
    found = []
    # crossings of the curve with the line at alpha
    over = every.alpha > view.alpha
    for i in np.flatnonzero(over[1:] != over[:-1]):
        share = (view.alpha - every.alpha[i]) / (every.alpha[i + 1] - every.alpha[i])
        found.append((np.exp(order[i] + share * (order[i + 1] - order[i])), every.stable[i]))
    points = shown.points
    inner = np.isfinite(points.qhat) & (points.qhat > 0.0)
    assert len(found) == inner.sum() > 0
    for (s, stable), qhat, truth in zip(
        found, points.qhat[inner], points.stable[inner], strict=True
    ):
        assert s == pytest.approx(1.0 / qhat, rel=1e-2)
        assert stable == truth


@pytest.mark.parametrize(
    "view", [v for v in VIEWS if v not in (HARD, VIEWS[9])], ids=lambda view: view.query
)
def test_the_spectrum_holds_the_signal_and_the_noise(view: View) -> None:
    shown = explore(view)
    law = shown.spectrum
    assert law is not None
    assert law.masses.sum() + law.atoms[:, 1].sum() == pytest.approx(1.0, rel=1e-6)
    # what is drawn, integrated along the lines: second moment 1 + s, and that of f is q
    step = np.diff(law.y)

    def integral(values: np.ndarray, at_atom: np.ndarray) -> float:
        line = 0.5 * np.sum(step * (values[1:] + values[:-1]))
        return float(line + np.sum(law.atoms[:, 1] * at_atom))

    density = np.where(np.isfinite(law.density), law.density, 0.0)
    atoms = law.atoms[:, 0]
    second = integral(law.y**2 * density, atoms**2)
    assert second == pytest.approx(1.0 + law.s, rel=2e-3)
    overlap = integral(law.denoised**2 * density, np.zeros(atoms.size))
    assert overlap == pytest.approx(shown.summary["q"], rel=4e-3)


def test_the_spectrum_is_that_of_a_matrix() -> None:
    law = explore(View(alpha=0.5, beta=2.0, rho=0.3, delta=0.02)).spectrum
    assert law is not None
    generator = np.random.default_rng(1)
    d1, d2 = 300, 600
    S = bsr.GaussianFactorPrior(2.0, 0.3).sample(d1, rng=generator)
    left, values, right = np.linalg.svd(S + np.sqrt(law.s) * generator.standard_normal((d1, d2)))
    y = np.sort(values) / np.sqrt(d2)
    steps = 0.5 * np.diff(law.y) * (law.density[1:] + law.density[:-1])
    below = np.interp(y, law.y, np.r_[0.0, np.cumsum(steps)])
    assert np.max(np.abs(below - (np.arange(d1) + 0.5) / d1)) < 0.01
    # the best shrinkage knows S: the denoiser comes close to it on average
    best = np.einsum("ij,ij->j", left, S @ right[:d1].T) / np.sqrt(d2)
    denoised = np.interp(values / np.sqrt(d2), law.y, law.denoised)
    assert np.mean(denoised - best) == pytest.approx(0.0, abs=0.01)
    assert np.mean((denoised - best) ** 2) < 0.02


@pytest.mark.parametrize("view", [HARD, NOISY, View(), View(channel="sign", log=True)])
def test_the_landscape_turns_at_the_fixed_points(view: View) -> None:
    shown = explore(view)
    finite = np.isfinite(shown.free_entropy)
    error, value = shown.error[finite], shown.free_entropy[finite]
    assert np.max(value) <= shown.free_entropies[shown.bayes] + 1e-12
    turns = 1 + np.flatnonzero(np.diff(np.sign(np.diff(value))) != 0.0)
    step = np.max(np.diff(error)) if not view.log else 0.1
    inner = [
        (float(mmse), bool(stable))
        for mmse, stable in zip(shown.points.mmse, shown.points.stable, strict=True)
        if 0.0 < mmse < 1.0 - step
    ]
    turns = turns[error[turns] < 1.0 - step]
    assert len(turns) == len(inner) > 0
    for i, (mmse, stable) in zip(turns, inner, strict=True):
        assert error[i] == pytest.approx(mmse, abs=step)
        assert (value[i] > value[i - 1]) == stable
    # its height at the fixed points
    for mmse, height in zip(shown.points.mmse, shown.free_entropies, strict=True):
        if mmse > 0.0:
            assert np.interp(mmse, error, value) == pytest.approx(height, abs=1e-3)


@pytest.mark.parametrize("channel", [bsr.AbsChannel(1e-4), bsr.ReLUChannel(0.5)])
def test_tables_of_channels_answer_as_the_channel(channel: bsr.Channel) -> None:
    table = _Quick(channel)
    v = np.r_[0.0, np.geomspace(1e-14, 0.5, 40)]
    for q, rest in ((1.0 - v, v), (v, 1.0 - v)):
        np.testing.assert_allclose(
            table.precision(q, rest), channel.precision(q, rest), rtol=1e-9, atol=1e-12
        )
        np.testing.assert_allclose(
            table.information(q, rest), channel.information(q, rest), rtol=0.0, atol=1e-11
        )
    assert table.precision(0.3) == pytest.approx(channel.precision(0.3), rel=1e-9)
    h = np.linspace(-2.0, 2.0, 5)
    np.testing.assert_array_equal(table.sample(h, rng=1), channel.sample(h, rng=1))
    np.testing.assert_array_equal(table.score(h, 0.1, 0.5), channel.score(h, 0.1, 0.5))


one_of = st.sampled_from


@settings(max_examples=12)
@given(
    channel=one_of(CHANNELS),
    alpha=one_of((1e-6, 1e-3, 0.5, 10.0, 1e6)),
    beta=one_of((1.0, 1.0 + 1e-9, 100.0, np.inf)),
    rho=one_of((1e-3, 0.1, 1.0, 10.0, np.inf)),
    delta=one_of((0.0, 1e-4, 10.0, 1e6)),
    log=st.booleans(),
)
def test_no_view_breaks(**words: Any) -> None:
    view = View(**words)
    shown = explore(view)
    for text in (shown.to_csv(), shown.to_json()):
        assert len(text) > 1000
    if shown.status.ok:
        assert 0.0 <= shown.summary["mmse"] <= shown.summary["mmse_algorithm"] <= 1.0
    else:
        assert shown.failures
    document = Document()
    page.add_page(document, view)
    assert len(document.roots) == 4


# --------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", [HARD, VIEWS[3], VIEWS[8]], ids=lambda view: view.query)
def test_files_hold_what_is_shown(view: View, tmp_path: Path) -> None:
    shown = explore(view)
    curve = shown.curve

    text = shown.to_csv()
    head = [line for line in text.splitlines() if line.startswith("# ")]
    assert head[0].startswith(f"# bsr_theory {bsr.__version__}")
    assert f"# channel = {view.channel}" in head
    assert f"alpha = {view.alpha}" in head[2]
    rows = list(csv.DictReader(line for line in text.splitlines() if line not in head))
    table = {
        key: np.array([[float(row["x"]), float(row["y"])] for row in group])
        for key, group in itertools.groupby(rows, key=lambda row: (row["panel"], row["curve"]))
    }
    np.testing.assert_array_equal(
        table["error", "mmse_bayes"], np.column_stack([curve.alpha, curve.mmse_bayes])
    )
    assert shown.spectrum is not None
    np.testing.assert_array_equal(table["spectrum", "density"][:, 1], shown.spectrum.density)
    np.testing.assert_array_equal(table["denoiser", "denoised"][:, 1], shown.spectrum.denoised)
    np.testing.assert_array_equal(
        table["landscape", "free_entropy"], np.column_stack([shown.error, shown.free_entropy])
    )
    marked = [key for key in table if key[1].startswith("fixed_points")]
    assert sum(len(table[key]) for key in marked if key[0] == "landscape") == shown.points.count

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    data = json.loads(shown.to_json(), parse_constant=refuse)
    assert float(data["parameters"]["alpha"]) == view.alpha
    assert float(data["solution"]["mmse"]) == shown.summary["mmse"]
    assert data["provenance"]["package"] == bsr.__version__
    assert [float(x) for x in data["curve"]["mmse_algorithm"]] == curve.mmse_algorithm.tolist()

    path = tmp_path / "view.nc"
    path.write_bytes(shown.to_netcdf())
    stored = read_dataset(path)
    assert stored.attrs["channel"] == view.channel
    assert stored.attrs["rho"] == view.rho
    assert json.loads(stored.attrs["provenance"])["package"] == bsr.__version__
    np.testing.assert_array_equal(stored.curve_mmse_bayes, curve.mmse_bayes)
    np.testing.assert_array_equal(stored.landscape_error, shown.error)
    assert set(stored.curve_status.values) <= {status.name.lower() for status in Status}


# --------------------------------------------------------------------------------------------
# The server
# --------------------------------------------------------------------------------------------


class Served:
    """``bsr explore`` as a process of its own."""

    def __init__(self, *words: str) -> None:
        # settings of Bokeh that would open the server or fetch files from elsewhere
        environment = os.environ | {
            "BOKEH_ALLOW_WS_ORIGIN": "*",
            "BOKEH_RESOURCES": "cdn",
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-m", "bsr_theory", "explore", "--no-browser", *words]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.fullmatch(r"(http://127\.0\.0\.1:(\d+)/)  \(Ctrl-C stops it\)\n", line)
        if found is None:
            raise AssertionError((line, self.stop()))
        self.address, self.port = found[1], int(found[2])

    def get(self, path: str = "") -> tuple[int, Any, str]:
        """Return status, headers and text of an answer."""
        try:
            with urllib.request.urlopen(self.address + path) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read().decode()

    def stop(self) -> tuple[int, str, str]:
        """Press Ctrl-C; return exit code and output."""
        self.process.send_signal(signal.SIGINT)
        try:
            out, err = self.process.communicate(timeout=30)
        finally:
            self.process.kill()
        return self.process.returncode, out, err


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    running = Served()
    yield running
    running.stop()


def test_only_this_machine_reaches_it(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=5):
        pass
    others = {"127.0.0.2", "::1"}
    for family in (socket.AF_INET, socket.AF_INET6):
        # the address of an interface: nothing is sent
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1" if family == socket.AF_INET else "2001:db8::1", 9))
            except OSError:
                continue
            others.add(probe.getsockname()[0])
    for other in others - {"127.0.0.1"}:
        with pytest.raises(OSError):
            socket.create_connection((other, served.port), timeout=5).close()
    options = {name for option in cli.main.commands["explore"].params for name in option.opts}
    assert not {"--address", "--host", "--ip"} & options


def handshake(served: Served, origin: str) -> int:
    """Return the status of the answer to a page elsewhere that asks for a connection."""
    token = re.search(r'"token":"([^"]+)"', served.get()[2])
    assert token
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": f"bokeh, {token[1]}",
        "Origin": origin,
    }
    connection.request("GET", "/ws", headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_other_pages_may_not_use_it(served: Served) -> None:
    assert handshake(served, f"http://127.0.0.1:{served.port}") == 101
    assert handshake(served, f"http://localhost:{served.port}") == 101
    for origin in ("http://example.org", f"http://example.org:{served.port}", "http://127.0.0.1:1"):
        assert handshake(served, origin) == 403


def test_all_that_the_page_needs_is_served(served: Served) -> None:
    _, _, text = served.get()
    sources = re.findall(r'(?:src|href)="([^"]+)"', text)
    scripts = [source for source in sources if source.startswith("/static/")]
    assert len(scripts) >= 2
    assert {source.split(":")[0] for source in sources if ":" in source} <= {"data"}
    assert "cdn." not in text
    for source in scripts:
        assert served.get(source.lstrip("/"))[0] == 200


@pytest.mark.parametrize("kind", ["csv", "json", "nc"])
def test_files_have_an_address(served: Served, kind: str) -> None:
    with urllib.request.urlopen(f"{served.address}data.{kind}?{HARD.query}") as answer:
        data = answer.read()
        name = f'attachment; filename="bsr_explore.{kind}"'
        assert answer.headers["Content-Disposition"] == name
    shown = explore(HARD)
    if kind == "csv":
        assert data.decode() == shown.to_csv()
    elif kind == "json":
        assert json.loads(data) == json.loads(shown.to_json())
    else:
        assert data[:4] == b"\x89HDF"


def test_bad_addresses_are_answered_in_words(served: Served) -> None:
    status, headers, text = served.get("data.csv?alpha=-1&beta=2&rho=%3Cb%3E")
    assert status == 400
    assert headers["Content-Type"].startswith("text/plain")
    assert [line.split()[0] for line in text.splitlines()] == ["alpha", "rho"]
    assert served.get("data.exe")[0] == 404


def test_a_free_port_is_found_and_ctrl_c_ends() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((server.HOST, server.PORT))
            taken.listen()
        except OSError:
            pass  # somebody else has it, which is as good
        running = Served("--alpha", "0.7", "--channel", "sign")
        assert running.port > server.PORT
        assert "0.7" in running.get("data.csv")[2].splitlines()[2]
        code, out, err = running.stop()
    assert (code, out, err) == (0, "", "")
    with pytest.raises(OSError):
        socket.create_connection((server.HOST, running.port), timeout=5).close()


def run(line: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.main, line.split())
    return result.exit_code, result.stderr


def test_mistakes_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind((server.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, text = run(f"explore --no-browser --port {port}")
        assert code == 2
        assert text.startswith(f"Error: cannot listen at port {port} of 127.0.0.1: ")
        assert text.count("\n") == 1
    assert run("explore --beta 0.5") == (2, "Error: beta must be >= 1, got 0.5\n")
    for name in [x for x in sys.modules if x.startswith("bsr_theory.explore.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "bokeh.application", None)  # as if it were not installed
    wanted = "Error: the explorer needs Bokeh: pip install 'bsr_theory[explore]'\n"
    assert run("explore") == (2, wanted)


# --------------------------------------------------------------------------------------------
# The page in a browser
# --------------------------------------------------------------------------------------------

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
with_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


class Browser:
    """Chromium without a window, told what to do by its DevTools protocol."""

    def __init__(self, width: int = 1280, height: int = 800) -> None:
        assert CHROMIUM is not None
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.home = Path(self.folder.name)
        self.process = subprocess.Popen(
            [
                CHROMIUM,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--remote-debugging-port=0",
                f"--user-data-dir={self.home}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.loop = asyncio.new_event_loop()
        self.count, self.events = 0, []
        self.socket = self.loop.run_until_complete(self._connect())
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.home))
        self.resize(width, height)

    async def _connect(self) -> Any:
        port = self.home / "DevToolsActivePort"
        for _ in range(600):
            if port.exists() and "\n" in port.read_text():
                number = port.read_text().split()[0]
                with urllib.request.urlopen(f"http://127.0.0.1:{number}/json") as answer:
                    pages = [x for x in json.load(answer) if x["type"] == "page"]
                if pages:
                    address = pages[0]["webSocketDebuggerUrl"]
                    return await websocket_connect(address, max_message_size=2**28)
            await asyncio.sleep(0.05)
        raise AssertionError("Chromium did not start")

    async def _hang_up(self) -> None:
        self.socket.close()  # where a loop runs: Tornado asks for the current one
        await asyncio.sleep(0.05)

    def send(self, method: str, **parameters: Any) -> Any:
        """Give a command and return its answer; events that come before it are kept."""

        async def talk() -> Any:
            self.count += 1
            message = {"id": self.count, "method": method, "params": parameters}
            await self.socket.write_message(json.dumps(message))
            while True:
                answer = json.loads(await self.socket.read_message())
                if answer.get("id") == self.count:
                    assert "error" not in answer, (method, answer["error"])
                    return answer["result"]
                self.events.append(answer)

        return self.loop.run_until_complete(talk())

    def resize(self, width: int, height: int) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def js(self, code: str) -> Any:
        """Return the value of an expression on the page."""
        answer = self.send("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in answer, (code, answer)
        return answer["result"].get("value")

    def wait(self, code: str, seconds: float = 60.0) -> Any:
        """Return the value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = self.js(f"(() => {{ try {{ return {code} }} catch {{ return null }} }})()")
            if value:
                return value
            time.sleep(0.02)
        raise AssertionError(
            f"never came true: {code}; shown: {self.js('document.body.innerText')}"
        )

    def open(self, address: str) -> None:
        self.send("Page.navigate", url=address)
        self.wait('document.body.dataset.shown && document.readyState === "complete"')
        self.wait("Bokeh.documents[0].is_idle")

    def source(self, what: str) -> dict[str, list[float | None]]:
        """Return the columns that hold ``what``, as the browser has them."""
        return self.js(
            "(() => { for (const m of Bokeh.documents[0]._all_models.values())"
            f' if (m.type === "ColumnDataSource" && m.data.{what} !== undefined)'
            " return Object.fromEntries("
            "Object.entries(m.data).map(([k, x]) => [k, Array.from(x)])) })()"
        )

    def place(self, name: str, selector: str) -> tuple[float, float, float, float]:
        """Return the box of an element inside a Bokeh model."""
        box = self.js(
            "(() => { const m = Bokeh.documents[0].get_model_by_name("
            f'"{name}"); const e = Bokeh.index.find_one(m).shadow_el.querySelector("{selector}");'
            " const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height] })()"
        )
        return tuple(box)

    def mouse(self, kind: str, x: float, y: float) -> None:
        press = {"button": "left", "buttons": 1, "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **press)

    def click(self, x: float, y: float) -> None:
        self.mouse("mousePressed", x, y)
        self.mouse("mouseReleased", x, y)

    def key(self, name: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            extra = {"text": "\r"} if name == "Enter" and kind == "keyDown" else {}
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=name,
                code=name,
                windowsVirtualKeyCode=code,
                **extra,
            )

    def enter(self, name: str, word: str) -> None:
        """Write a word into an entry."""
        x, y, width, height = self.place(name, "input")
        for _ in range(3):  # selects what is there
            self.send(
                "Input.dispatchMouseEvent",
                type="mousePressed",
                x=x + width / 2,
                y=y + height / 2,
                button="left",
                clickCount=3,
            )
        self.mouse("mouseReleased", x + width / 2, y + height / 2)
        self.send("Input.insertText", text=word)
        self.key("Enter", 13)

    def complaints(self) -> list[Any]:
        """Return errors and warnings of the page."""
        return [
            event["params"]
            for event in self.events
            if event["method"] == "Runtime.exceptionThrown"
            or (
                event["method"] == "Log.entryAdded"
                and event["params"]["entry"]["level"] in ("error", "warning")
            )
            or (
                event["method"] == "Runtime.consoleAPICalled"
                and event["params"]["type"] in ("error", "warning", "assert")
            )
        ]

    def close(self) -> None:
        self.loop.run_until_complete(self._hang_up())
        self.loop.close()
        self.process.terminate()
        self.process.wait(30)
        self.folder.cleanup()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    running = Browser()
    yield running
    running.close()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    chromium.resize(1280, 800)
    chromium.events.clear()
    yield chromium
    assert not chromium.complaints()


def errors(columns: dict[str, list[float | None]]) -> np.ndarray:
    """Return the Bayes-optimal curve as drawn, without the point at alpha = 0."""
    return np.array(columns["bayes"][1:], dtype=float)


@with_browser
def test_the_page_shows_the_numbers(served: Served, browser: Browser) -> None:
    browser.open(served.address + "?" + HARD.query)
    shown = explore(HARD)
    np.testing.assert_array_equal(errors(browser.source("bayes")), shown.curve.mmse_bayes)
    np.testing.assert_array_equal(browser.source("low")["low"], shown.curve.hard[:, 0])
    np.testing.assert_array_equal(browser.source("density")["y"], shown.spectrum.y)
    text = browser.js("document.body.innerText")
    assert "Hard: message passing stays above the Bayes-optimal error." in text
    assert "hard phase" in text
    assert re.search(r"strong recovery\s+0\.36", text)
    # four plots, two of them out of sight until axes are logarithmic; nothing is blank
    assert browser.js("Bokeh.documents[0].roots().length") == 4
    # everything came from the server
    hosts = {
        event["params"]["request"]["url"].split("/")[2]
        for event in browser.events
        if event["method"] == "Network.requestWillBeSent"
        and not event["params"]["request"]["url"].startswith("data:")
    }
    assert hosts == {f"127.0.0.1:{served.port}"}
    # nothing sticks out at the sides, in a narrow window too
    for width in (1280, 400):
        browser.resize(width, 800)
        browser.wait("document.scrollingElement.scrollWidth <= innerWidth")
    assert browser.js('document.querySelector("section.error .plot").offsetWidth') > 300


@with_browser
def test_sliders_change_what_is_shown(served: Served, browser: Browser) -> None:
    browser.open(served.address)
    before = errors(browser.source("bayes"))
    np.testing.assert_array_equal(before, explore(View()).curve.mmse_bayes)

    # the mouse drags rho
    x, y, width, height = browser.place("rho_slider", ".noUi-handle")
    x, y = x + width / 2, y + height / 2
    browser.mouse("mousePressed", x, y)
    for k in range(1, 9):
        browser.mouse("mouseMoved", x - 5 * k, y)
    browser.mouse("mouseReleased", x - 40, y)
    stop = browser.js('Bokeh.documents[0].get_model_by_name("rho_slider").value')
    rho = page._STOPS["rho"][stop]
    assert 0.001 < rho < 0.5
    browser.wait(f'location.search.includes("rho={rho}&")')
    after = explore(View(rho=rho))
    np.testing.assert_array_equal(errors(browser.source("bayes")), after.curve.mmse_bayes)
    assert browser.js('Bokeh.documents[0].get_model_by_name("rho").value') == f"{rho:g}"

    # keys move alpha
    x, y, width, height = browser.place("alpha_slider", ".noUi-handle")
    browser.click(x + width / 2, y + height / 2)
    browser.key("ArrowRight", 39)
    browser.wait('!location.search.includes("alpha=0.4&")')
    alpha = float(browser.js('new URLSearchParams(location.search).get("alpha")'))
    assert 0.4 < alpha < 0.42
    wanted = explore(View(alpha=alpha, rho=rho)).points.mmse[0]
    browser.wait(f'document.getElementById("readout").innerText.includes("{wanted:.5g}")')

    # a click on the curve chooses alpha
    box = browser.js(
        'JSON.stringify(document.querySelector("section.error .plot").getBoundingClientRect())'
    )
    place = json.loads(box)
    browser.click(place["x"] + 0.3 * place["width"], place["y"] + 0.6 * place["height"])
    browser.wait(f'!location.search.includes("alpha={alpha}")')
    assert 0.0 < float(browser.js('new URLSearchParams(location.search).get("alpha")')) < alpha


@with_browser
def test_every_control_is_reached_by_the_keyboard(served: Served, browser: Browser) -> None:
    browser.open(served.address)
    focus = (
        "(() => { let e = document.activeElement; while (e?.shadowRoot?.activeElement)"
        " e = e.shadowRoot.activeElement;"
        " return [e.tagName, e.getAttribute('aria-label') || e.placeholder || e.type"
        " || '', e.innerText?.trim() ?? ''].join(' ').trim() })()"
    )
    seen = []
    for _ in range(24):
        browser.key("Tab", 9)
        seen.append(browser.js(focus))
    for name in ("alpha", "beta", "rho", "delta"):
        assert f"DIV {name}" in seen
        assert f"INPUT {name}" in seen
    assert any(x.startswith("SELECT") for x in seen)
    assert seen.count("INPUT checkbox") == 2
    for word in ("reset", "CSV", "JSON", "netCDF"):
        assert any(x.endswith(word) for x in seen), (word, seen)


@with_browser
def test_bad_entries_get_a_message(served: Served, browser: Browser) -> None:
    browser.open(served.address + "?alpha=0.3&beta=0.5&channel=%3Cimg%20src=x%3E")
    message = 'document.getElementById("message").innerText'
    assert "beta must be >= 1, got 0.5" in browser.js(message)
    assert "channel must be one of" in browser.js(message)
    assert browser.js("document.querySelectorAll('#message img').length") == 0
    shown = errors(browser.source("bayes"))

    browser.enter("rho", "a third")
    browser.wait(f"{message}.includes(\"rho must be a number, got 'a third'\")")
    np.testing.assert_array_equal(errors(browser.source("bayes")), shown)
    browser.enter("delta", "0.02")  # another one may be changed meanwhile
    browser.wait('location.search.includes("delta=0.02")')
    assert "rho must be" in browser.js(message)
    browser.enter("rho", "inf")
    browser.wait(f'{message} === ""')
    assert browser.js("location.search") == "?" + View(alpha=0.3, rho=np.inf, delta=0.02).query
    wanted = explore(View(alpha=0.3, rho=np.inf, delta=0.02)).curve.mmse_bayes
    np.testing.assert_array_equal(errors(browser.source("bayes")), wanted)


@with_browser
def test_a_view_is_kept_in_the_address(served: Served, browser: Browser) -> None:
    browser.open(served.address)
    other = Browser()
    try:
        browser.js('Bokeh.documents[0].get_model_by_name("channel").value = "abs"')
        browser.wait('location.search.includes("channel=abs")')
        browser.enter("delta", "0.01")
        browser.wait('location.search.includes("delta=0.01")')
        browser.js('Bokeh.documents[0].get_model_by_name("axes").active = 1')
        browser.wait('location.search.includes("log=1")')
        address = browser.js("location.href")
        # somebody else opens it, while the first page stays
        other.open(address)
        view = View(channel="abs", delta=0.01, log=True)
        wanted = explore(view).curve
        for each in (browser, other):
            np.testing.assert_array_equal(errors(each.source("bayes")), wanted.mmse_bayes)
        assert other.js("location.href") == address
        assert not other.complaints()
    finally:
        other.close()
    x, y, width, height = browser.place("reset", "button")
    browser.click(x + width / 2, y + height / 2)
    browser.wait(f'location.search === "?{View().query}"')


@with_browser
def test_data_is_downloaded(served: Served, browser: Browser) -> None:
    browser.open(served.address + "?" + NOISY.query)
    browser.js("document.querySelector(\"a[data-file='data.csv']\").click()")
    path = browser.home / "bsr_explore.csv"
    end = time.monotonic() + 30.0
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert path.read_text() == explore(NOISY).to_csv()


@pytest.mark.slow
@with_browser
def test_a_page_goes_on_when_its_server_is_back() -> None:
    first = Served()
    other = Browser()
    try:
        other.open(first.address + "?" + NOISY.query)
        other.js("window.mark = 1")
        assert first.stop() == (0, "", "")
        other.wait('document.getElementById("message").innerText.includes("has stopped")')
        second = Served("--port", str(first.port))
        other.wait("window.mark === undefined && document.body.dataset.shown")
        assert other.js("location.search") == "?" + NOISY.query
        wanted = explore(NOISY).curve.mmse_bayes
        np.testing.assert_array_equal(errors(other.source("bayes")), wanted)
        assert second.stop() == (0, "", "")
    finally:
        other.close()
        first.process.kill()

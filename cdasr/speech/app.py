"""`cdasr app`: a page on this machine that hears a recording, or a microphone, with every strategy of a package.

The page is made with gradio (extra `app`). It is served on 127.0.0.1 alone, and its browser is told to fetch nothing
from elsewhere. Uploads are kept in a folder of their own, which is emptied every few minutes and removed at the end.
What is computed is in `tryout.py`.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cdasr.coupled.strategies import STRATEGIES
from cdasr.runtime.errors import explain
from cdasr.runtime.terminal import note
from cdasr.speech.tryout import (
    LARGEST,
    LONGEST,
    LONGEST_NOISE,
    MEGABYTE,
    NO_NOISE,
    NOISES,
    OWN_NOISE,
    SNR_RANGE,
    Settings,
    try_out,
)

if TYPE_CHECKING:
    from cdasr.speech.pipeline import Pipeline

HOST = "127.0.0.1"
NAMES = [HOST, "localhost"]  # by which the page may be asked for: no other site can pass itself off as it
KEPT = 600  # seconds that an upload is kept, so that it can be heard again with other settings
LOOK = 60  # seconds between looks for uploads that are older
WAITING = 8  # requests in line
TERMINATED = 143  # exit code: 128 + SIGTERM
OFFLINE = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src "
                               "'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
                               "font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
                               "frame-ancestors 'none'",
    "referrer-policy": "no-referrer"}


def serve(load: Callable[[], Pipeline], port: int, steps: int | None = None, seed: int = 0) -> None:
    """Serve the page until Ctrl-C. Raises ValueError where gradio is not installed or the port is taken.

    Both are told before `load` loads the package. `steps` are those of each process, None for the package's; `seed` is
    the one that stands on the page at first.
    """
    check_installed()
    with listen(port) as listening, tempfile.TemporaryDirectory(prefix="cdasr-app-") as kept:
        pipeline = load()
        os.environ.update(OFFLINE, GRADIO_TEMP_DIR=kept)  # before gradio is imported: it reads them then
        import uvicorn

        server = uvicorn.Server(uvicorn.Config(make_app(pipeline, steps, seed), log_level="warning",
                                               timeout_graceful_shutdown=2))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # else the folder would stay behind
        note(f"cdasr: http://{HOST}:{listening.getsockname()[1]} is ready; Ctrl-C ends it")
        server.run(sockets=[listening])


def check_installed() -> None:
    """Raise ValueError where gradio is not installed."""
    if find_spec("gradio") is None:
        raise ValueError("the page needs the Python package gradio: pip install 'cdasr[app]'")


def listen(port: int) -> socket.socket:
    """A socket that is bound to `port` of this machine alone. Raises ValueError where the port is taken."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()  # of two sockets that are bound with SO_REUSEADDR, only one can
    except (OSError, OverflowError) as error:
        listening.close()
        raise ValueError(f"port {port} of {HOST} cannot be used ({getattr(error, 'strerror', None) or error}); choose "
                         "another one with --port, or 0 for any that is free") from None
    return listening


def make_app(pipeline: Pipeline, steps: int | None = None, seed: int = 0):
    """The page as an ASGI application, with what keeps it to this machine. Needs gradio."""
    import gradio
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = gradio.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None), make_page(pipeline, steps, seed), path="/",
        server_name=HOST, footer_links=[], run_history=False, max_file_size=LARGEST, ssr_mode=False, mcp_server=False,
        pwa=False, enable_monitoring=False,
        theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=NAMES)
    app.add_middleware(Headers, headers=HEADERS)
    return app


class Headers:
    """ASGI middleware that adds headers to every response."""

    def __init__(self, app, headers: Mapping[str, str]):
        self.app, self.headers = app, [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope, receive, send):
        async def with_headers(message):
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self.headers]}
            await send(message)
        await self.app(scope, receive, with_headers)


def make_page(pipeline: Pipeline, steps: int | None = None, seed: int = 0):
    """The page as gradio's Blocks. Needs gradio."""
    import gradio

    with gradio.Blocks(title="cdasr", analytics_enabled=False, delete_cache=(LOOK, KEPT), fill_width=True) as page:
        gradio.Markdown(introduction(pipeline))
        with gradio.Row():
            with gradio.Column():
                recording = gradio.Audio(label=f"recording, at most {LONGEST:g} s", sources=["upload", "microphone"],
                                         type="filepath", buttons=[])
                said = gradio.Textbox(label="what is said in it, to count errors (may stay empty)", max_lines=3)
            with gradio.Column():
                noise = gradio.Dropdown(list(NOISES), value=NO_NOISE, label="noise to add",
                                        info=f"made anew for each seed; {OWN_NOISE}: the recording below")
                noise_file = gradio.Audio(label=f"noise, at most {LONGEST_NOISE:g} s", sources=["upload"],
                                          type="filepath", visible=False, buttons=[])
                snr = gradio.Slider(*SNR_RANGE, value=0, step=1, label="signal-to-noise ratio, dB")
                number_of_seed = gradio.Number(seed, precision=0, minimum=0, label="seed of noise and of sampling")
            with gradio.Column():
                strategies = gradio.CheckboxGroup(pipeline.strategies, value=pipeline.strategies, label="strategies")
                start = gradio.Button("Transcribe", variant="primary")
        shown = gradio.HTML(apply_default_css=False)
        noise.change(lambda name: gradio.update(visible=name == OWN_NOISE), noise, noise_file, api_visibility="private")
        start.click(handler(pipeline, steps), [recording, noise, noise_file, snr, number_of_seed, strategies, said],
                    shown, api_name="transcribe", concurrency_limit=1)
    page.queue(max_size=WAITING)
    return page


def handler(pipeline: Pipeline, steps: int | None = None) -> Callable[..., str]:
    """What the button does, for this package: HTML of the cards; faults are shown on the page in one line."""
    import gradio

    from cdasr.evaluation.html_page import text
    from cdasr.speech.tryout_html import cards

    told = gradio.Progress()  # gradio finds it among the defaults, and gives each request one of its own

    def transcribe(recording, noise, noise_file, snr, seed, strategies, said, progress=told):
        try:
            settings = Settings(noise, noise_file, number(snr, "SNR"), int(number(seed, "seed")), strategies,
                                said or "", steps)
            tried = try_out(pipeline, recording, settings,
                            lambda done, count, strategy: progress((done, count), desc=strategy))
            return cards(tried, pipeline.default_strategy)
        except Exception as error:
            if (message := explain(error)) is None:
                raise
            raise gradio.Error(text(message), print_exception=False) from None
    return transcribe


def number(value: object, name: str) -> float:
    """A finite number of a field. Raises ValueError for an empty one and for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"the {name} is not a number; enter one")
    return float(value)


def introduction(pipeline: Pipeline) -> str:
    """What the page is for, and what each strategy of the package does, as Markdown."""
    about = f" The package: {pipeline.about}." if pipeline.about else ""
    lines = [f"- **{name}**{' (the own strategy of the package)' if name == pipeline.default_strategy else ''}: "
             f"{STRATEGIES[name].about}" for name in pipeline.strategies]
    return (f"# cdasr\nHear and read what each strategy makes of a recording.{about} Nothing leaves this machine. "
            f"Files have at most {LARGEST // MEGABYTE} MB, recordings {LONGEST:g} s; they are removed after "
            f"{KEPT // 60} minutes.\n"
            "<details><summary>What the strategies do</summary>\n\n" + "\n".join(lines) + "\n\n</details>")

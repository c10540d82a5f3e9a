"""What the cameras see, in a browser, while an arm is driven: a small web page.

A thread of its own takes the newest pictures, so the control loop never waits for who
is looking on. It listens on this computer only; over SSH, forward the port.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

from act_minimal.support.errors import SettingError

from .cameras import Camera, CameraError

FPS = 10.0  # pictures a second; more would take time from the loop
WIDTH = 480  # pixels that a picture is wide at most

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>act: live</title>
<style>body{font-family:sans-serif;background:#111;color:#eee;margin:1em}
figure{display:inline-block;margin:.5em}img{width:480px;image-rendering:pixelated}
pre{font-size:1.1em}</style><pre id="said">...</pre>%s
<script>setInterval(async()=>{document.getElementById("said").textContent=
await (await fetch("/said")).text()},300)</script></html>"""


class LiveView:
    """Serves a page with every camera's picture and a line of text.

    Args:
        cameras: open ones, by name.
        say: what stands above the pictures, asked three times a second.
        port: of the page; 0 takes a free one.

    Raises:
        SettingError: the port is taken.
    """

    def __init__(
        self,
        cameras: dict[str, Camera],
        say: Callable[[], dict[str, Any]] = dict,
        port: int = 0,
    ):
        view = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.partition("?")[0].strip("/")
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    if name in view.cameras:
                        view._stream(self, name)
                    elif name == "said":
                        text = json.dumps(view.say()).encode()
                        _answer(self, "application/json", text)
                    else:
                        _answer(self, "text/html", view._page().encode())

            def log_message(self, *_: Any) -> None:
                pass  # the terminal belongs to who drives the arm

        self.cameras, self.say = cameras, say
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise SettingError(
                f"the live view cannot use port {port} ({error.strerror}); choose "
                "another with --live, or -1 for none"
            ) from error
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self._stopping = False
        self._thread = threading.Thread(
            target=self._server.serve_forever, daemon=True, name="live view"
        )
        self._thread.start()

    def close(self) -> None:
        self._stopping = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)

    def __enter__(self) -> "LiveView":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _page(self) -> str:
        figures = [
            f'<figure><img src="/{name}" alt="what camera {name} sees">'
            f"<figcaption>{name}</figcaption></figure>"
            for name in self.cameras
        ]
        return PAGE % "".join(figures)

    def _stream(self, handler: BaseHTTPRequestHandler, name: str) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        handler.end_headers()
        while not self._stopping:
            jpeg = self._picture(name)
            head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}"
            handler.wfile.write(head.encode() + b"\r\n\r\n" + jpeg + b"\r\n")
            time.sleep(1 / FPS)

    def _picture(self, name: str) -> bytes:
        try:
            image = self.cameras[name].read().image
        except CameraError:
            image = np.zeros((96, 128, 3), np.uint8)  # black says it, too
        height, width = image.shape[:2]
        if width > WIDTH:
            image = cv2.resize(image, (WIDTH, round(height * WIDTH / width)))
        ok, jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return jpeg.tobytes() if ok else b""


def _answer(handler: BaseHTTPRequestHandler, kind: str, content: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", f"{kind}; charset=utf-8")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)

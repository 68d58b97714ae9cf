"""A chat server as OpenAI's API describes it, with scripted answers: `python chat_server.py SCRIPT.json`.

The script is a list of answers, given one after the other: {"tool": name, "arguments": {...}} or {"text": "..."}. It
prints its port and serves until it is ended; the requests it got are at GET /asked.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SCRIPT: list[dict[str, Any]] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
ASKED: list[dict[str, Any]] = []


def pieces(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts in which an answer is streamed."""
    if "text" in answer:
        return [{"content": word} for word in answer["text"].replace(" ", " \0").split("\0")]
    function = {"name": answer["tool"], "arguments": json.dumps(answer["arguments"])}
    return [{"tool_calls": [{"index": 0, "id": f"call_{len(ASKED)}", "type": "function", "function": function}]}]


class Chat(BaseHTTPRequestHandler):
    """Answers POST /v1/chat/completions, streamed or whole."""

    def do_GET(self) -> None:
        self._send(json.dumps(ASKED).encode(), "application/json")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ASKED.append(asked)
        parts = pieces(SCRIPT[len(ASKED) - 1])
        frame = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": asked["model"]}
        reason = "tool_calls" if "tool_calls" in parts[0] else "stop"
        if not asked.get("stream"):
            message = {"role": "assistant", "content": "".join(part.get("content", "") for part in parts), **parts[0]}
            choice = {"index": 0, "message": message, "finish_reason": reason}
            whole = {**frame, "object": "chat.completion", "choices": [choice]}
            self._send(json.dumps(whole).encode(), "application/json")
            return
        ends = [None] * (len(parts) - 1) + [reason]
        lines = [
            {**frame, "choices": [{"index": 0, "delta": {"role": "assistant", **part}, "finish_reason": end}]}
            for part, end in zip(parts, ends, strict=True)
        ]
        body = "".join(f"data: {json.dumps(line)}\n\n" for line in lines) + "data: [DONE]\n\n"
        self._send(body.encode(), "text/event-stream")

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    print(server.server_address[1], flush=True)
    server.serve_forever()

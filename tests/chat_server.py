"""A chat server as OpenAI's API describes it, with scripted answers: `python chat_server.py SCRIPT.json`.

The script is a list of answers, given one after the other, the last one again and again: {"tool": name, "arguments":
{...}} or {"text": "..."}. Beside them "reason" is why it ended and "raw" the arguments of a tool as they are sent;
{"drop": n} ends the connection after n words, {"silent": n} ends the answer there as if it were whole; {"status": code}
alone is an error. It prints its port and serves until it is ended; the requests it got are at GET /asked.
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
    arguments = answer["raw"] if "raw" in answer else json.dumps(answer["arguments"])
    function = {"name": answer["tool"], "arguments": arguments}
    return [{"tool_calls": [{"index": 0, "id": f"call_{len(ASKED)}", "type": "function", "function": function}]}]


class Chat(BaseHTTPRequestHandler):
    """Answers POST /v1/chat/completions, streamed or whole."""

    def do_GET(self) -> None:
        self._send(json.dumps(ASKED).encode(), "application/json")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ASKED.append(asked)
        answer = SCRIPT[min(len(ASKED), len(SCRIPT)) - 1]
        if "status" in answer:
            error = {"error": {"message": f"no model {asked['model']}, key {self.headers['Authorization']}"}}
            self._send(json.dumps(error).encode(), "application/json", answer["status"])
            return
        parts = pieces(answer)
        frame = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": asked["model"]}
        reason = answer.get("reason") or ("tool_calls" if "tool_calls" in parts[0] else "stop")
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
        shown = lines[: answer.get("drop", answer.get("silent", len(lines)))]
        body = "".join(f"data: {json.dumps(line)}\n\n" for line in shown) + "data: [DONE]\n\n" * ("drop" not in answer)
        self._send(body.encode(), "text/event-stream", missing=1000 * ("drop" in answer))

    def _send(self, body: bytes, kind: str, status: int = 200, *, missing: int = 0) -> None:
        """Send a whole answer, or one that lacks bytes it announced."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) + missing))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    print(server.server_address[1], flush=True)
    server.serve_forever()

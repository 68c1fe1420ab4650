from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hubmerge.card.validate import validate_card
from hubmerge.errors import CardError

ANSWERS = {
    "good": (200, b"{}"),
    "odd": (200, b'{"warnings": [{"message": "empty or missing yaml metadata"}]}'),
    "bad": (400, b'{"errors": [{"message": "\\"license\\" must be one of [...]"}], "warnings": []}'),
    "no such endpoint": (404, b"not found"),
    "broken": (200, b"<html>"),
    "busy": (503, b""),
}


class Validator(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert (self.path, question["repoType"]) == ("/api/validate-yaml", "model")
        status, body = ANSWERS[question["content"]]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Validator) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_good_card_passes(endpoint: str):
    assert validate_card("good", endpoint=endpoint) == ()


def test_warnings_are_returned(endpoint: str):
    assert validate_card("odd", endpoint=endpoint) == ("empty or missing yaml metadata",)


def test_a_refused_card_is_an_error(endpoint: str):
    with pytest.raises(CardError) as caught:
        validate_card("bad", endpoint=endpoint)
    assert str(caught.value) == 'the Hub refuses the model card: "license" must be one of [...]'


@pytest.mark.parametrize("card", ["no such endpoint", "broken", "busy"])
def test_a_hub_that_cannot_say_is_no_reason_to_stop(endpoint: str, card: str):
    assert validate_card(card, endpoint=endpoint) == ()


def test_no_hub_at_all_is_no_reason_to_stop():
    assert validate_card("good", endpoint="http://127.0.0.1:9") == ()
